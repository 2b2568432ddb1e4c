"""The paper's tables: its numbers, ours under them, and a mark on every number that is not comparable."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import asdict, replace

import pytest
from synthetic_runs import invoke, make_run

from napo_bench.benchmarks.metrics import all_metrics
from napo_bench.benchmarks.result import MetricValue
from napo_bench.engines.judge import Reply, tokens_note
from napo_bench.report.explorer import to_html
from napo_bench.report.runs import MICRO_WORLD, NamedRun
from napo_bench.report.table import OURS, objective, table_1, to_csv, to_latex, to_markdown, variant_tables
from napo_bench.runs.provenance import CheckpointUsed
from napo_bench.runs.result import RunResult
from napo_bench.trainers.recipe import load_recipe, recipe_names

PAPER_KEYS = {
    "vlind_cb": "vlind.cb",
    "vlind_lp": "vlind.lp",
    "objhal_chair_s": "object_halbench.chair_s",
    "objhal_chair_i": "object_halbench.chair_i",
    "amber_chair": "amber.chair",
    "amber_cover": "amber.cover",
    "amber_hal": "amber.hal",
    "amber_cog": "amber.cog",
    "mmhal_score": "mmhal.score",
    "mmhal_halrate": "mmhal.hal_rate",
}


def named(name, run, recipe=None):
    return NamedRun(name, run, load_recipe(recipe) if recipe else None, [])


def controlled(name, run, recipe, control="blind"):
    """A run of a checkpoint that was trained as a control."""
    of_control = replace(run.provenance, checkpoint=CheckpointUsed(name, None, "1" * 64, control))
    trained = replace(load_recipe(recipe), control=control)
    return NamedRun(name, RunResult(run.benchmarks, of_control), trained, [])


@pytest.fixture(scope="module")
def runs():
    return [named("base", make_run(0.4, 1)), named("ours", make_run(0.8, 2))]


def ours(table):
    label, rows = table.groups[-1]
    assert label == OURS
    return {row.name: row for row in rows}


def footnotes_of(table, name):
    """The footnotes at a row's name and at its numbers."""
    row = ours(table)[name]
    at_numbers = {key: {table.footnotes[mark] for mark in cell.marks} for key, cell in row.cells.items()}
    return {table.footnotes[mark] for mark in row.marks}, at_numbers


def ways_of(table, name, group=OURS):
    """Metric key -> how a row's number was measured, as its footnotes and those of its column say."""
    (row,) = [row for label, rows in table.groups if label == group for row in rows if row.name == name]
    return {
        column.metric.key: {table.footnotes[mark] for mark in (*row.cells[column.key].marks, *column.marks)}
        for column in table.columns
        if column.key in row.cells
    }


def numbers_of(table, row):
    """Metric key -> value of a row, whatever the way of measuring."""
    return {column.metric.key: row.cells[column.key].value for column in table.columns if column.key in row.cells}


# The paper's numbers


def test_every_published_row_of_table_1_is_there(shared, runs):
    published = json.loads(shared("reference/paper_tables.json").read_text())["table1"]
    table = table_1(runs, paper=True)
    rows = [row for _, group in table.groups[:-1] for row in group]
    expected = sorted(
        [sorted((PAPER_KEYS[k], v) for k, v in row.items() if k in PAPER_KEYS and v is not None) for row in published]
    )
    assert sorted(sorted(numbers_of(table, row).items()) for row in rows) == expected
    assert sorted(row.name for row in rows) == sorted(row["method"] or row["base"] for row in published)


@pytest.mark.parametrize(
    ("number", "source"),
    [
        (2, "table2_variants"),
        (3, "table3_data"),
        (4, "table4_margin"),
        (5, "table5_original_data"),
        (6, "table6_napo_everywhere"),
    ],
)
def test_every_published_row_of_tables_2_to_6_is_there(shared, number, source):
    published = json.loads(shared("reference/paper_tables.json").read_text())[source]
    distinct = {2: "napo-a2", 3: "napo-random", 4: "napo-lb1-sum", 5: "napo-original", 6: "napo-everywhere"}[number]
    shown = variant_tables([named("x", make_run(0.5, 1), f"micro-{distinct}")], paper=True)
    (table,) = [table for table in shown if table.number == number]
    rows = table.groups[0][1]
    assert [(row.name, numbers_of(table, row)) for row in rows] == [
        (row["name"], {PAPER_KEYS[key]: value for key, value in row.items() if key != "name"}) for row in published
    ]


def test_best_of_the_papers_own_group_is_bold_as_in_the_paper(runs):
    groups = dict(table_1(runs, paper=True).groups)
    bold = {
        row.name: {key.partition(" ")[0] for key, cell in row.cells.items() if cell.best}
        for row in groups["LLaVA-v1.5-13B, trained in the paper"]
    }
    assert bold == {
        "DPO with RLAIF-V": {"amber.chair"},
        "mDPO with RLAIF-V": {"amber.hal", "mmhal.score", "mmhal.hal_rate"},
        "NaPO with RLAIF-V-Bias": {
            "vlind.cb", "vlind.lp", "object_halbench.chair_s", "object_halbench.chair_i", "amber.cover", "amber.cog",
        },
    }  # fmt: skip


# Our numbers


def test_columns_are_those_of_table_1_in_its_order(runs):
    assert [column.key for column in table_1(runs).columns] == list(PAPER_KEYS.values())


