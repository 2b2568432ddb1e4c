"""Agreement of raters equals published and independent values; ratings are of the same answers, and bad rows are
named.
"""

import json

import numpy as np
import pytest
from rated_runs import halbench_run, mmhal_run
from synthetic_runs import invoke

from napo_bench.benchmarks.mmhal import RATED
from napo_bench.benchmarks.mmhal.score import question_counts
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.agreement import agreements
from napo_bench.runs.ratings import Item, Ratings, collect, rated_benchmark


def rated(*raters, clusters=None):
    """Ratings of as many answers as each rater's text has characters; "." is no rating."""
    items = [
        Item(str(number), str(number if clusters is None else clusters[number]))
        for number in range(max(map(len, raters)))
    ]
    for name, text in zip("ABCD", raters, strict=False):
        for item, rating in zip(items, text, strict=True):
            if rating != ".":
                item.by[name] = [question_counts(int(rating))]
    return Ratings("mmhal", RATED, items, [], {})


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [
        # Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: 0.815.
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.8153875037548814),
        # The package krippendorff 0.9.0, level_of_measurement="ordinal".
        (("5664463202", "6335546102"), 0.4313225058),
        ((".0641066.2", ".2.0.0555.", "6062..54.0"), 0.756921675774),
        ((".35.246.", "6.42.34.", "6361....", ".55..264"), 0.656224175494),
        (("00663", "66003"), -0.8),
    ],
)
def test_alpha_is_krippendorffs_for_ordinal_ratings(raters, alpha):
    found = agreements(rated(*raters))[-1]
    assert found.alpha.value == pytest.approx(alpha)
    low, high = found.alpha.ci95
    assert low <= alpha <= high


def test_shares_and_table_are_those_that_a_hand_counts():
    (found,) = agreements(rated("01234566", "01245503"))
    assert (found.n, found.clusters) == (8, 8)
    # Equal: 0, 1, 2, 5. Within 1: also 3-4 and 4-5. Hallucination (below 3): all agree except 6-0.
    assert found.exact.value == 50.0
    assert found.within_one.value == 75.0
    assert found.flag.value == 87.5
    assert found.higher_by.value == pytest.approx((0 + 1 + 2 + 4 + 5 + 5 + 0 + 3) / 8 - 27 / 8)
    table = np.array(found.table)
    assert found.levels == (0, 1, 2, 3, 4, 5, 6)
    assert table.sum() == 8 and np.trace(table) == 4
    assert table[6].tolist() == [1, 0, 0, 1, 0, 0, 0]  # rated 6 by A: 0 and 3 by B


def test_alpha_of_equal_ratings_is_undefined_and_neither_1_nor_nan():
    (found,) = agreements(rated("33333", "33333"))
    assert found.alpha.value is None and found.alpha.ci95 is None
    assert found.exact.value == 100.0
    assert found.exact.ci95[0] == pytest.approx(100 * 0.025 ** (1 / 5))


def test_answers_about_one_picture_are_resampled_together():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 7, 30)
    second = np.where(rng.random(30) < 0.5, first, rng.integers(0, 7, 30))
    texts = ["".join(map(str, np.repeat(side, 4))) for side in (first, second)]
    (alone,) = agreements(rated(*texts))
    (together,) = agreements(rated(*texts, clusters=np.repeat(np.arange(30), 4)))
    width = [one.exact.ci95[1] - one.exact.ci95[0] for one in (alone, together)]
    assert together.clusters == 30
    assert width[1] == pytest.approx(2 * width[0], rel=0.2)


def test_a_judge_that_rates_several_times_is_compared_with_itself_and_counts_once():
    ratings = rated("0123456", "0123456")
    for item in ratings.items:
        item.by["B"] = [*item.by["B"], question_counts(6)]
    pair, itself = agreements(ratings)
    assert (pair.raters, itself.raters) == (("A", "B"), ("B",))
    assert pair.n == itself.n == 7
    assert np.sum(pair.table) == 7.0 and pair.table[0][0] == pair.table[0][6] == 0.5
    assert pair.exact.value == pytest.approx(100 * (6 * 0.5 + 1) / 7)
    assert itself.exact.value == pytest.approx(100 / 7)
    assert itself.is_repeated and itself.higher_by is None


def test_ratings_of_runs_are_of_the_same_answer_if_its_text_is_the_same():
    one, other = mmhal_run([1, 2, None, 4], "A"), mmhal_run([1, 3, 3, 3], "B")
    found = collect("mmhal", [("one", one), ("other", other)])
    assert found.raters == {"A": 3, "B": 4}
    assert [item.sample_id for item in found.rated_by("A", "B")] == ["0", "1", "3"]
    apart = collect("mmhal", [("one", one), ("other", mmhal_run([1, 3, 3, 3], "B", model="another"))])
    assert apart.rated_by("A", "B") == []
    with pytest.raises(NapoBenchError, match=r"No answer has two ratings. The raters: A \(3 answers\), B \(4"):
        agreements(apart)


