"""results/published: every number has a source and conditions, and what lacks them is refused by name."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import write_published

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.benchmark import NOT_STATED
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.paths import results_dir
from napo_bench.report.contradictions import contradictions, within_papers
from napo_bench.report.published import (
    Conditions,
    Result,
    Source,
    decoding_of,
    load_published,
    published,
    published_table,
)

FOLDER = results_dir() / "published"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the published numbers, to be spoiled."""
    return Path(shutil.copytree(FOLDER, tmp_path / "published"))


def results(table: str) -> list[Result]:
    return [result for row in published_table(table).rows for result in row.results]


def chairs(table: str) -> list[tuple[str, str]]:
    """(CHAIR definition, CHAIRs) of a table's rows on Object HalBench."""
    key = "object_halbench.chair_s"
    found = [entry for entry in results(table) if key in entry.values]
    return [(entry.conditions.settings["chair_definition"], entry.values[key]) for entry in found]


# What is there


def test_each_number_says_where_it_was_read_and_how_it_was_measured() -> None:
    everything = published().results
    assert len(everything) > 500
    assert all(entry.source.at.startswith("https://") and entry.source.read for entry in everything)
    assert all(entry.conditions.why and entry.conditions.decoding for entry in everything)
    assert len({entry.source.paper for entry in everything}) > 12
    assert len({entry.method for entry in everything}) > 60


def test_a_model_without_a_method_is_its_own_base() -> None:
    """Rows about one untrained checkpoint have one name, so that papers' numbers of it meet."""
    known = published().bases
    other = [entry for entry in published().results if entry.method in known and entry.base != entry.method]
    assert other == []


@pytest.mark.parametrize("table", [f"napo-{number}" for number in range(1, 7)])
def test_the_papers_own_chairs_are_shares_of_300_answers(table: str) -> None:
    """Word mode divides by 300 answers. The LLM mode of RLAIF-V's tables divides by the answers with an object."""
    thirds = {f"{k / 3:.1f}" for k in range(301)}
    assert {definition for definition, _ in chairs(table)} <= {"words", "llm:gpt-3.5-turbo-0613", NOT_STATED}
    own = {value for definition, value in chairs(table) if definition == "words"}
    assert own
    # 25.8, DPO of 13B, is the one exception: 77 of 300 are 25.7.
    assert own - thirds <= {"25.8"}
    of_llm = {value for definition, value in chairs(table) if definition.startswith("llm:")}
    assert not of_llm or of_llm - thirds


def test_the_judges_of_the_papers_ratings_are_those_of_their_authors() -> None:
    rated = [entry for entry in results("napo-1") if entry.task == "mmhal"]
    judges: dict[str, set[str]] = {}
    for entry in rated:
        judges.setdefault(entry.conditions.settings["judge"]["model"], set()).add(entry.method)
    assert judges.pop("gpt-4-0125-preview") == {"LLaVA-v1.5-7B", "HALVA"}
    assert judges.pop("gpt-4-1106-preview") == {"RLAIF-V"}
    assert set(judges) == {NOT_STATED}


def test_printed_digits_are_kept() -> None:
    (opa,) = [entry for entry in results("opa-dpo") if entry.method == "RLAIF-V" and entry.task == "object_halbench"]
    assert opa.values == {"object_halbench.chair_s": "16.00", "object_halbench.chair_i": "3.70"}


@pytest.mark.parametrize(
    ("generation", "words"),
    [
        ({"profile": "greedy", "max_new_tokens": 64}, "greedy"),
        ({"profile": "rlaif-v", "num_beams": 3}, "3 beams"),
        (
            {"profile": "paper", "num_beams": 3, "do_sample": True, "temperature": 0.2, "top_k": 50},
            "3 beams, temperature 0.2, top-k 50",
        ),
        ({}, ""),
    ],
)
def test_a_runs_decoding_has_the_words_of_the_protocols(generation: dict, words: str) -> None:
    assert decoding_of(generation) == words


# What is refused


