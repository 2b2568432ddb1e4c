"""MMHal-Bench: score, hallucination rate and informativeness, rated by an LLM judge."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks.benchmark import NOT_STATED, Benchmark, Metric, Task
from napo_bench.benchmarks.judged import GROUP, about_mean, judges_of
from napo_bench.benchmarks.mmhal.score import RATINGS, mean, question_counts
from napo_bench.benchmarks.rated import Counts, Rated, Raters, Steps
from napo_bench.benchmarks.view import Bar, BarChart, Sample, View, plain_fields
from napo_bench.data.sources import HubFolder, WebFile
from napo_bench.engines.answer import FINGERPRINT

if TYPE_CHECKING:
    from napo_bench.benchmarks.mmhal.data import Mmhal
    from napo_bench.benchmarks.question import Answers, BenchmarkData
    from napo_bench.benchmarks.result import BenchmarkResult
    from napo_bench.benchmarks.scoring import ScoreOptions
    from napo_bench.engines.judge import Judge

_RLHF_V = "https://raw.githubusercontent.com/RLHF-V/RLHF-V/3d35a91568b237fcc9d884463d9279fd7ae10350/eval"
METRICS = (
    Metric("score", "Score", "higher", mean("rating"), "questions", high=6.0, unit="", decimals=2, in_table=True),
    Metric(
        "hal_rate",
        "HalRate",
        "lower",
        mean("hallucinated"),
        "questions",
        high=1.0,
        unit="",
        decimals=2,
        in_table=True,
        pass_fail=True,
        decides=True,
    ),
    Metric("informativeness", "Informativeness", "higher", mean("informativeness", 100 / 3), "questions"),
)

SOURCES = (
    WebFile(
        "mmhal/template.json",
        f"{_RLHF_V}/data/mmhal-bench_answer_template.json",
        "28ed24e19ffef292597c35f1dad37760b2e0a088b3b40ca3b50f105fc1b951bb",
        licence="Apache-2.0",
    ),
    WebFile(
        "mmhal/judge_template.txt",
        f"{_RLHF_V}/eval_gpt_mmhal.py",
        "2c73d8c50f1740d000fae62cfeed103c2f7a5bcfa904b27e6e09900e7ce600cc",
        constant="template",
        licence="Apache-2.0",
    ),
    HubFolder(
        "mmhal/images",
        "Shengcao1006/MMHal-Bench",
        "f5f49a938f45ed99e235b8519ba28f76832a2add",
        "images",
        (("*.jpg", 96),),
        licence="Apache-2.0",
    ),
)


def _open(folder: Path) -> BenchmarkData:
    from napo_bench.benchmarks.mmhal.data import Mmhal

    return Mmhal(folder)


def _score(data: Mmhal, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    from napo_bench.benchmarks.mmhal.result import score_mmhal

    return score_mmhal(data, answers, options)


def _try_judge(judge: Judge, data: Mmhal) -> None:
    from napo_bench.benchmarks.mmhal.result import try_judge

    try_judge(judge, data)


def _measured(settings: Mapping[str, Any]) -> str:
    judges = judges_of(settings)
    if NOT_STATED in judges:
        return "The authors do not say which model judged."
    named = [_named(judge, own) for judge, own in judges.items() if judge]
    if len(named) > 1:
        return f"Mean over the judges {'; '.join(sorted(named))}. {about_mean(len(named))}"
    return f"Judged by {named[0]}." if named else ""


def _named(judge: str, settings: Mapping[str, Any]) -> str:
    """A judge in words, with the model that answered."""
    answered = settings.get("reported_model", "")
    return judge + (f", which answered as {answered}" if answered not in ("", settings.get("model")) else "")


def _show(sample: Sample) -> View:
    rating, several = sample.get("rating"), len(sample.get("judge_replies", []))
    verdict = f"rated {'–' if rating is None else f'{rating:.3g}'} of 6"
    return View(
        **plain_fields(sample),
        group=str(sample.get("question_type", "")),
        verdict=(verdict + (f", mean of {several}" if several else "")) if "rating" in sample else "",
        detail=_replies(sample),
    )


def _replies(sample: Sample) -> tuple[str, str]:
    """Heading and text of what the judges said."""
    if reply := sample.get("judge_reply"):
        return "The judge's reply", str(reply["text"])
    entries = sample.get("judge_replies", [])
    said = [f"{entry['judge']}, rating {int(entry['repeat']) + 1}:\n{entry['text']}" for entry in entries]
    return ("The judges' replies", "\n\n".join(said)) if said else ("", "")


def _raters(result: BenchmarkResult) -> Raters:
    """The ratings of a run. A reply without a rating is left out."""
    alone = next(iter(judges_of(result.settings)), "")
    found: dict[str, dict[str, dict[Hashable, Counts]]] = {}
    for sample in result.samples:
        reply = sample.get("judge_reply") or {}
        one = {**reply, "judge": alone or reply.get("model") or "judge", "rating": sample.get("rating")}
        for entry in sample.get("judge_replies", [one]):
            if entry["rating"] is not None:
                by_sample = found.setdefault(str(entry["judge"]), {})
                own = by_sample.setdefault(str(sample["sample_id"]), {})
                own[_reply_key(entry)] = question_counts(entry["rating"])
    return found


def _reply_key(reply: Mapping[str, Any]) -> Hashable:
    """What tells a judge's replies to one answer apart: the repetition, the request, and the served model."""
    served = (str(reply.get(name, "")) for name in ("reported_model", FINGERPRINT))
    return (int(reply.get("repeat", 0)), json.dumps(reply.get("request"), sort_keys=True), *served)