def test_the_judges_and_repetitions_of_one_run_are_read():
    run = mmhal_run([1, 4])
    for sample, ratings in zip(run.benchmarks["mmhal"].samples, ([1, 2, 0], [4, None, 5]), strict=True):
        del sample["judge_reply"]
        names = ("A", "B", "B")
        sample["judge_replies"] = [
            {"judge": name, "repeat": repeat, "rating": rating}
            for name, repeat, rating in zip(names, (0, 0, 1), ratings, strict=True)
        ]
    found = collect("mmhal", [("run", run)])
    ratings = [[counts["rating"] for counts in item.by["B"]] for item in found.items]
    assert ratings == [[2.0, 0.0], [5.0]]


def test_one_kept_reply_in_two_runs_is_one_rating():
    """The journal gives both runs the same reply to the same answer, so the judge did not rate it twice."""
    runs = [("one", mmhal_run([1, 2, 4])), ("two", mmhal_run([1, 2, 4]))]
    found = collect("mmhal", runs)
    assert [len(item.by["A"]) for item in found.items] == [1, 1, 1]
    assert any("counted once: A (3)" in note for note in found.notes)
    with pytest.raises(NapoBenchError, match="No answer has two ratings") as error:
        agreements(found)
    assert "--judge-repeats" in error.value.hint


@pytest.mark.parametrize(
    "other", [{"fingerprint": "fp_2"}, {"reported_model": "A-2"}, {"request": {"temperature": 1}}, {"repeat": 1}]
)
def test_a_reply_of_another_backend_request_or_repetition_is_another_rating(other):
    first, again = mmhal_run([1, 2, 4]), mmhal_run([1, 3, 4])
    for sample in again.benchmarks["mmhal"].samples:
        sample["judge_reply"] |= other
    (itself,) = agreements(collect("mmhal", [("one", first), ("two", again)]))
    assert itself.is_repeated and itself.n == 3
    assert itself.exact.value == pytest.approx(200 / 3)


def test_a_definition_of_words_is_never_compared_with_itself():
    counts = [(0, 3), (1, 4), (2, 5)]
    found = collect("object_halbench", [("a", halbench_run(counts)), ("b", halbench_run(counts))])
    with pytest.raises(NapoBenchError, match=r"No answer has two ratings. The raters: words \(3 answers\)"):
        agreements(found)


def test_extractors_are_compared_by_the_hallucinated_objects_of_each_answer():
    words, llm = halbench_run([(0, 3), (1, 4), (2, 5)]), halbench_run([(0, 3), (2, 4), (0, 5)], "llm:x")
    (found,) = agreements(collect("object_halbench", [("a", words), ("b", llm)]))
    assert found.raters == ("words", "llm:x")
    assert found.flag.value == pytest.approx(200 / 3)
    assert found.within_one.value == pytest.approx(200 / 3)
    assert rated_benchmark(None, [words, llm]) == "object_halbench"
    assert rated_benchmark(None, []) == "mmhal"