def test_our_rows_hold_our_values_and_intervals(runs):
    row = ours(table_1(runs))["ours"]
    for key, cell in row.cells.items():
        value = runs[1].run.benchmarks[all_metrics()[key].benchmark].metrics[all_metrics()[key].name]
        assert (cell.value, cell.interval) == (value.value, value.ci95)


def test_our_best_is_bold_in_the_better_direction_and_never_against_the_paper(runs):
    table = table_1(runs)
    rows = ours(table)
    assert rows["ours"].cells["vlind.cb"].best and not rows["base"].cells["vlind.cb"].best
    assert rows["ours"].cells["amber.chair"].best and not rows["base"].cells["amber.chair"].best
    without = table_1(runs, paper=False)
    assert [label for label, _ in without.groups] == [OURS]
    for name, row in ours(without).items():
        assert {k: (c.value, c.best) for k, c in row.cells.items()} == {
            k: (c.value, c.best) for k, c in rows[name].cells.items()
        }


def test_a_single_run_competes_with_nobody(runs):
    assert not any(cell.best for cell in ours(table_1(runs[:1]))["base"].cells.values())


def test_equal_printed_numbers_are_both_bold(runs):
    rows = ours(table_1([runs[0], replace(runs[0], name="twin")]))
    assert rows["base"].cells["vlind.lp"].best and rows["twin"].cells["vlind.lp"].best


def test_benchmarks_that_a_run_lacks_are_empty_cells(runs):
    runs = [named(name, make_run(0.5, 1, sizes={name: 96})) for name in ("mmhal", "vlind")]
    table = table_1(runs)
    assert set(ours(table)["mmhal"].cells) == {"mmhal.score", "mmhal.hal_rate"}
    assert "–" in to_markdown(table)


def test_benchmarks_that_no_run_has_are_no_columns_unless_the_papers_rows_are_asked_for():
    runs = [named("part", make_run(0.5, 1, sizes={"vlind": 96}))]
    table = table_1(runs)
    assert [column.key for column in table.columns] == ["vlind.cb", "vlind.lp"]
    published = [row for _, rows in table.groups[:-1] for row in rows]
    assert len(published) > 3 and all(row.cells for row in published)
    everything = table_1(runs, paper=True).columns
    assert list(dict.fromkeys(column.metric.key for column in everything)) == list(PAPER_KEYS.values())


def test_a_metric_without_a_better_direction_has_no_best(runs, monkeypatch):
    words = all_metrics()["object_halbench.mean_words"]
    monkeypatch.setattr("napo_bench.report.table.table_1_metrics", lambda: (words,))
    rows = ours(table_1(runs))
    assert len(rows) > 1 and not any(row.cells[words.key].best for row in rows.values())


# What is not comparable is marked


def test_a_run_by_the_published_protocol_has_no_footnote_but_how_it_was_measured(runs):
    table = table_1(runs)
    assert footnotes_of(table, "base") == (set(), {key: set() for key in ours(table)["base"].cells})
    assert table.warnings == []


@pytest.mark.parametrize(
    ("benchmark", "settings", "text"),
    [
        ("mmhal", {"judge": {"model": "qwen-72b"}}, "Judged by qwen-72b"),
        ("object_halbench", {"chair_definition": "llm:gpt-4o"}, "over the objects that gpt-4o lists"),
        (
            "object_halbench",
            {
                "chair_definition": "llm:gpt-4o",
                "extractor": {"reported_model": "other", "spacy_model": "en_core_web_md 3.8.0"},
            },
            "lists, which answered as other. They are tagged by en_core_web_md 3.8.0 (published: en_core_web_trf).",
        ),
        ("amber", {"text_pipeline": {"name": "closed_vocabulary"}}, "closed_vocabulary"),
        ("amber", {"text_pipeline": {"name": "official", "spacy_model": "en_core_web_md 3.8"}}, "en_core_web_md"),
        ("vlind", {"generation": {"profile": "greedy"}}, "profile greedy"),
        ("vlind", {"generation": {}}, "not recorded"),
    ],
)
def test_a_number_measured_in_another_way_carries_its_footnote(runs, benchmark, settings, text):
    other = named("other", make_run(0.9, 3, settings={benchmark: settings}))
    table = table_1([runs[0], other])
    assert footnotes_of(table, "other")[0] == set()
    for key, found in ways_of(table, "other").items():
        assert any(text in note for note in found) == (all_metrics()[key].benchmark == benchmark)
    for row in ours(table).values():
        for key, cell in row.cells.items():
            assert not (cell.best and key.startswith(f"{benchmark}.")), "incomparable numbers compete"
    assert any(cell.best for cell in ours(table)["other"].cells.values())


def test_mapped_numbers_are_never_bold_even_if_every_number_of_a_column_is_mapped():
    settings = {"mmhal": {"mapped": {"from": "qwen", "ratings": 120, "intervals": {}}}}
    sizes = {"mmhal": 60, "amber": 60}
    found = [named(str(n), make_run(n / 10, n, sizes=sizes, settings=settings)) for n in (4, 8)]
    rows = ours(table_1(found))
    best = {key for row in rows.values() for key, cell in row.cells.items() if cell.best}
    assert {key.partition(".")[0] for key in best} == {"amber"}


