"""Object HalBench: CHAIRs and CHAIRi over the COCO objects that answers mention."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks.benchmark import NOT_STATED, Benchmark, Metric, Task
from napo_bench.benchmarks.object_halbench.score import ratio
from napo_bench.benchmarks.rated import Counts, Line, Rated, Raters, Steps
from napo_bench.benchmarks.reading import Caption, Reading
from napo_bench.benchmarks.view import Sample, View, plain_fields
from napo_bench.data.sources import WebArchive, WebFile

if TYPE_CHECKING:
    from napo_bench.benchmarks.object_halbench.data import ObjectHalbench
    from napo_bench.benchmarks.question import Answers, BenchmarkData
    from napo_bench.benchmarks.result import BenchmarkResult
    from napo_bench.benchmarks.scoring import ScoreOptions

_RLHF_V = "https://raw.githubusercontent.com/RLHF-V/RLHF-V/3d35a91568b237fcc9d884463d9279fd7ae10350/eval"
_RLAIF_V = "https://raw.githubusercontent.com/RLHF-V/RLAIF-V/83d917b2e8118ca8e7877a796d72af9bb3e6b356/eval"
_TAGGER = "en_core_web_trf"

METRICS = (
    Metric(
        "chair_s",
        "CHAIRs",
        "lower",
        ratio("answers_with_hallucination", "answers"),
        "answers",
        in_table=True,
        pass_fail=True,
        decides=True,
        tex="CHAIR$_s$",
    ),
    Metric(
        "chair_i",
        "CHAIRi",
        "lower",
        ratio("hallucinated", "mentions"),
        "answers_with_objects",
        in_table=True,
        tex="CHAIR$_i$",
    ),
    Metric(
        "chair_s_refine",
        "CHAIRs (refined)",
        "lower",
        ratio("answers_with_hallucination", "answers_with_objects"),
        "answers_with_objects",
    ),
    Metric("recall", "Object recall", "higher", ratio("recalled", "image_objects"), "answers"),
    Metric("mean_words", "Mean words", None, ratio("words", "answers", unit=1.0), "answers", high=None, unit=""),
)

SOURCES = (
    WebFile(
        "object_halbench/questions.jsonl",
        f"{_RLAIF_V}/data/obj_halbench_300_with_image.jsonl",
        "e89c705f3cdebc35b7863878e059c88a97506767b87ad17014d58428ce6547a7",
        licence="CC-BY-NC-4.0",
    ),
    WebFile(
        "object_halbench/synonyms_refine.txt",
        f"{_RLHF_V}/data/synonyms_refine.txt",
        "681041d2958d7871ed6fa69c3108f34aa6a0a354eb53ed4c5a425e65f86bc72a",
        licence="CC-BY-NC-4.0",
    ),
    WebFile(
        "object_halbench/extractor_template.txt",
        f"{_RLHF_V}/eval_gpt_obj_halbench.py",
        "9d732f9b73a3cc965bee6eb163b8e5248e58bd9d382eb583e9ece59933e2b580",
        constant="prompt_template",
        licence="Apache-2.0",
    ),
    WebArchive(
        "object_halbench/annotations",
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        "annotations_trainval2014.zip",
        r"(instances|captions)_(train|val)2014\.json",
        4,
        "https://cocodataset.org/#download (2014 Train/Val annotations)",
        md5="0a379cfc70b0e71301e0f377548639bd",
        licence="CC-BY-4.0",
    ),
)


def _open(folder: Path) -> BenchmarkData:
    from napo_bench.benchmarks.object_halbench.data import ObjectHalbench

    return ObjectHalbench(folder)


def _score(data: ObjectHalbench, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    from napo_bench.benchmarks.object_halbench.result import score_object_halbench

    return score_object_halbench(data, answers, options)


def _measured(settings: Mapping[str, Any]) -> str:
    definition = str(settings.get("chair_definition", ""))
    if definition == "words":
        return "CHAIR over the words of an answer (refined synonyms)."
    if definition == NOT_STATED:
        return "CHAIR over words or over the objects that an LLM lists: the authors do not say."
    if not definition:
        return ""
    asked, extractor = definition.removeprefix("llm:"), settings.get("extractor", {})
    answered, tagger = extractor.get("reported_model", ""), extractor.get("spacy_model", _TAGGER)
    other = f", which answered as {answered}" if answered not in ("", asked) else ""
    tagged = "" if tagger.startswith(_TAGGER) else f" They are tagged by {tagger} (published: {_TAGGER})."
    # RLHF-V's and RLAIF-V's tables have the share that `chair_s_refine` is.
    return (
        f"CHAIR over the objects that {asked} lists{other}.{tagged} In published numbers of this kind, "
        "CHAIRs leaves out the answers without an object, as chair_s_refine does."
    )


def _show(sample: Sample) -> View:
    return View(**plain_fields(sample), facts=sample.get("image_objects"))


def _readings(sample: Sample, settings: Mapping[str, Any]) -> list[Reading]:
    caption = Caption.of(sample, sample["counts"]["image_objects"])
    return [Reading.of(sample, str(sample["response"]), caption=caption)]


def _raters(result: BenchmarkResult) -> Raters:
    """The counts of a run's answers. The rater is the definition of CHAIR: `words` or `llm:NAME`.

    The extractor's settings tell two ratings by one definition apart. Words have no such settings: they give the same
    counts each time.
    """
    definition = str(result.settings.get("chair_definition", "words"))
    extractor = json.dumps(result.settings.get("extractor"), sort_keys=True)
    return {definition: {str(sample["sample_id"]): {extractor: sample["counts"]} for sample in result.samples}}


def _settings_of(definition: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    extractor = {"extractor": settings["extractor"]} if "extractor" in settings else {}
    return {"chair_definition": definition, **extractor}


def _counts(hallucinated: int, mentions: int) -> Counts:
    if hallucinated > mentions:
        raise ValueError(f"{hallucinated} hallucinated mentions of {mentions} mentions")
    return {
        "answers": 1.0,
        "answers_with_objects": float(mentions > 0),
        "answers_with_hallucination": float(hallucinated > 0),
        "mentions": float(mentions),
        "hallucinated": float(hallucinated),
    }


RATED = Rated(
    columns={"hallucinated": (0, None), "mentions": (0, None)},
    counts=_counts,
    rating="hallucinated",
    flag="answers_with_hallucination",
    predicted={
        "answers_with_hallucination": Steps("hallucinated", top=3),
        **{name: Line(name) for name in ("hallucinated", "mentions", "answers_with_objects")},
    },
    fixed=("answers",),
    metrics=("chair_s", "chair_i", "chair_s_refine"),
    precision=5.0,
    settings=("chair_definition", "extractor"),
    settings_of=_settings_of,
    raters=_raters,
)

BENCHMARK = Benchmark(
    name="object_halbench",
    label="Object HalBench",
    about="CHAIRs and CHAIRi over the COCO objects that answers mention.",
    rows=(
        "RESPONSES is JSON lines of {image_id, question or prompt, text or answer}. A spaCy model "
        "(en_core_web_trf if none is given) tags the objects that an extractor lists; words need none."
    ),
    metrics=METRICS,
    tasks=(Task("object_halbench", tuple(metric.name for metric in METRICS), is_default=True, typical_units=300),),
    open=_open,
    score=_score,
    text_fields=("text", "answer"),
    sources=SOURCES,
    data_files=(
        "questions.jsonl",
        "synonyms_refine.txt",
        "extractor_template.txt",
        "annotations/instances_train2014.json",
        "annotations/instances_val2014.json",
        "annotations/captions_train2014.json",
        "annotations/captions_val2014.json",
    ),
    needs=frozenset({"words", "extractor"}),
    spacy_models={"extractor": _TAGGER},
    measured=_measured,
    show=_show,
    readings=_readings,
    rated=RATED,
    right_if="the answer names nothing that is not in the image",
    place=2,
)
