"""MMHal-Bench and Object HalBench runs whose ratings are given."""

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.mmhal.score import question_counts
from napo_bench.benchmarks.result import BenchmarkResult, MetricValue
from napo_bench.core import stats
from napo_bench.runs.result import RunResult


def mmhal_run(ratings, judge="A", model="m", start=0):
    """A run with these ratings by one judge; None is a reply without a rating. `model` wrote the answers."""
    samples = [
        {
            "sample_id": str(number),
            "unit": "question",
            "image": f"mmhal/images/{number}.jpg",
            "response": f"{model} says {number}",
            "rating": None if rating is None else int(rating),
            "judge_reply": {"model": judge, "text": f"Rating: {rating}"},
            "counts": question_counts(None if rating is None else int(rating)),
        }
        for number, rating in enumerate(ratings, start=start)
    ]
    settings = {"judge": {"model": judge, "temperature": 0}, "generation": {"profile": "paper"}}
    metrics = _values("mmhal", samples)
    return RunResult({"mmhal": BenchmarkResult(metrics, settings=settings, samples=samples)})


def halbench_run(counts, definition="words", model="m"):
    """An Object HalBench run whose answers have these (hallucinated, mentions)."""
    samples = [
        {
            "sample_id": str(number),
            "unit": "response",
            "image": str(number),
            "response": f"{model} says {number}",
            "counts": {
                "answers": 1,
                "words": 20,
                "answers_with_objects": int(mentions > 0),
                "answers_with_hallucination": int(hallucinated > 0),
                "mentions": int(mentions),
                "hallucinated": int(hallucinated),
                "recalled": 1,
                "image_objects": 3,
            },
        }
        for number, (hallucinated, mentions) in enumerate(counts)
    ]
    metrics = _values("object_halbench", samples)
    settings = {"chair_definition": definition}
    if definition.startswith("llm:"):
        settings["extractor"] = {"model": definition.removeprefix("llm:"), "temperature": 0.2}
    return RunResult({"object_halbench": BenchmarkResult(metrics, settings=settings, samples=samples)})


def _values(benchmark, samples):
    """The metrics, without the work of an interval."""
    (sums,) = stats.by_cluster([sample["counts"] for sample in samples], [0] * len(samples))
    values = {metric.name: float(metric.function(sums)) for metric in benchmark_named(benchmark).metrics}
    return {name: MetricValue(value, (value, value), len(samples), len(samples)) for name, value in values.items()}