HEAD = "sample_id,rater,rating\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.csv", "\ufeffrater, sample_id, rating\nann,0,3\n\nann,1,4.0\n"),
        ("r.json", '[{"sample_id": 0, "rater": "ann", "rating": 3}, {"sample_id": "1", "rater": "ann", "rating": 4}]'),
        (
            "r.jsonl",
            '{"sample_id": "0", "rater": "ann", "rating": "3"}\n{"sample_id": "1", "rater": "ann", "rating": 4}',
        ),
    ],
)
def test_a_file_of_ratings_is_csv_json_or_json_lines(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = collect("mmhal", [("base", mmhal_run([3, 5]))], [("base", tmp_path / name)])
    assert found.raters == {"A": 2, "ann": 2}
    assert [item.by["ann"][0]["rating"] for item in found.items] == [3.0, 4.0]
    # Without the name of a run, the rows are about answers of no run, though the samples have the same picture.
    alone = collect("mmhal", [("base", mmhal_run([3, 5]))], [("", tmp_path / name)])
    assert alone.rated_by("A", "ann") == []
    assert [item.cluster for item in alone.items] == ["mmhal/images/0.jpg", "mmhal/images/1.jpg"] * 2


def test_every_bad_row_of_a_file_of_ratings_is_named(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(
        "sample_id,rater,rating,run,repeat\n"
        "0,ann,7,base,\n0,ann,3,base,\n0,ann,4,base,\n0,ann,4,base,2\n0,,4,base,\n9,ann,4,base,\n"
        "0,bob,4,bsae,\n0,cy,nan,base,\n0,cy,2.5,base,\n0,cy,,base,\n1,ann,1,,\n"
    )
    with pytest.raises(NapoBenchError) as error:
        collect("mmhal", [("base", mmhal_run([3, 5]))], [("base", path)])
    lines = error.value.message.splitlines()
    assert lines[0] == f"{path}: 8 of 11 rows cannot be used:"
    assert [line.split(":")[0] for line in lines[1:]] == [f"- row {n}" for n in (1, 3, 5, 6, 7, 8, 9, 10)]
    assert "rating is '7'; a whole number from 0 to 6 is expected" in lines[1]
    assert "ann rates this answer in row 2 too" in lines[2]
    assert "the run base has no sample '9'" in lines[4]
    assert "run is 'bsae'; the runs are: base" in lines[5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.csv", "", "has no rows"),
        ("r.csv", HEAD, "has no rows"),
        ("r.csv", "sample_id,rater,rater\n0,a,1\n", "two columns are called 'rater'"),
        ("r.csv", HEAD + "0,a\n", "line 2: 2 cells; 3 are expected"),
        ("r.csv", HEAD + '0,"a,1\n', "line 2: not valid CSV"),
        ("r.csv", "id,rater,rating\n0,a,1\n", "no column sample_id; its columns are: 'id', 'rater', 'rating'."),
        ("r.csv", "Sample_ID,Rater,rating\n0,a,1\n", "no column sample_id, rater; its columns are: 'Sample_ID', 'R"),
        ("r.csv", "sample_id;rater;rating\n0;a;1\n", "They are separated by ';'; a comma is expected."),
        ("r.csv", "sample_id\trater\trating\n0\ta\t1\n", r"They are separated by '.t'; a comma is expected."),
        ("r.json", '[{"sample_id": true, "rater": "a", "rating": 1}]', "row 1: sample_id is True"),
        ("r.json", '[{"sample_id": 0, "rater": "a", "rating": true}]', "row 1: rating is True"),
        ("r.jsonl", '{"sample_id": 0, "rater": "a"}', "no column rating; its columns are: 'sample_id', 'rater'."),
        ("r.json", '[{"sample_id": 0, "rater": "a", "rating": 1}, {"rater": "a"}]', "row 2: sample_id is missing"),
        ("r.jsonl", "sample", "line 1"),
    ],
)
def test_a_file_that_holds_no_ratings_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(NapoBenchError, match=message):
        collect("mmhal", [], [("", tmp_path / name)])


def test_a_file_of_ratings_of_an_unknown_run_is_refused_once(tmp_path):
    (tmp_path / "r.csv").write_text(HEAD + "0,a,1\n")
    with pytest.raises(NapoBenchError, match="there is no run 'bas'") as error:
        collect("mmhal", [("base", mmhal_run([3, 5]))], [("bas", tmp_path / "r.csv")])
    assert "base" in error.value.hint


def test_counts_of_extractors_come_from_a_file_too(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("sample_id,rater,hallucinated,mentions\n0,ann,1,4\n1,ann,3,2\n")
    with pytest.raises(NapoBenchError, match="row 2: 3 hallucinated mentions of 2 mentions"):
        collect("object_halbench", [], [("", path)])


def test_the_command_prints_and_writes_the_agreement(tmp_path, monkeypatch, capsys):
    mmhal_run([0, 2, 5, 6, 3], "gpt-x").save(tmp_path / "one" / "run.json")
    mmhal_run([1, 2, 4, 6, 3], "open").save(tmp_path / "two" / "run.json")
    (tmp_path / "h.csv").write_text("sample_id,rater,rating,run\n0,ann,3,one\n1,ann,3,two\n")
    out = tmp_path / "agree.json"
    runs = [tmp_path / "one", tmp_path / "two"]
    code, shown, _ = invoke(
        ["judge", "agree", *runs, "--ratings", tmp_path / "h.csv", "--json", out], monkeypatch, capsys
    )
    document = json.loads(out.read_text())
    assert code == 0
    assert "gpt-x (5), open (5), ann (2)" in shown
    assert [one["raters"] for one in document["agreements"]] == [
        ["gpt-x", "open"], ["gpt-x", "ann"], ["open", "ann"], ["gpt-x", "open", "ann"],
    ]  # fmt: skip
    assert document["agreements"][0]["exact"]["value"] == 60.0
    assert "undefined: all ratings are equal" not in shown.partition("ann:")[0]
    assert "fewer than 20 pictures" in shown
    code, shown, _ = invoke(["judge", "agree", runs[0], "--ratings", tmp_path / "two"], monkeypatch, capsys)
    assert code == 0 and "mean of open minus mean of gpt-x" in shown
    for arguments, message in (
        ([], "There is nothing to compare"),
        ([runs[0]], "No answer has two ratings"),
        ([runs[0], "--benchmark", "vlind"], "No judge and no extractor"),
        ([runs[0], "--benchmark", "object_halbench"], "has no object_halbench; it has: mmhal"),
        ([runs[0], "--ratings", tmp_path / "none.csv"], "does not exist"),
    ):
        code, _, panel = invoke(["judge", "agree", *arguments], monkeypatch, capsys)
        assert code == 2 and message in " ".join(panel.split()), message