def _settings_of(judge: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"judge": judges_of(settings).get(judge, {"model": judge})}


RATED = Rated(
    columns={"rating": (RATINGS[0], RATINGS[-1])},
    counts=lambda rating: question_counts(rating),
    rating="rating",
    flag="hallucinated",
    predicted={"rating": Steps("rating"), "hallucinated": Steps("rating", rising=False)},
    fixed=("questions",),
    metrics=("score", "hal_rate"),
    precision=0.3,
    settings=("judge", "judges"),
    settings_of=_settings_of,
    raters=_raters,
)


def _by_type(result: BenchmarkResult) -> dict[str, Bar]:
    return {
        group.partition("/")[2]: Bar(values["score"].value, values["score"].ci95)
        for group, values in result.breakdown.items()
        if "score" in values and not group.startswith(GROUP)
    }


BENCHMARK = Benchmark(
    name="mmhal",
    label="MMHal-Bench",
    about="score, hallucination rate and informativeness, rated by an LLM judge.",
    rows=(
        "RESPONSES is the template's JSON list with model_answer filled, or the samples of a judged "
        "run.\n\nThe judge's key is $NAPO_BENCH_JUDGE_API_KEY, else $OPENAI_API_KEY; for a judge with @URL it is "
        "$NAPO_BENCH_JUDGE_API_KEY_HOST, with the URL's host in capitals. Replies are kept and not asked for again."
    ),
    metrics=METRICS,
    tasks=(Task("mmhal", tuple(metric.name for metric in METRICS), is_default=True, typical_units=96),),
    open=_open,
    score=_score,
    text_fields=("response", "model_answer"),
    responses="json",
    sources=SOURCES,
    data_files=("template.json", "judge_template.txt"),
    needs=frozenset({"judge"}),
    try_judge=_try_judge,
    measured=_measured,
    show=_show,
    rated=RATED,
    right_if="every rating of the answer is 3 or more",
    charts=(
        BarChart(
            "mmhal-types",
            "MMHal-Bench by question type",
            "Mean rating of each type of question, with 95% intervals.",
            "score (0-6)",
            6.2,
            _by_type,
        ),
    ),
    place=4,
)