def test_every_published_chair_and_rating_says_how_it_was_measured(runs):
    table = table_1(runs, paper=True)
    for label, rows in table.groups[:-1]:
        for row in rows:
            for key, ways in ways_of(table, row.name, label).items():
                assert len(ways) == (0 if key.startswith("vlind") else 1), f"{label}, {row.name}, {key}: {ways}"
    paper = "LLaVA-v1.5-7B, trained in the paper"
    assert ways_of(table, "NaPO with RLAIF-V-Bias", paper)["object_halbench.chair_s"] == {
        "Object HalBench: CHAIR over the words of an answer (refined synonyms)."
    }
    earlier = ways_of(table, "RLAIF-V-Iterative", "LLaVA-v1.5-7B, earlier methods")
    (extracted,) = earlier["object_halbench.chair_s"]
    assert extracted.startswith("Object HalBench: CHAIR over the objects that gpt-3.5-turbo-0613 lists.")
    assert "as chair_s_refine does" in extracted
    assert earlier["mmhal.score"] == {"MMHal-Bench: Judged by gpt-4-1106-preview."}
    base = ways_of(table, "LLaVA-v1.5-7B", "LLaVA-v1.5-7B, earlier methods")
    assert base["mmhal.hal_rate"] == {"MMHal-Bench: Judged by gpt-4-0125-preview."}


@pytest.mark.parametrize("paper", [None, False])
def test_how_numbers_were_measured_is_at_the_head_of_their_column(runs, paper):
    table = table_1(runs, paper=paper)
    ways = ways_of(table, "ours")
    assert ways["object_halbench.chair_s"] == {"Object HalBench: CHAIR over the words of an answer (refined synonyms)."}
    assert ways["mmhal.score"] == {"MMHal-Bench: Judged by gpt-4-1106-preview."}
    assert [column.key for column in table.columns if not column.marks] == ["vlind.cb", "vlind.lp"]


def ways_of_columns(table, metric):
    return [column.way for column in table.columns if column.metric.key == metric]


def test_two_judges_and_two_extractors_share_no_column(runs):
    other = {"mmhal": {"judge": {"model": "qwen-72b"}}, "object_halbench": {"chair_definition": "llm:gpt-4o"}}
    table = table_1([*runs, named("other", make_run(0.9, 3, settings=other))], paper=False)
    assert ways_of_columns(table, "mmhal.score") == ["Judged by gpt-4-1106-preview.", "Judged by qwen-72b."]
    words, extracted = ways_of_columns(table, "object_halbench.chair_i")
    assert words.startswith("CHAIR over the words") and extracted.startswith("CHAIR over the objects that gpt-4o lists")
    rows = ours(table)
    for column in table.columns:
        there = [name for name, row in rows.items() if column.key in row.cells]
        if column.several:
            assert there in (["base", "ours"], ["other"])
    assert to_markdown(table).count("MMHal-Bench Score") == 2
    assert len([name for name in next(csv.reader(io.StringIO(to_csv([table])))) if name.startswith("mmhal.score")]) == 6
    html = to_html([*runs], [table], [])
    assert html.count(">MMHal-Bench</th>") == 2


def test_the_served_model_tells_two_judges_of_one_name_apart(runs):
    judges = [{"model": "gpt-4", "reported_model": f"gpt-4-{date}"} for date in ("0613", "1106")]
    served = [named(str(i), make_run(0.5, i, settings={"mmhal": {"judge": judge}})) for i, judge in enumerate(judges)]
    assert len(ways_of_columns(table_1(served, paper=False), "mmhal.score")) == 2


def test_another_fingerprint_of_the_same_judge_is_a_footnote_in_the_same_column():
    judges = [{"model": "gpt-4", **({"fingerprint": f"fp_{one}"} if one else {})} for one in ("a", "b", "")]
    served = [
        named(f"run{i}", make_run(0.5, i, settings={"mmhal": {"judge": judge}})) for i, judge in enumerate(judges)
    ]
    table = table_1(served, paper=False)
    assert len(ways_of_columns(table, "mmhal.score")) == 1
    for run, print_ in zip(served, ("fp_a", "fp_b", "not reported"), strict=True):
        assert footnotes_of(table, run.name)[1]["mmhal.score"] == {
            f"System fingerprint of judge or extractor: {print_}."
        }
        assert footnotes_of(table, run.name)[1]["vlind.cb"] == set()
    other = make_run(0.5, 1, settings={"mmhal": {"judge": {"model": "qwen", "fingerprint": "fp_c"}}})
    alike = table_1([served[0], replace(served[0], name="twin"), named("other", other)], paper=False)
    assert not any("fingerprint" in text for text in alike.footnotes.values())


def test_a_published_number_of_another_judge_has_a_column_only_on_request(runs):
    table = table_1(runs)
    assert ways_of_columns(table, "mmhal.score") == ["Judged by gpt-4-1106-preview."]
    rated = [row.name for _, rows in table.groups[:-1] for row in rows if "mmhal.score" in row.cells]
    assert rated == ["RLAIF-V-Iterative"]
    left_out = "MMHal-Bench: published numbers that were measured in another way have no column here."
    assert any(text.startswith(left_out) for text in table.footnotes.values())
    everything = table_1(runs, paper=True)
    assert len(ways_of_columns(everything, "mmhal.score")) == 3
    assert not any("have no column" in text for text in everything.footnotes.values())


def with_judges(run, *judges):
    """The run, as if each judge had rated; the first one as the run's judge did."""
    result = run.benchmarks["mmhal"]
    del result.settings["judge"]
    result.settings["judges"] = {judge: {"model": judge, "reported_model": judge} for judge in judges}
    result.breakdown = {
        f"judge/{judge}": {"score": MetricValue(1.0 + number, (1, 2), 96), "hal_rate": MetricValue(0.5, (0, 1), 96)}
        for number, judge in enumerate(judges)
    }
    return run


