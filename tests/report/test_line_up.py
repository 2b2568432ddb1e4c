"""`report --published`: only numbers that were measured as the run stand above it, and the rest is named."""

import csv
import io
import re
from dataclasses import replace

import pytest
from synthetic_runs import invoke, make_run

from napo_bench.benchmarks import benchmark_named
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.paths import MICRO_STAMP
from napo_bench.report.line_up import ALIKE, line_up
from napo_bench.report.runs import NamedRun
from napo_bench.report.table import OURS, Table, to_markdown
from napo_bench.runs.provenance import CheckpointUsed, DataUsed
from napo_bench.runs.result import RunResult
from napo_bench.trainers.recipe import load_recipe

BASE = "llava-hf/llava-1.5-7b-hf"
GREEDY = {"profile": "greedy"}
PAPER = {"profile": "paper", "num_beams": 3, "do_sample": True, "temperature": 0.2, "top_k": 50}
HALVA = {"generation": GREEDY, "conversation": "vicuna_v1"}
NAPO = {"generation": PAPER, "conversation": "llava_v1", "chair_definition": "words"}
SIZES = {"object_halbench": 300, "amber": 1004, "mmhal": 96}


def measured(benchmark: str, *, n: int = 0, name: str = BASE, **settings: object) -> NamedRun:
    """A run on one benchmark, as HALVA or, for Object HalBench, NaPO measured it, but for the given settings."""
    own = {"object_halbench": NAPO, "amber": HALVA, "mmhal": {**HALVA, "judge": {"model": "gpt-4-0125-preview"}}}
    run = make_run(
        0.6, 1, sizes={benchmark: n or SIZES[benchmark]}, settings={benchmark: own[benchmark] | settings}, name=name
    )
    return NamedRun("ours", run, None, [])


def only(run: NamedRun, base: str = "") -> Table:
    (table,) = line_up([run], base)
    return table


def published(table: Table) -> set[str]:
    return {row.name for label, rows in table.groups if label == ALIKE for row in rows}


def notes(table: Table) -> str:
    return "\n".join(table.footnotes.values())


def left_out(table: Table) -> dict[str, list[str]]:
    """Reason -> the methods that the footnote with it names."""
    found = {}
    for text in table.footnotes.values():
        _, is_there, listed = text.partition(", left out. ")
        for item in re.split(r"\(\d+\) ", listed)[1:] if is_there else ():
            reason, _, methods = item.rstrip(". ").rpartition(": ")
            found[reason] = methods.split(", ")
    return found


CASES = {"object_halbench": "NaPO", "amber": "HALVA", "mmhal": "HALVA"}


@pytest.mark.parametrize(("benchmark", "row"), CASES.items())
def test_a_number_measured_in_the_same_way_stands_above_the_run(benchmark: str, row: str) -> None:
    table = only(measured(benchmark))
    assert row in published(table)
    assert [label for label, _ in table.groups] == [ALIKE, OURS]


def test_the_numbers_are_the_published_ones() -> None:
    rows = {row.name: row for _, group in only(measured("amber")).groups for row in group}
    values = {key: cell.value for key, cell in rows["HALVA"].cells.items()}
    assert values == {"amber.chair": 6.6, "amber.cover": 53.0, "amber.hal": 32.2, "amber.cog": 3.4}


DRAWN = "decoding 3 beams, temperature 0.2, top-k 50"
OTHER_JUDGE = "judge model gpt-4-0125-preview"


@pytest.mark.parametrize(
    ("benchmark", "settings", "reason"),
    [
        ("object_halbench", {"chair_definition": "llm:gpt-3.5-turbo-0613"}, "chair definition words"),
        ("object_halbench", {"generation": GREEDY}, DRAWN),
        ("object_halbench", {"generation": {**PAPER, "temperature": 0.7}}, DRAWN),
        ("object_halbench", {"generation": {**PAPER, "top_k": 1}}, DRAWN),
        ("object_halbench", {"generation": {}}, DRAWN),
        ("object_halbench", {"conversation": "vicuna_v1"}, "conversation llava_v1"),
        ("object_halbench", {"n": 2400}, "n = 300"),
        ("amber", {"generation": {"profile": "rlaif-v", "num_beams": 3}}, "decoding greedy"),
        ("amber", {"conversation": "llava_v1"}, "conversation vicuna_v1"),
        ("amber", {"n": 500}, "n = 1004"),
        ("mmhal", {"judge": {"model": "gpt-4-0314"}}, OTHER_JUDGE),
        ("mmhal", {"judge": {"model": "gpt-4-0125-preview", "reported_model": "gpt-4o"}}, OTHER_JUDGE),
        ("mmhal", {"n": 95}, "n = 96"),
    ],
)
def test_each_condition_alone_takes_the_row_out_and_is_named(benchmark: str, settings: dict, reason: str) -> None:
    row = CASES[benchmark]
    fits = only(measured(benchmark))
    assert row in published(fits) and reason not in left_out(fits)
    flipped = only(measured(benchmark, **settings))
    assert row not in published(flipped)
    assert row in left_out(flipped)[reason]