def spoil(path: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace a text that is once in a file."""

    def apply(folder: Path) -> None:
        text = (folder / path).read_text()
        assert text.count(old) == 1
        (folder / path).write_text(text.replace(old, new))

    return apply


def extra_table(folder: Path) -> None:
    shutil.copy(folder / "amber.csv", folder / "new.csv")


def without(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


SPOILED = {
    "an unknown benchmark": (spoil("silkie.csv", "mmhal.score", "mmhall.score"), "silkie.csv: there is no metric"),
    "an unknown metric": (spoil("silkie.csv", "mmhal.score", "mmhal.scores"), "Did you mean mmhal.score"),
    "a rating above 6": (spoil("silkie.csv", "3.02", "30.2"), "line 8: mmhal.score is 30.2; a number from 0 to 6"),
    "a share in percent": (
        spoil("rlhf-v-1-people.csv", "0.781", "78.1"),
        "mmhal.hal_rate is 78.1; a number from 0 to 1",
    ),
    "a negative number": (spoil("silkie.csv", "3.02", "-3.02"), "mmhal.score is '-3.02'; a number is expected"),
    "no number": (spoil("silkie.csv", "3.02", "best"), "mmhal.score is 'best'"),
    "nan": (spoil("silkie.csv", "3.02", "nan"), "mmhal.score is 'nan'"),
    "a field too many": (spoil("silkie.csv", "3.02", "3.02,1"), "the number of fields is not that of the heads"),
    "a field too few": (spoil("silkie.csv", ",3.02", ""), "the number of fields is not that of the heads"),
    "an unknown base": (spoil("perpo.csv", "+ PerPO,PerPO,LLaVA-v1.5-7B", "x,x,LLaVA-v15-7B"), "Did you mean LLaVA-v"),
    "a row without a name": (spoil("silkie.csv", "\nSilkie,", "\n,"), "line 8: the row has no name"),
    "no column of bases": (spoil("tars-9.csv", "name,method,base,", "name,method,group,"), "has no column 'base'"),
    "unknown authors": (spoil("reverse-3.csv", "not stated,2.05", "RIVERSE,2.05"), "Did you mean REVERSE"),
    "authors of another benchmark": (
        spoil("reverse-3.csv", "not stated,2.05", "AMBER,2.05"),
        "does not say how AMBER measured mmhal",
    ),
    "a table without a source": (extra_table, "new.csv has no section in sources.toml"),
    "a source without a table": (without("amber.csv"), "amber is no file amber.csv"),
    "no sources at all": (without("sources.toml"), "sources.toml"),
    "an empty place of reading": (
        spoil("sources.toml", 'read = "the paper, \\"Context Blindness in DPO\\""', 'read = ""'),
        "c2-dpo-1 has an empty 'read'",
    ),
    "a source without an address": (
        spoil("sources.toml", 'at = "https://github.com/mlvlab/C2-DPO"\n', ""),
        "c2-dpo-1: Object missing required field `at`",
    ),
    "a mistyped key": (spoil("sources.toml", 'date = "not stated"', 'day = "not stated"'), "c2-dpo-1"),
    "broken TOML": (spoil("bases.toml", '["CogVLM"]', '["CogVLM"'), "is not valid TOML"),
    "an unknown task": (spoil("protocols.toml", "[HALVA.mmhal]", "[HALVA.mmhall]"), "Did you mean mmhal"),
    "a decoding in free words": (
        spoil("protocols.toml", '"3 beams, temperature 0.7"', '"beam search"'),
        "decoding is 'beam search'",
    ),
    "answers in words": (spoil("protocols.toml", 'answers = "all"', 'answers = "many"'), "answers is 'many'"),
    "no judge": (
        spoil("protocols.toml", 'settings = { judge = { model = "people" } }\n', ""),
        "the settings do not say how the numbers were measured",
    ),
    "an unknown metric of a run": (
        spoil("protocols.toml", '[TPO.mmhal]\n', '[TPO.mmhal]\nprints = { "mmhal.score" = "mmhal.rating" }\n'),
        "[TPO.mmhal]: there is no metric 'mmhal.rating'",
    ),
    "no reason": (spoil("protocols.toml", '"page 5 of RLHF-V\'s paper"', '""'), "does not say where the conditions"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_wrong_is_refused_by_name(folder: Path, name: str) -> None:
    change, message = SPOILED[name]
    load_published(folder)
    change(folder)
    with pytest.raises(NapoBenchError, match=re.escape(message)):
        load_published(folder)


# The page


def test_the_page_is_what_its_script_writes() -> None:
    assert write_published.PAGE.read_text(encoding="utf-8") == write_published.page(), "scripts/write_published.py"


def test_the_page_names_every_table_and_every_contradiction() -> None:
    text = write_published.page()
    assert all(f"results/published/{name}.csv)" in text for name in published().tables)
    within, between = text.split("## Contradictions within one paper")[1].split("## Contradictions between tables")
    assert "| LLaVA-v1.5-13B | DPO (TARS) | AMBER HalRate | 24.3 (TARS Table 1); 54.3 (TARS Table 9) |  |" in within
    assert "| NaPO (vb1) | VLind-Bench LP | 31.4 (NaPO Table 2); 41.4 (NaPO Table 4) |  |" in within
    assert "2.01 (OPA-DPO); 2.02 (TARS Table 1); 2.11 (" in between


# Contradictions


def of(value: str, *, method: str = "M", paper: str = "P", authors: str = "P", judge: str = "a") -> Result:
    """A published score of MMHal-Bench."""
    source = Source(paper, "https://a.b", "2025-01", "Table 1", "the paper", authors)
    conditions = Conditions("greedy", 96, "the paper", settings={"judge": {"model": judge}})
    benchmark = benchmark_named("mmhal")
    return Result(method, "B", benchmark, "mmhal", {"mmhal.score": value}, authors, conditions, source)


def test_two_values_for_one_checkpoint_contradict_each_other() -> None:
    (found,) = contradictions([of("2.11"), of("2.36", paper="Q"), of("2.11", paper="R")])
    assert (found.method, found.base, found.metric.key, found.differing) == ("M", "B", "mmhal.score", ())
    assert {value: [entry.source.paper for entry in own] for value, own in found.values.items()} == {
        "2.11": ["P", "R"],
        "2.36": ["Q"],
    }


@pytest.mark.parametrize("others", [["2.11"], ["2.1"], ["2"], ["2.1", "2.11"], ["2.105"]])
def test_a_rounded_value_is_no_contradiction(others: list[str]) -> None:
    assert contradictions([of("2.11"), *map(of, others)]) == []


@pytest.mark.parametrize("other", [of("2.36", method="N"), replace(of("2.36"), base="C")])
def test_another_method_or_base_is_no_contradiction(other: Result) -> None:
    assert contradictions([of("2.11"), other]) == []


def test_conditions_that_are_stated_differently_are_named() -> None:
    (found,) = contradictions([of("2.11"), of("2.36", judge="b")])
    assert found.differing == ("judge model",)
    (found,) = contradictions([of("2.11"), of("2.36", judge=NOT_STATED)])
    assert found.differing == ()


def test_a_paper_that_copies_a_row_does_not_contradict_itself() -> None:
    assert within_papers([of("2.11", paper="Q"), of("2.19", paper="Q", authors="Q")]) == []
    assert len(within_papers([of("2.11"), of("2.19")])) == 1