def test_a_run_has_a_number_of_each_judge_and_one_of_their_mean(runs):
    both = named("both", with_judges(make_run(0.6, 3), "gpt-4-1106-preview", "qwen-72b"))
    table = table_1([runs[1], both], paper=False)
    ways = ways_of_columns(table, "mmhal.score")
    mean = (
        "Mean over the judges gpt-4-1106-preview; qwen-72b. The interval of the mean is about all judges like these, "
        "and two judges say little about others."
    )
    assert ways == ["Judged by gpt-4-1106-preview.", "Judged by qwen-72b.", mean]
    cells = {way: ours(table)["both"].cells[f"mmhal.score [{way}]"] for way in ways}
    assert [cells[way].value for way in ways] == [1.0, 2.0, both.run.benchmarks["mmhal"].metrics["score"].value]
    assert [cells[way].is_part for way in ways] == [True, True, False]
    assert [key for key in ours(table)["ours"].cells if key.startswith("mmhal.score")] == [f"mmhal.score [{ways[0]}]"]


def test_judges_compete_in_their_own_columns(runs):
    better, worse = (
        named(name, with_judges(make_run(skill, 3), "a", "b")) for name, skill in (("better", 0.9), ("worse", 0.2))
    )
    worse.run.benchmarks["mmhal"].breakdown["judge/a"]["score"] = MetricValue(0.5, (0, 1), 96)
    rows = ours(table_1([better, worse], paper=False))
    assert rows["better"].cells["mmhal.score [Judged by a.]"].best
    assert not rows["worse"].cells["mmhal.score [Judged by a.]"].best
    (mean,) = [key for key in rows["better"].cells if key.startswith("mmhal.score [Mean over the judges a; b.")]
    assert rows["better"].cells[mean].best


def test_published_numbers_of_several_ways_have_no_best(runs):
    groups = dict(table_1(runs, paper=True).groups)
    best = {key for row in groups["LLaVA-v1.5-7B, earlier methods"] for key, cell in row.cells.items() if cell.best}
    assert "amber.chair" in best and not any(key.startswith(("mmhal", "object_halbench")) for key in best)


def test_a_judge_of_no_published_row_is_a_warning(saved, tmp_path, monkeypatch, capsys):
    judge = {"model": "gpt-4o", "reported_model": "gpt-4o-2024-08-06"}
    make_run(0.6, 3, settings={"mmhal": {"judge": judge}}).save(tmp_path / "run.json")
    command = ["report", saved / "a", f"x={tmp_path}"]
    _, printed, err = invoke(command, monkeypatch, capsys, width=400)
    warning = "Judged by gpt-4o, which answered as gpt-4o-2024-08-06. No published number was measured in this way"
    assert f"MMHal-Bench of x: {warning}" in err and warning in printed
    _, printed, err = invoke([*command, "--no-paper"], monkeypatch, capsys, width=400)
    assert "No published" not in err + printed and "Judged by gpt-4o, which answered" in printed


def test_a_number_over_a_part_of_the_benchmark_says_so(runs):
    part = make_run(0.9, 3)
    part.benchmarks["vlind"].complete = False
    _, at_numbers = footnotes_of(table_1([runs[0], named("part", part)]), "part")
    assert at_numbers["vlind.lp"] == {"Over a part of the benchmark (n = 60)."}


def test_other_data_than_the_published_files_says_so():
    run = make_run(0.9, 3)
    run.provenance.data.sha256["amber/annotations.json"] = "0" * 64
    at_name, _ = footnotes_of(table_1([named("own data", run)]), "own data")
    assert at_name == {"AMBER: Other data than the published: amber/annotations.json."}


@pytest.mark.parametrize(("conversation", "marked"), [("llava_v1", False), ("vicuna_v1", True)])
def test_a_run_in_another_conversation_than_the_paper_s_is_marked(conversation, marked):
    run = make_run(0.5, 1, settings={"mmhal": {"conversation": conversation}})
    at_name, at_numbers = footnotes_of(table_1([named("llava", run)]), "llava")
    notes = at_name.union(*at_numbers.values())
    note = "Asked in the conversation vicuna_v1 (published: llava_v1)."
    assert any(note in found for found in notes) == marked


def test_the_published_files_need_no_mark():
    run = make_run(0.9, 3)
    digest = "db22a436c4836fbb295e60b4e80d519573077579fb7032f01b193c1bd022b797"
    run.provenance.data.sha256["amber/annotations.json"] = digest
    at_name, at_numbers = footnotes_of(table_1([named("published data", run)]), "published data")
    assert at_name == set() and not any(at_numbers.values())


def test_rows_of_the_micro_world_all_carry_its_mark():
    micro = [make_run(skill, 1) for skill in (0.4, 0.8)]
    for run in micro:
        run.provenance.data.sha256["micro.json"] = "1" * 64
    table = table_1([named("base", micro[0]), named("napo", micro[1])])
    for name in ("base", "napo"):
        assert footnotes_of(table, name)[0] == {MICRO_WORLD}
    assert to_markdown(table).count("<sup>a</sup>") == 3