def test_another_base_takes_the_row_out() -> None:
    run = measured("amber", name="my/checkpoint")
    assert published(only(run, "LLaVA-v1.5-7B")) > {"HALVA", "OPERA (REVERSE)"}
    other = only(run, "LLaVA-v1.5-13B")
    assert "OPERA (REVERSE)" not in published(other)
    assert "another base than LLaVA-v1.5-13B: " in notes(other)
    halva = {row.name: row.cells["amber.chair"].value for row in other.groups[0][1]}
    assert halva["HALVA"] == 6.4


def test_what_is_not_stated_is_never_equal() -> None:
    """mDPO's numbers are over 1004 answers, but no source says how they were drawn."""
    table = only(measured("amber"))
    assert not any("mDPO" in name for name in published(table))
    assert "mDPO" in left_out(table)["decoding not stated, conversation not stated"]
    silent = only(measured("amber", conversation="", generation={}))
    assert published(silent) == set()
    assert "decoding not recorded, conversation not recorded" in notes(silent)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"complete": False}, "Over a part of the benchmark (n = 1004)."),
        ({"doubts": ["most answers are empty"]}, "most answers are empty"),
        ({"settings": {**HALVA, "text_pipeline": {"name": "closed_vocabulary"}}}, "closed_vocabulary"),
        ({"settings": {**HALVA, "text_pipeline": {"spacy_model": "en_core_web_sm 3.8"}}}, "en_core_web_sm"),
    ],
)
def test_a_run_that_measured_something_else_has_no_published_row(change: dict, reason: str) -> None:
    run = measured("amber")
    run.run.benchmarks["amber"] = replace(run.run.benchmarks["amber"], **change)
    table = only(run)
    assert published(table) == set()
    assert any("no published number is comparable" in text and reason in text for text in table.footnotes.values())


def test_mapped_ratings_have_no_published_row() -> None:
    run = measured("mmhal", mapped={"from": "a-judge", "ratings": 120})
    assert published(only(run)) == set()


def test_a_published_rating_stands_in_the_column_of_its_judge() -> None:
    run = measured("mmhal")
    result = run.run.benchmarks["mmhal"]
    del result.settings["judge"]
    judges = ("gpt-4-0125-preview", "qwen-72b")
    result.settings["judges"] = {judge: {"model": judge} for judge in judges}
    result.breakdown = {f"judge/{judge}": dict(result.metrics) for judge in judges}
    (halva,) = [row for label, rows in only(run).groups if label == ALIKE for row in rows if row.name == "HALVA"]
    columns = {f"mmhal.{name} [Judged by gpt-4-0125-preview.]" for name in ("score", "hal_rate")}
    assert halva.cells.keys() == columns


def test_answers_to_another_question_have_no_place() -> None:
    """PEA-DPO's numbers are greedy over 1004 answers in this conversation, to another question."""
    (reason,) = [reason for reason, methods in left_out(only(measured("amber"))).items() if "DAMA" in methods]
    assert reason == "asked to describe the image in detail, answers of at most 128 tokens"


def test_other_data_have_no_published_row() -> None:
    run = measured("amber")
    source = benchmark_named("amber").sources[0]
    run.run.provenance = replace(run.run.provenance, data=DataUsed("", {source.target: "0" * 64}))
    table = only(run)
    assert published(table) == set() and "Other data than the published" in notes(table)


def test_data_without_hashes_are_not_stated_and_no_published_row_stands_above_the_run() -> None:
    run = measured("amber")
    run.run.provenance = replace(run.run.provenance, data=DataUsed("", {"mmhal/template.json": "0" * 64}))
    table = only(run)
    assert published(table) == set()
    assert "no published number is comparable. The run has no hashes of its data: data not stated." in notes(table)


def test_tables_that_disagree_are_named_at_the_row() -> None:
    table = only(measured("amber"))
    assert "Tables disagree about HALVA: AMBER CHAIR 6.6, 6.9; " in notes(table)


def test_a_copied_number_names_who_measured_it_and_where_it_was_read() -> None:
    assert "Measured by HALVA, read in NaPO Table 1, https://arxiv.org/abs/2503.17928." in notes(
        only(measured("mmhal"))
    )


