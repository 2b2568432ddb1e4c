"""`napo-bench score vlind` and `napo-bench score mmhal`, from official files to tables and JSON."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from misbehaving_server import Behaviour, MisbehavingServer, Request, answer, refusal
from typer.testing import CliRunner

from napo_bench.cli import app, console
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs import score as scoring
from napo_bench.runs.result import RunResult

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "mmhal"
Row = dict[str, Any]
Score = Callable[..., str]


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Score:
    """Runs `napo-bench score BENCHMARK` on rows; returns what it prints, or raises its NapoBenchError."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(console.out, "_width", 120)
    for name in ("JUDGE_BASE_URL", "JUDGE_MODEL", "JUDGE_API_KEY"):
        monkeypatch.delenv(f"NAPO_BENCH_{name}", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run(benchmark: str, rows: list[Row], *options: str) -> str:
        responses = tmp_path / "responses.json"
        responses.write_text(json.dumps(rows))
        command = ["score", benchmark, "--responses", str(responses), "--data-dir", str(tmp_path), *options]
        result = CliRunner().invoke(app, [*command, "--json", str(tmp_path / "out.json")])
        if result.exception is not None:
            raise result.exception
        return result.output

    return run


def values(path: Path) -> dict[str, float]:
    (benchmark,) = RunResult.load(path).benchmarks.values()
    return {name: metric.value for name, metric in benchmark.metrics.items()}


class TestVlind:
    @pytest.fixture
    def instances(self, tmp_path: Path) -> list[Row]:
        """Twelve instances of two concepts; every context_id is there in both."""
        rows = [
            {
                "concept": concept,
                "context_id": number,
                "context": f"context {number}",
                "factual_context": f"fact {number}",
                "true_statement": "It is so.",
                "false_statement": "It is not so.",
                "existent_noun": "a cat",
                "non-existent_noun": "a dog",
                "best_img_id": str(number),
                "aggregated_human_label_good_images": {str(number): 3, str(number + 4): 2, str(number + 1): 1},
            }
            for concept in ("climate", "color")
            for number in range(6)
        ]
        (tmp_path / "vlind").mkdir()
        (tmp_path / "vlind" / "data.json").write_text(json.dumps(rows))
        return rows

    @pytest.fixture
    def responses(self, instances: list[Row]) -> list[Row]:
        """An answer to every question; most are right, some are neither True nor False."""
        rng = random.Random(3)
        rows = []
        for row in instances:
            best = row["best_img_id"]
            good = [image for image, votes in row["aggregated_human_label_good_images"].items() if votes >= 2]
            for test, images in (("ck", ["0"]), ("vp", [best]), ("cb", [best]), ("lp", good)):
                for image in images:
                    for statement, right in ((1, "True"), (2, "False")):
                        text = rng.choices([f"{right}.", "Both.", "Indeed, True"], [12, 1, 3])[0]
                        key = {"concept": row["concept"], "context_id": row["context_id"]}
                        rows.append(key | {"test": test, "statement": statement, "image_id": image, "text": text})
        return rows

    @staticmethod
    def expected(instances: list[Row], responses: list[Row], wanted: Callable[[Row, str], bool]) -> dict[str, float]:
        """The published definitions, computed straight from the rows, over the images that are wanted."""

        def right(row: Row, test: str, image: str) -> bool:
            texts = {
                r["statement"]: r["text"]
                for r in responses
                if (r["concept"], r["context_id"], r["test"], r["image_id"])
                == (row["concept"], row["context_id"], test, image)
            }
            return "True" in texts[1] and "False" in texts[2]

        ck, vp, cb, lp = [], [], [], []
        for row in instances:
            votes = row["aggregated_human_label_good_images"]
            good = [image for image, count in votes.items() if count >= 2 and wanted(row, image)]
            if not good:
                continue
            ck.append(right(row, "ck", "0"))
            vp.append(right(row, "vp", row["best_img_id"]))
            cb.append(right(row, "cb", row["best_img_id"]))
            lp.append(np.mean([right(row, "lp", image) for image in good]))
        eligible = [share for a, b, c, share in zip(ck, vp, cb, lp, strict=True) if a and b and c]
        return {
            "ck": 100 * np.mean(ck),
            "vp": 100 * np.mean(vp),
            "cb": 100 * np.mean([c for a, c in zip(ck, cb, strict=True) if a]) if any(ck) else 0.0,
            "lp": 100 * np.mean(eligible) if eligible else 0.0,
            "cb_accuracy": 100 * np.mean(cb),
            "lp_accuracy": 100 * np.mean(lp),
        }

    def test_every_number_is_the_published_definition(
        self, score: Score, tmp_path: Path, instances: list[Row], responses: list[Row]
    ) -> None:
        output = score("vlind", responses[::-1])
        (result,) = RunResult.load(tmp_path / "out.json").benchmarks.values()
        groups: dict[str, Callable[[Row, str], bool]] = {
            "concept/climate": lambda row, image: row["concept"] == "climate",
            "concept/color": lambda row, image: row["concept"] == "color",
            "style/photorealistic": lambda row, image: int(image) <= 3,
            "style/illustration": lambda row, image: 4 <= int(image) <= 7,
            "style/cartoon": lambda row, image: int(image) >= 8,
        }
        assert set(result.breakdown) == set(groups)
        for group, wanted in groups.items():
            found = {name: metric.value for name, metric in result.breakdown[group].items()}
            assert found == pytest.approx(self.expected(instances, responses, wanted)), group
        overall = self.expected(instances, responses, lambda row, image: True)
        assert values(tmp_path / "out.json") == pytest.approx(overall)
        assert 0 < overall["lp"] < 100 and 0 < overall["cb"] < 100
        assert all(metric.ci95[0] <= metric.value <= metric.ci95[1] for metric in result.metrics.values())
        assert result.metrics["lp"].n < result.metrics["cb"].n < result.metrics["ck"].n == 12
        assert result.complete and result.settings == {"layout": "data.json"}
        assert f"{overall['lp']:.1f}" in output and "style/cartoon" in output
        assert "answers are neither True nor False" in output

    def test_the_samples_score_again_to_the_same(self, score: Score, tmp_path: Path, responses: list[Row]) -> None:
        score("vlind", responses)
        first = RunResult.load(tmp_path / "out.json").benchmarks
        score("vlind", [json.loads(line) for line in (tmp_path / "out.samples/vlind.jsonl").read_text().splitlines()])
        assert RunResult.load(tmp_path / "out.json").benchmarks == first

    def test_missing_duplicate_and_unknown_answers_are_named(self, score: Score, responses: list[Row]) -> None:
        stranger = responses[0] | {"context_id": 99}
        with pytest.raises(NapoBenchError) as caught:
            score("vlind", [*responses[2:], responses[5], stranger])
        assert "2 of 120 answers missing: climate/0/ck/1/0, climate/0/ck/2/0" in caught.value.message
        assert "1 answers duplicate: climate/0/cb/2/0" in caught.value.message
        assert "1 answers unknown: climate/99/ck/1/0" in caught.value.message
        assert "--allow-partial" in caught.value.hint

    def test_over_a_part_only_complete_instances_count(
        self, score: Score, tmp_path: Path, instances: list[Row], responses: list[Row]
    ) -> None:
        kept = [r for r in responses if r["context_id"] != 3 or r["test"] == "lp"]
        kept = [r for r in kept if (r["context_id"], r["test"], r["image_id"]) != (2, "lp", "6")]
        output = score("vlind", kept, "--allow-partial")
        assert "over a part of the benchmark" in output
        assert "2 of 12 instances left out" in output
        (result,) = RunResult.load(tmp_path / "out.json").benchmarks.values()
        assert not result.complete

        def wanted(row: Row, image: str) -> bool:
            return row["context_id"] != 3 and (row["context_id"], image) != (2, "6")

        assert values(tmp_path / "out.json") == pytest.approx(self.expected(instances, responses, wanted))

    def test_a_part_without_a_complete_instance_is_refused(self, score: Score, responses: list[Row]) -> None:
        with pytest.raises(NapoBenchError, match="no instance has its pairs of ck, vp and cb and one of lp"):
            score("vlind", [r for r in responses if r["test"] != "cb"], "--allow-partial")

    def test_an_empty_answer_is_scored_and_counted(
        self, score: Score, tmp_path: Path, instances: list[Row], responses: list[Row]
    ) -> None:
        emptied = [row | ({"text": ""} if row["test"] == "ck" else {}) for row in responses]
        assert "24 empty responses" in score("vlind", emptied)
        assert values(tmp_path / "out.json")["ck"] == 0

    def test_one_row_an_image_scores_like_the_folders_and_says_so(
        self, score: Score, tmp_path: Path, instances: list[Row], responses: list[Row]
    ) -> None:
        score("vlind", responses)
        folders = values(tmp_path / "out.json")
        (tmp_path / "vlind" / "data.json").unlink()
        rows = []
        for row in instances:
            votes = row["aggregated_human_label_good_images"]
            common = row | {"context_id": str(row["context_id"]), "non_existent_noun": row.pop("non-existent_noun")}
            rows.append(common | {"image_type": "factual", "image": "f.jpg"})
            rows += [
                common | {"image_type": "counterfactual", "image": f"{image}.jpg", "image_id": image} for image in votes
            ]
        (tmp_path / "vlind" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        score("vlind", responses)
        assert values(tmp_path / "out.json") == folders
        run = RunResult.load(tmp_path / "out.json")
        assert run.benchmarks["vlind"].settings == {"layout": "one row an image"}
        assert list(run.provenance.data.sha256) == ["vlind/rows.jsonl"]


def rating_of(prompt: str) -> int:
    return sum(prompt.encode()) % 7


def rate(request: Request) -> Behaviour:
    return answer(f"Fine.\nRating: {rating_of(request.text)}, as it is.")


class TestMmhal:
    @pytest.fixture
    def rows(self, tmp_path: Path) -> list[Row]:
        """The published rows, answered."""
        if not REFERENCE.exists():
            pytest.skip(f"needs {REFERENCE}")
        (tmp_path / "mmhal").mkdir()
        shutil.copyfile(REFERENCE / "mmhal-bench_answer_template.json", tmp_path / "mmhal" / "template.json")
        shutil.copyfile(REFERENCE / "judge_template.txt", tmp_path / "mmhal" / "judge_template.txt")
        rows: list[Row] = json.loads((tmp_path / "mmhal" / "template.json").read_text())
        return [row | {"model_answer": f"Answer {{{number}}}."} for number, row in enumerate(rows)]

    @pytest.fixture
    def ratings(self, rows: list[Row]) -> list[int]:
        """What the judge of these tests says to each row, from the template as str.format fills it."""
        template = (REFERENCE / "judge_template.txt").read_text()
        fields = ("question", "gt_answer", "model_answer")
        return [
            rating_of(template.format(", ".join(row["image_content"]), *(row[name] for name in fields))) for row in rows
        ]

    def test_every_number_is_the_published_definition(
        self, score: Score, tmp_path: Path, rows: list[Row], ratings: list[int]
    ) -> None:
        with MisbehavingServer(rate) as server:
            output = score("mmhal", rows, "--judge-base-url", server.url, "--judge-model", "gpt-4")
        found = np.array(ratings)
        assert values(tmp_path / "out.json") == pytest.approx(
            {
                "score": found.mean(),
                "hal_rate": (found < 3).mean(),
                "informativeness": np.where(found >= 3, found - 3, found).mean() / 3 * 100,
            }
        )
        (result,) = RunResult.load(tmp_path / "out.json").benchmarks.values()
        by_type = {group: metrics["score"].value for group, metrics in result.breakdown.items()}
        assert list(by_type.values()) == pytest.approx([found[kind::8].mean() for kind in range(8)])
        assert list(by_type)[:2] == ["question_type/attribute", "question_type/adversarial"]
        judge = {"model": "gpt-4", "reported_model": "judge-0613", "temperature": 0}
        assert result.settings == {"judge": judge}
        assert "96 judge replies, 672 prompt tokens and 288 completion tokens" in output
        assert f"{found.mean():.2f}" in output

    def test_the_samples_score_again_without_a_judge(self, score: Score, tmp_path: Path, rows: list[Row]) -> None:
        with MisbehavingServer(rate) as server:
            score("mmhal", rows, "--judge-base-url", server.url, "--judge-model", "gpt-4")
        first = RunResult.load(tmp_path / "out.json").benchmarks
        score("mmhal", [json.loads(line) for line in (tmp_path / "out.samples/mmhal.jsonl").read_text().splitlines()])
        assert RunResult.load(tmp_path / "out.json").benchmarks == first

    def test_the_same_command_again_asks_nothing(self, score: Score, rows: list[Row]) -> None:
        with MisbehavingServer(rate) as server:
            for _ in range(2):
                score("mmhal", rows, "--judge-base-url", server.url, "--judge-model", "gpt-4")
            assert len(server.requests) == 96

    def test_the_budget_stops_and_the_next_command_goes_on(
        self, score: Score, tmp_path: Path, rows: list[Row], ratings: list[int]
    ) -> None:
        with MisbehavingServer(rate) as server:
            options = ("--judge-base-url", server.url, "--judge-model", "gpt-4", "--judge-max-requests")
            with pytest.raises(NapoBenchError, match="50 of 96 are answered and stored"):
                score("mmhal", rows, *options, "50")
            score("mmhal", rows, *options, "46")
        assert values(tmp_path / "out.json")["score"] == pytest.approx(np.mean(ratings))

    def test_a_reply_without_a_rating_counts_as_0_and_is_noted(
        self, score: Score, tmp_path: Path, rows: list[Row]
    ) -> None:
        with MisbehavingServer(lambda request: answer("Rating: 6 or Rating: 5")) as server:
            output = score("mmhal", rows[:1], "--allow-partial", "--judge-base-url", server.url, "--judge-model", "j")
            assert len(server.requests) == 3
        assert "1 of 1 judge replies hold no single rating and count as 0" in output
        assert values(tmp_path / "out.json") == {"score": 0, "hal_rate": 1, "informativeness": 0}

    @pytest.mark.parametrize("reply", ["Fine.\n\n**Rating:** 4, informative", "Rating: [4]", "Rating:4"])
    def test_a_judge_whose_replies_hold_no_rating_is_no_measurement(
        self, score: Score, tmp_path: Path, rows: list[Row], reply: str
    ) -> None:
        with MisbehavingServer(lambda request: answer(reply)) as server:
            options = ("--allow-partial", "--judge-base-url", server.url, "--judge-model", "j")
            with pytest.raises(NapoBenchError, match=r"4 of 4 judge replies hold no single rating") as caught:
                score("mmhal", rows[:4], *options)
            assert caught.value.message.count(f"- {' '.join(reply.split())}") == 3
            assert not (tmp_path / "out.json").exists()
            server.behave = lambda request: answer("Rating: 4")
            score("mmhal", rows[:4], *options)
            assert len(server.requests) == 4 * 3 + 4
        assert values(tmp_path / "out.json")["score"] == 4

    @pytest.mark.parametrize("reply", ["Fair. Rating: 4/6", "Fair. Rating: 4.", "<think>Rating: 3?</think>\nRating: 4"])
    def test_other_ways_to_write_a_rating_are_read(
        self, score: Score, tmp_path: Path, rows: list[Row], reply: str
    ) -> None:
        with MisbehavingServer(lambda request: answer(reply)) as server:
            score("mmhal", rows[:2], "--allow-partial", "--judge-base-url", server.url, "--judge-model", "j")
        assert values(tmp_path / "out.json")["score"] == 4
        samples = (tmp_path / "out.samples/mmhal.jsonl").read_text().splitlines()
        assert {json.loads(line)["judge_reply"]["text"] for line in samples} == {reply}

    def test_up_to_a_twentieth_of_the_replies_may_hold_no_rating(
        self, score: Score, tmp_path: Path, rows: list[Row]
    ) -> None:
        def behave(request: Request) -> Behaviour:
            return answer("None." if any(f"{{{n}}}" in request.text for n in range(silent)) else "Rating: 4")

        with MisbehavingServer(behave) as server:
            options = ("--judge-base-url", server.url, "--judge-model", "j")
            silent = 4  # of 96
            assert "4 of 96 judge replies hold no single rating and count as 0" in score("mmhal", rows, *options)
            assert values(tmp_path / "out.json")["score"] == pytest.approx(4 * 92 / 96)
            silent = 5
            with pytest.raises(NapoBenchError, match="5 of 96 judge replies"):
                score("mmhal", rows, "--judge-base-url", server.url, "--judge-model", "another")

    def test_an_answer_that_the_judge_refuses_is_unrated_and_n_says_so(
        self, score: Score, tmp_path: Path, rows: list[Row]
    ) -> None:
        def behave(request: Request) -> Behaviour:
            if "{7}" in request.text:
                return refusal(400, "The prompt triggered the policy.", code="content_filter")
            return answer("Rating: 4")

        with MisbehavingServer(behave) as server:
            options = ("--judge-base-url", server.url, "--judge-model", "j")
            output = score("mmhal", rows, *options)
            with pytest.raises(NapoBenchError, match="refuses 1 of 96 prompts, more than 0%"):
                score("mmhal", rows, *options, "--max-refused", "0")
            assert len(server.requests) == 97, "a refusal is asked again, and nothing else"
        assert "1 of 96 prompts unrated and left out: refused by the judge: HTTP 400: The prompt" in output
        (result,) = RunResult.load(tmp_path / "out.json").benchmarks.values()
        assert {metric.n for metric in result.metrics.values()} == {95}
        assert (result.metrics["score"].value, result.complete) == (4, False)
        assert [entry["sample_id"] for entry in result.unanswered] == ["7"]

    def test_fields_for_the_judge_are_sent_and_in_the_settings(
        self, score: Score, tmp_path: Path, rows: list[Row]
    ) -> None:
        with MisbehavingServer(lambda request: answer("Rating: 4")) as server:
            options = ("--allow-partial", "--judge-base-url", server.url, "--judge-model", "j", "--judge-request")
            score("mmhal", rows[:1], *options, "reasoning_effort=low", "--judge-request", "temperature=null")
        assert "temperature" not in server.requests[0].body
        (result,) = RunResult.load(tmp_path / "out.json").benchmarks.values()
        expected = {"model": "j", "reported_model": "judge-0613", "temperature": None, "reasoning_effort": "low"}
        assert result.settings["judge"] == expected
        score("mmhal", [json.loads((tmp_path / "out.samples/mmhal.jsonl").read_text())], "--allow-partial")
        (again,) = RunResult.load(tmp_path / "out.json").benchmarks.values()
        assert again.settings == result.settings

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--max-refused", "many"], "a share such as 1% or 0.01"),
            (["--max-refused", "120%"], "a share such as 1% or 0.01"),
            (["--judge-request", "effort"], "key=value is expected"),
            (["--judge-request", "model=x"], "napo-bench sets itself"),
            (["--thinking-marks", "<think>"], "an opening and a closing mark"),
        ],
    )
    def test_options_that_mean_nothing_are_refused(
        self, score: Score, rows: list[Row], options: list[str], message: str
    ) -> None:
        with pytest.raises(NapoBenchError, match=message):
            score("mmhal", rows, *options)

    def test_without_a_judge_the_command_names_options_and_variables(self, score: Score, rows: list[Row]) -> None:
        with pytest.raises(NapoBenchError) as caught:
            score("mmhal", rows)
        for name in ("--judge-model", "--judge-base-url", "NAPO_BENCH_JUDGE_MODEL", "NAPO_BENCH_JUDGE_API_KEY"):
            assert name in str(caught.value)

    def test_without_a_judge_a_run_keeps_the_responses(self, tmp_path: Path, rows: list[Row]) -> None:
        result = scoring.score("mmhal", rows, tmp_path, scoring.ScoreOptions())
        assert (result.metrics, result.complete) == ({}, False)
        assert "there is no judge" in result.notes[-1]
        assert [sample["response"] for sample in result.samples] == [row["model_answer"] for row in rows]

    def test_missing_duplicate_and_unknown_questions_are_named(self, score: Score, rows: list[Row]) -> None:
        stranger = rows[0] | {"image_id": "zzz"}
        with pytest.raises(NapoBenchError) as caught:
            score("mmhal", [*rows[1:], rows[5], stranger])
        assert "1 of 96 questions missing: df62a56fdc1bb12b/What color" in caught.value.message
        assert "1 questions duplicate: 2e1d92ec24b8f5f9/How would you" in caught.value.message
        assert "1 questions unknown: zzz/What color" in caught.value.message

    def test_a_part_is_scored_in_any_order_and_types_stay(
        self, score: Score, tmp_path: Path, rows: list[Row], ratings: list[int]
    ) -> None:
        with MisbehavingServer(rate) as server:
            part = [rows[n] for n in (9, 3, 1)]
            output = score("mmhal", part, "--allow-partial", "--judge-base-url", server.url, "--judge-model", "j")
        assert "over a part of the benchmark" in output
        (result,) = RunResult.load(tmp_path / "out.json").benchmarks.values()
        assert {group: metrics["score"].value for group, metrics in result.breakdown.items()} == pytest.approx(
            {"question_type/adversarial": (ratings[1] + ratings[9]) / 2, "question_type/counting": ratings[3]}
        )