def test_micro_runs_alone_stand_without_the_papers_rows():
    micro, real = make_run(0.4, 1), make_run(0.8, 2)
    micro.provenance.data.sha256["micro.json"] = "1" * 64
    variant = named("napo", micro, "micro-napo-lb1")
    alone = [table_1([named("base", micro)]), *variant_tables([variant])]
    assert len(alone) > 1
    assert [[label for label, _ in table.groups] for table in alone] == [[OURS]] * len(alone)
    for shown in (table_1([named("base", micro)], paper=True), table_1([named("base", micro), named("real", real)])):
        assert len(shown.groups) > 1


def test_what_a_run_remarks_on_its_numbers_is_in_every_form():
    run = make_run(0.9, 3)
    run.benchmarks["vlind"].notes = ["33 of 60 answers are <empty>"]
    run.benchmarks["mmhal"].metrics = {}
    run.benchmarks["mmhal"].notes = ["not rated: there is no judge"]
    run.benchmarks["amber"].notes = [tokens_note([Reply(5, "", "gpt-4", "gpt-4", 7, 9)] * 2)]
    table = table_1([named("base", make_run(0.4, 1)), named("ours", run)])
    at_name, at_numbers = footnotes_of(table, "ours")
    assert at_name == {"MMHal-Bench: not rated: there is no judge."}
    assert at_numbers["vlind.cb"] == at_numbers["vlind.lp"] == {"VLind-Bench: 33 of 60 answers are <empty>."}
    assert at_numbers["amber.hal"] == set(), "what a judge cost is no remark on a number"
    assert footnotes_of(table, "base") == (set(), {key: set() for key in ours(table)["base"].cells})
    said = {mark for mark, text in table.footnotes.items() if text.startswith(("VLind", "MMHal-Bench: not"))}
    assert [table.spoken_of(mark) for mark in said] == [["ours"], ["ours"]]
    row = list(csv.DictReader(io.StringIO(to_csv([table]))))[-1]
    assert "33 of 60 answers are <empty>" in row["notes"] and "not rated" in row["notes"]
    for text in (to_markdown(table), to_html([named("ours", run)], [table], [])):
        assert "33 of 60 answers are &lt;empty&gt;" in text and "not rated" in text
    assert r"33 of 60 answers are \textless{}empty\textgreater{}" in to_latex(table)


def test_a_remark_on_every_benchmark_is_made_once():
    run = make_run(0.9, 3)
    for result in run.benchmarks.values():
        result.notes = ["Mean of 3 trainings"]
    table = table_1([named("ours", run)])
    at_name, at_numbers = footnotes_of(table, "ours")
    assert at_name == {"Mean of 3 trainings"} and not any(at_numbers.values())
    assert list(table.footnotes.values()).count("Mean of 3 trainings") == 1


# Variants


def test_a_variants_row_is_found_by_what_its_recipe_optimises():
    table = variant_tables(
        [named("mine", make_run(0.5, 1), "micro-napo-lb1"), named("x", make_run(0.6, 2), "micro-napo")]
    )
    by_number = {entry.number: ours(entry) for entry in table}
    assert set(by_number) == {2, 4}
    assert list(by_number[2]) == ["A1 (x)", "LB1 w/o VB (mine)"]
    assert list(by_number[4]) == ["LB with avg logP (default) (mine)"]


def test_runs_of_table_1_alone_make_no_variant_table():
    plain = [named(name, make_run(0.5, 1), f"micro-{name}") for name in ("dpo", "mdpo", "napo")]
    assert variant_tables(plain) == []


def test_controls_have_a_group_of_their_own_and_are_no_variant_of_a_table(runs):
    shown = [
        *runs,
        controlled("napo-blind", make_run(0.9, 3), "micro-napo-a2"),
        named("a2", runs[1].run, "micro-napo-a2"),
    ]
    table = table_1(shown)
    assert [(label, [row.name for row in rows]) for label, rows in table.groups[-2:]] == [
        (OURS, ["base", "ours", "a2"]),
        ("Controls: trained with blank images", ["napo-blind"]),
    ]
    assert table.groups[-2][1][1].cells["vlind.cb"].best and not table.groups[-1][1][0].cells["vlind.cb"].best
    (variants,) = [table for table in variant_tables(shown) if table.number == 2]
    assert "napo-blind" not in str(variants) and "(a2)" in str(variants)


def test_a_report_says_what_part_of_a_gain_comes_without_looking(tmp_path, monkeypatch, capsys):
    runs = {
        "base": make_run(0.4, 0),
        "napo": make_run(0.9, 1),
        "blind": controlled("", make_run(0.6, 4), "micro-dpo").run,
    }
    for name, run in runs.items():
        control = run.provenance.checkpoint and run.provenance.checkpoint.control
        checkpoint = CheckpointUsed(name, str(tmp_path / name / "model"), "0" * 64, control)
        RunResult(run.benchmarks, replace(run.provenance, checkpoint=checkpoint)).save(
            tmp_path / name / "eval/run.json"
        )
        if name != "base":
            recipe = asdict(load_recipe("micro-napo", [f"control={control or 'null'}"]))
            (tmp_path / name / "model").mkdir()
            (tmp_path / name / "model/training.json").write_text(json.dumps({"recipe": recipe}))
    paths = [f"{name}={tmp_path / name / 'eval'}" for name in runs]
    code, out, err = invoke(["report", *paths, "--panel"], monkeypatch, capsys)
    assert code == 0, err
    assert out.startswith("**What part of the gains comes without looking.**\n\n- Of napo's VLind-Bench CB gain of ")
    assert re.search(r"Of napo's Object HalBench CHAIRs gain of .* comes without looking: \d+% ", out)
    code, _, err = invoke(["report", *paths, "--format", "html", "--out", tmp_path / "r.html"], monkeypatch, capsys)
    assert code == 0, err
    page = (tmp_path / "r.html").read_text()
    assert "What part of the gains comes without looking." in page
    groups = re.findall(r'<tbody class="(\w*)">\s*<tr class="group"><th [^>]*><span>([^<]*)', page)
    assert groups[-2:] == [("ours", OURS), ("", "Controls: trained with blank images")]