def test_a_number_stands_under_the_metric_that_is_defined_as_it_is() -> None:
    """RLAIF-V's CHAIRs leaves out the answers without an object, as a run's refined CHAIRs does."""
    beams = {"profile": "rlaif-v", "num_beams": 3}
    table = only(measured("object_halbench", generation=beams, chair_definition="llm:gpt-3.5-turbo-0613"))
    values = {
        row.name: {key: cell.value for key, cell in row.cells.items()} for _, rows in table.groups for row in rows
    }
    assert values["RLAIF-V"] == {"object_halbench.chair_s_refine": 8.5, "object_halbench.chair_i": 4.3}
    assert "object_halbench.chair_s_refine" in values["ours"]


def test_runs_measured_alike_share_a_table_and_others_have_their_own() -> None:
    alike = replace(measured("amber"), name="twin")
    other = replace(measured("amber", generation=PAPER), name="drawn")
    tables = line_up([measured("amber"), alike, other])
    assert [[row.name for row in table.groups[-1][1]] for table in tables] == [["ours", "twin"], ["drawn"]]
    assert [table.label for table in tables] == ["published-1", "published-2"]
    assert "measured as ours and twin." in to_markdown(tables[0])


def test_the_base_is_that_of_the_recipe() -> None:
    run = replace(measured("amber", name="runs/out"), recipe=load_recipe("llava-1.5-7b-napo"))
    assert "HALVA" in published(only(run))


def test_an_unknown_base_is_asked_for() -> None:
    with pytest.raises(
        NapoBenchError, match=r"The base of the run ours is not known: its checkpoint is 'my/ckpt'.\n.*--base"
    ):
        line_up([measured("amber", name="my/ckpt")])
    with pytest.raises(NapoBenchError, match="its checkpoint is not recorded"):
        line_up([measured("amber", name="")])


def test_a_base_against_the_checkpoint_and_a_mistyped_base_are_refused() -> None:
    with pytest.raises(NapoBenchError, match=r"starts from LLaVA-v1.5-7B, not from LLaVA-v1.5-13B"):
        line_up([measured("amber")], "LLaVA-v1.5-13B")
    with pytest.raises(NapoBenchError, match=r"--base: there is no base 'llava-v15-7b'.\nDid you mean LLaVA-v1.5-7B"):
        line_up([measured("amber")], "llava-v15-7b")


def test_the_micro_world_has_no_published_numbers() -> None:
    run = measured("amber")
    run.run.provenance = replace(run.run.provenance, data=DataUsed("", {MICRO_STAMP: "0" * 64}))
    with pytest.raises(NapoBenchError, match="micro world"):
        line_up([run])


@pytest.mark.parametrize("format", ["md", "tex", "csv", "html"])
def test_the_command_writes_it_in_every_format(format, tmp_path, monkeypatch, capsys) -> None:
    measured("amber").run.save(tmp_path / "run.json")
    out = tmp_path / f"report.{format}"
    options = ["--published", "--no-paper", "--format", format, "--out", out]
    code, _, err = invoke(["report", f"ours={tmp_path / 'run.json'}", *options], monkeypatch, capsys)
    assert code == 0, err
    text = out.read_text()
    if format == "csv":
        rows = {row["model"]: row for row in csv.DictReader(io.StringIO(text)) if row["table"] == "published-1"}
        assert float(rows["HALVA"]["amber.chair"]) == 6.6
        assert "left out" in rows["HALVA"]["notes"]
    else:
        assert "HALVA" in text and "left out" in text
        assert (r"\label{tab:napo-bench-published-1}" if format == "tex" else "Published numbers") in text


def test_a_base_without_published_is_refused(tmp_path, monkeypatch, capsys) -> None:
    measured("amber").run.save(tmp_path / "run.json")
    code, _, err = invoke(["report", tmp_path / "run.json", "--base", "LLaVA-v1.5-7B"], monkeypatch, capsys)
    assert code == 2 and "--published" in err


def test_a_control_does_not_compete_with_the_methods():
    method = measured("amber")
    of_control = replace(method.run.provenance, checkpoint=CheckpointUsed(BASE, None, "1" * 64, "blind"))
    control = replace(method, name="blind", run=RunResult(method.run.benchmarks, of_control))
    (table,) = line_up([method, control])
    groups = {label: [row.name for row in rows] for label, rows in table.groups[-2:]}
    assert groups == {OURS: ["ours"], "Controls: trained with blank images": ["blind"]}
    assert not any(cell.best for _, rows in table.groups[-2:] for row in rows for cell in row.cells.values())