def test_micro_and_llava_recipes_of_a_name_have_the_same_objective():
    names = {name.removeprefix("micro-") for name in recipe_names() if name.startswith("micro-")}
    for name in names & {name.removeprefix("llava-1.5-7b-") for name in recipe_names()}:
        assert objective(load_recipe(f"micro-{name}")) == objective(load_recipe(f"llava-1.5-7b-{name}")), name


def test_no_two_rows_of_a_published_table_share_an_objective():
    for number in range(2, 7):
        runs = [named(name, make_run(0.5, 1, sizes={"vlind": 8}), name) for name in recipe_names() if "micro" in name]
        table = next(entry for entry in variant_tables(runs) if entry.number == number)
        published = {row.name for row in table.groups[0][1]}
        shown = [row.name.rpartition(" (")[0] for row in table.groups[1][1]]
        assert set(shown) == published and len(shown) == len(published)


# The forms


def test_markdown_is_a_table_with_bold_arrows_and_intervals_on_request(runs):
    plain, with_intervals = to_markdown(table_1(runs)), to_markdown(table_1(runs), intervals=True)
    assert "VLind-Bench CB ↑" in plain and "Object HalBench CHAIRs ↓" in plain
    assert "**58.9**" in plain and "[" not in plain.partition(OURS)[2]
    cell = ours(table_1(runs))["ours"].cells["vlind.cb"]
    assert f"**{cell.value:.1f}** [{cell.interval[0]:.1f}, {cell.interval[1]:.1f}]" in with_intervals
    lines = [line for line in plain.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {12}


HOSTILE = r"a_b & 100% $x^2$ #1 {c} ~ \dots [z] *s* <script>|`"


def tex_columns(line):
    return len(re.split(r"(?<!\\)&", line))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="TeX is not installed")
@pytest.mark.parametrize("intervals", [False, True])
def test_latex_compiles_with_booktabs_as_it_is(runs, tmp_path, intervals):
    hostile = to_latex(table_1([*runs, replace(runs[0], name=HOSTILE)]), intervals=intervals)
    variants = [to_latex(entry) for entry in variant_tables([named("a2", make_run(0.8, 2), "micro-napo-a2")])]
    document = "\n".join((r"\documentclass{article}\usepackage{booktabs}\begin{document}", hostile, *variants))
    (tmp_path / "table.tex").write_text(document + "\n" + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert variants
    assert (tmp_path / "table.pdf").is_file()


@pytest.mark.parametrize("intervals", [False, True])
def test_latex_needs_only_booktabs_and_is_well_formed(runs, intervals):
    latex = to_latex(table_1([*runs, replace(runs[0], name=HOSTILE)]), intervals=intervals)
    assert re.findall(r"\\usepackage\{(.*?)\}", latex) == ["booktabs"]
    used = set(re.findall(r"\\([A-Za-z]+)", latex))
    base = {
        "usepackage", "begin", "end", "centering", "caption", "label", "small", "setlength", "tabcolsep", "multicolumn",
        "textbf", "textit", "uparrow", "downarrow", "par", "shortstack", "tiny",
        "textsuperscript", "smallskip", "footnotesize", "raggedright",
        "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar",
    }  # fmt: skip
    assert used <= base | {"toprule", "midrule", "bottomrule", "cmidrule"}
    bare = re.sub(r"\\[\\{}%&$#_]", "", latex)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert re.findall(r"\\begin\{(.*?)\}", latex) == ["table*", "tabular"]
    assert re.findall(r"\\end\{(.*?)\}", latex) == ["tabular", "table*"]
    body = latex.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    for line in body:
        if line != r"\midrule":
            assert line.endswith(r"\\")
            assert tex_columns(line) == (1 if line.startswith(r"\multicolumn{11}") else 11)
            assert not line.startswith(("[", "*")), r"would be read as an argument of the \\ above"


def test_latex_marks_and_footnotes(runs):
    other = named("other", make_run(0.9, 3, settings={"mmhal": {"judge": {"model": "gpt_4o"}}}))
    table = table_1([runs[0], other])
    latex = to_latex(table)
    (judged,) = [mark for mark, text in table.footnotes.items() if "gpt_4o" in text]
    ((amber,),) = [column.marks for column in table.columns if column.key == "amber.hal"]
    assert rf"\textsuperscript{{{judged}}} MMHal-Bench: Judged by gpt\_4o. No published number" in latex
    assert rf"HalRate $\downarrow$\textsuperscript{{{amber}}} &" in latex
    mark = rf"\textsuperscript{{{judged}}}"
    assert rf"Score $\uparrow${mark} & HalRate $\downarrow${mark} \\" in latex
    assert latex.count(r"\multicolumn{2}{c}{MMHal-Bench}") == 2


def test_csv_has_full_precision_intervals_and_notes(runs):
    other = named("other", make_run(0.9, 3, settings={"mmhal": {"judge": {"model": "gpt-4o"}}}))
    rows = list(csv.DictReader(io.StringIO(to_csv([table_1([runs[0], other])]))))
    row = rows[-1]
    value = other.run.benchmarks["vlind"].metrics["cb"]
    assert (row["model"], row["group"], row["table"]) == ("other", OURS, "1")
    assert [float(row[f"vlind.cb{end}"]) for end in ("", " low", " high")] == [value.value, *value.ci95]
    assert row["notes"].startswith("Object HalBench: CHAIR over the words")
    assert "CHAIR over the words of an answer" in row["notes"] and "Judged by gpt-4o. No published" in row["notes"]
    napo = next(row for row in rows if row["model"] == "NaPO with RLAIF-V-Bias" and "7B" in row["group"])
    assert (napo["vlind.lp"], napo["vlind.lp low"]) == ("44.0", "")


# The command


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(0.4, 1, name="llava-base").save(folder / "a" / "run.json")
    make_run(0.8, 2).save(folder / "b" / "run.json")
    return folder


def test_command_prints_markdown_with_names_from_checkpoint_folder_or_user(saved, monkeypatch, capsys):
    code, printed, _ = invoke(["report", saved / "a", f"our [bold]x[/]={saved / 'b'}"], monkeypatch, capsys)
    assert code == 0
    assert "| llava-base" in printed and r"| our \[bold\]x\[/\]" in printed


def test_command_writes_latex_without_the_papers_rows(saved, tmp_path, monkeypatch, capsys):
    out = tmp_path / "table.tex"
    code, _, _ = invoke(
        ["report", saved / "a", saved / "b", "--format", "tex", "--no-paper", "--out", out], monkeypatch, capsys
    )
    assert code == 0
    assert "GPT-4V" not in out.read_text() and "llava-base" in out.read_text()


def shown_names(printed):
    return [line.split("|")[1].partition("<sup>")[0].strip() for line in printed.splitlines() if line[:2] == "| "][2:]


@pytest.mark.parametrize(
    ("places", "arguments", "names"),
    [
        ({"a": "base", "b": "base"}, ["a", "b"], ["a", "b"]),
        ({"dpo/seed-0/eval": "m/model", "napo/seed-0/eval": "m/model"}, None, ["dpo", "napo"]),
        (
            {"dpo/seed-0/eval": "m/model", "dpo/seed-1/eval": "m/model", "napo/seed-0/eval": "m/model"},
            None,
            ["dpo/seed-0", "dpo/seed-1", "napo/seed-0"],
        ),
        ({"base/eval": "base", "dpo/seed-0/eval": "dpo/seed-0/model"}, None, ["base", "dpo/seed-0"]),
        ({"x": "same", "x/y": "same"}, None, ["x", "x/y"]),
        ({"a": "same", "b": "same", "c": "other"}, None, ["a", "b", "other"]),
        ({"a": "base", "c": "base"}, ["base=a", "c"], ["base", "c"]),
        ({"a": "b", "x/b": "x"}, ["b=x/b", "a"], ["b", "a"]),
        ({"one/eval": "model"}, None, ["model"]),
    ],
)
def test_runs_of_one_name_are_called_after_what_their_paths_differ_in(
    places, arguments, names, tmp_path, monkeypatch, capsys
):
    for place, checkpoint in places.items():
        make_run(0.5, 1, sizes={"vlind": 4}, name=checkpoint).save(tmp_path / place / "run.json")
    monkeypatch.chdir(tmp_path)
    code, printed, err = invoke(["report", "--no-paper", *(arguments or places)], monkeypatch, capsys)
    assert code == 0, err
    assert shown_names(printed) == names


def test_a_run_whose_path_alone_does_not_tell_it_from_a_given_name_has_its_whole_path(tmp_path, monkeypatch, capsys):
    for place in "ab":
        make_run(0.5, 1, sizes={"vlind": 4}, name="b").save(tmp_path / place / "run.json")
    _, printed, _ = invoke(["report", "--no-paper", f"b={tmp_path / 'a'}", tmp_path / "b"], monkeypatch, capsys)
    first, second = shown_names(printed)
    assert first == "b" and second.endswith("/b") and len(second) > 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["a", "a"], "The run a is given twice."),
        (["a", "./b/../a"], "The run a is given twice."),
        (["a", "a/run.json"], "The run a is given twice."),
        (["x=a", "x=b"], "Two runs are called 'x'."),
        (["x="], "'x=' names no run."),
        (["runs/lr=1/run"], "runs/lr=1/run does not exist"),
    ],
)
def test_arguments_that_cannot_be_told_apart_are_refused(saved, arguments, named, monkeypatch, capsys):
    monkeypatch.chdir(saved)
    code, _, err = invoke(["report", *arguments], monkeypatch, capsys)
    assert code == 2 and named in err and "Next:" in err


def test_a_file_that_is_no_run_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.json").write_text("{}")
    code, _, err = invoke(["report", tmp_path / "x.json"], monkeypatch, capsys)
    assert code == 2 and "x.json" in err and "schema_version" in err


def cut(folder):
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text[: len(text) // 2])


def without_samples(folder):
    (folder / "samples" / "amber.jsonl").unlink()


def unfinished(folder):
    (folder / "run.json").unlink()
    (folder / "journal.sqlite").touch()


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def moved_below(folder):
    (folder / "run.json").rename(folder / "samples" / "run.json")


def changed(*keys, value):
    def change(folder):
        document = json.loads((folder / "run.json").read_text())
        entry = document
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = value
        (folder / "run.json").write_text(json.dumps(document))

    return change


def sample_without(name):
    def change(folder):
        path = folder / "samples" / "amber.jsonl"
        first, *rest = path.read_text().splitlines()
        sample = json.loads(first)
        del sample[name]
        path.write_text("\n".join([json.dumps(sample), *rest]))

    return change


@pytest.mark.parametrize(
    ("damage", "named", "step"),
    [
        (cut, "run.json ends too early", "Run the command that wrote it again"),
        (without_samples, "amber.jsonl does not exist", "need no samples"),
        (unfinished, "run.json does not exist", "is not finished"),
        (emptied, "run.json does not exist", "Give the run.json"),
        (moved_below, "run.json does not exist", "x/samples"),
        (changed("schema_version", value=2), "schema_version is 2", "upgrade"),
        (changed("schema_version", value=None), "schema_version is None", "Is it a run?"),
        (changed("benchmarks", "amber", "notes", value="x"), "'notes' is 'x'", "Run the command"),
        (changed("benchmarks", "amber", "breakdown", value={"a": 3}), "'a' is 3", "Run the command"),
        (changed("benchmarks", "amber", "settings", "generation", value=3), "'generation' is 3", "Run the command"),
        (changed("benchmarks", "amber", value=3), "benchmark amber", "Run the command"),
        (changed("benchmarks", "ambr", value={}), "benchmark ambr", "The benchmarks are"),
        (
            changed("benchmarks", "amber", "metrics", "chair", "value", value=math.nan),
            "metric chair: the field 'value' is nan",
            "Run the command",
        ),
        (
            changed("benchmarks", "amber", "metrics", "chair", "ci95", value=[1, math.inf]),
            "metric chair: the field 'ci95' is inf",
            "Run the command",
        ),
        (
            changed("benchmarks", "amber", "metrics", "chair", "clusters", value=10**6),
            "metric chair: the field 'clusters' is 1000000; a number from 1 to",
            "Run the command",
        ),
        (
            changed("benchmarks", "amber", "metrics", "chair", "clusters", value=0),
            "metric chair: the field 'clusters' is 0; a number from 1 to",
            "Run the command",
        ),
        (
            changed("benchmarks", "amber", "metrics", "chair", "n", value=-3),
            "metric chair: the field 'n' is -3; 0 or more is expected",
            "Run the command",
        ),
        (changed("provenance", value=[]), "'provenance' is []", "Run the command"),
        (changed("provenance", "data", value=3), "'data' is 3", "Run the command"),
        (sample_without("sample_id"), "amber, sample 1", ""),
    ],
)
def test_a_damaged_run_is_one_message_with_the_next_step(damage, named, step, tmp_path, monkeypatch, capsys):
    make_run(0.5, 1, sizes={"amber": 3}).save(tmp_path / "x" / "run.json")
    damage(tmp_path / "x")
    command = ["report", tmp_path / "x", "--format", "html", "--out", tmp_path / "r.html"]
    code, _, err = invoke(command, monkeypatch, capsys, width=400)
    assert code == 2 and named in err and step in err


def test_a_sample_of_another_form_is_named_in_the_explorer(tmp_path, monkeypatch, capsys):
    run = make_run(0.5, 1, sizes={"vlind": 3})
    del run.benchmarks["vlind"].samples[1]["responses"][0]["expected"]
    run.save(tmp_path / "run.json")
    command = ["report", f"x={tmp_path}", "--format", "html", "--out", tmp_path / "r.html"]
    code, _, err = invoke(command, monkeypatch, capsys, width=400)
    assert code == 2 and "x, vlind, sample 2, size/1" in err and "'expected'" in err and "Next:" in err


@pytest.fixture
def two_runs(tmp_path):
    for name, skill in (("base", 0.4), ("napo", 0.8)):
        make_run(skill, 1, sizes={"vlind": 30, "mmhal": 20}).save(tmp_path / name / "run.json")
    return [f"{name}={tmp_path / name}" for name in ("base", "napo")]


def test_the_panel_is_above_the_tables_and_begins_with_its_sentences(two_runs, monkeypatch, capsys):
    code, out, _ = invoke(["report", *two_runs, "--panel"], monkeypatch, capsys)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "**What the gains of napo over base were bought with.**"
    assert lines[2].startswith("- VLind-Bench: The accuracy gain of ") and lines[2].endswith("at an equal yes-rate.")
    assert out.index("sensitivity d'") < out.index("**Table 1.**")
    code, out, _ = invoke(["report", *two_runs, "--panel-baseline", "napo"], monkeypatch, capsys)
    assert "gains of base over napo" in out and "The accuracy loss of " in out


def test_a_panel_that_cannot_be_made_is_refused_in_words(two_runs, monkeypatch, capsys):
    for arguments, said in (
        ([two_runs[0], "--panel"], "there is one run"),
        ([*two_runs, "--panel-baseline", "nap"], "napo"),
        ([*two_runs, "--panel", "--format", "csv"], "no csv table"),
    ):
        code, _, err = invoke(["report", *arguments], monkeypatch, capsys)
        assert code == 2 and said in err


def test_a_cell_of_a_csv_is_no_formula(runs):
    for name in ("=1+1", "+1", "-1", "@x", "\t=1"):
        named = [replace(runs[0], name=name)]
        rows = list(csv.DictReader(io.StringIO(to_csv([table_1(named)]))))
        assert f"'{name}" in {row["model"] for row in rows} and name not in {row["model"] for row in rows}
