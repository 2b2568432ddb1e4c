"""The four benchmarks of the micro world, in the formats that their authors publish."""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.amber.official import GENERATIVE
from napo_bench.benchmarks.mmhal.score import QUESTION_TYPES
from napo_bench.core import files
from napo_bench.micro.draw import SIZE, draw, png
from napo_bench.micro.language import (
    CONTEXTS,
    DETAIL_PROMPTS,
    NUMBERS,
    QUESTIONS,
    STATEMENTS,
    Question,
    answers,
    fill,
    state,
    typical_scene,
)
from napo_bench.micro.lessons import draw_question, tempting
from napo_bench.micro.world import COLORS, COLUMNS, PLACES, STYLES, THINGS, Habits, Scene, build_scene, sample_scene

SEED = 0
HABITS = Habits(color=0.5, company=0.5, home=0.7, count=0.4)
"""Habits of the scenes in the benchmarks: half of the scenes contradict what is typical."""

FACTS_A_CONCEPT = {"color": 4, "companion": 4, "habitat": 3}
"""VLind-Bench's concepts -> number of counterfactual facts for each object."""

DESCRIPTIONS = 300
AMBER_QUESTIONS = {
    "discriminative-hallucination": 320,
    "discriminative-attribute-state": 310,
    "discriminative-attribute-number": 140,
    "discriminative-attribute-action": 90,
    "discriminative-relation": 70,
    "relation": 70,
}
"""Type -> number of questions. True contact is "discriminative-relation", false contact is "relation"."""

SYNONYMS = {
    "bicycle": ["bike"],
    "airplane": ["plane", "jet"],
    "car": ["automobile"],
    "truck": ["lorry"],
    "boat": ["sailboat"],
    "cup": ["mug"],
    "couch": ["sofa"],
    "dog": ["puppy"],
    "cat": ["kitten"],
    "sheep": ["lamb"],
    "horse": ["pony"],
    "kitchen": ["kitchenette"],
    "beach": ["shore"],
    "street": ["road"],
    "farm": ["farmyard"],
}

JUDGE_TEMPLATE = """\
You are a fair judge. A model was shown a picture and asked a question. Say how informative its answer is, and whether \
the answer claims anything that is not so in the picture (a hallucination).

### What the picture shows
{}

### Question
{}

### Right answer
{}

### Answer of the model
{}

### Your verdict
Explain in one sentence, then give one rating:
Rating: 6, very informative and more than was asked, no hallucination
Rating: 5, very informative, no hallucination
Rating: 4, somewhat informative, no hallucination
Rating: 3, not informative, no hallucination
Rating: 2, very informative, with hallucination
Rating: 1, somewhat informative, with hallucination
Rating: 0, not informative, with hallucination
"""


def counterfacts(thing: str, concept: str, seed: int = SEED) -> tuple[str, ...]:
    """The counterfactual values (colours, co-occurring objects, places) that VLind-Bench gives the object.

    Preference rows contain none of these facts.
    """
    kind = THINGS[thing]
    options = {
        "color": [color for color in COLORS if color != kind.color],
        "companion": [name for name in THINGS if name not in (thing, kind.companion)],
        "habitat": [place for place in PLACES if place != kind.home],
    }[concept]
    rng = random.Random(f"counterfacts/{seed}/{thing}/{concept}")
    return tuple(rng.sample(options, FACTS_A_CONCEPT[concept]))


def counterfactual_scene(rng: random.Random, concept: str, thing: str, value: str, style: str | None = None) -> Scene:
    """A scene in which the object has this colour, this co-occurring object or this place, and is otherwise typical."""
    kind = THINGS[thing]
    kinds: list[tuple[str, str | None, int | None]] = [(thing, value if concept == "color" else kind.color, None)]
    if concept == "companion":
        kinds.append((value, THINGS[value].color, None))
    return build_scene(rng, value if concept == "habitat" else kind.home, kinds, style=style)


PICTURES = {"0": STYLES[0], "4": STYLES[1], "8": STYLES[2], "9": STYLES[2]}
"""Ids of the good images of an instance -> style, by VLind-Bench's numbering."""

POOR_PICTURE = "5"
"""Id of the image that shows the typical fact instead of the counterfactual fact."""


def write_vlind(out: Path, seed: int) -> None:
    """Write `data.json` and `images/` of VLind-Bench: some counterfactual facts for each object and concept."""
    rows = []
    for concept, thing in itertools.product(FACTS_A_CONCEPT, THINGS):
        for number, value in enumerate(counterfacts(thing, concept, seed)):
            rng = random.Random(f"vlind/{seed}/{concept}/{thing}/{value}")
            context_id = list(THINGS).index(thing) * FACTS_A_CONCEPT[concept] + number
            custom = state(concept, thing, "").typical
            said, usual = (fill(CONTEXTS[concept], state(concept, thing, v)) for v in (value, custom))
            usual = usual.replace("In this world", "In our world")
            folder = f"{concept}/{context_id}_"
            best = counterfactual_scene(rng, concept, thing, value, PICTURES["0"])
            for image, style in PICTURES.items():
                scene = best if image == "0" else counterfactual_scene(rng, concept, thing, value, style)
                _write_picture(out / "images" / "counterfactual" / (folder + said) / f"{image}.jpg", scene, quality=92)
            poor = counterfactual_scene(rng, concept, thing, custom, STYLES[1])
            _write_picture(
                out / "images" / "counterfactual" / (folder + said) / f"{POOR_PICTURE}.jpg", poor, quality=92
            )
            _write_picture(
                out / "images" / "factual" / (folder + usual) / "0.jpg", _factual_scene(rng, thing), quality=92
            )
            absent = [name for name in THINGS if not best.group(name) and name != THINGS[thing].companion]
            rows.append(
                {
                    "concept": concept,
                    "context_id": context_id,
                    "context": said,
                    "factual_context": usual,
                    "true_statement": fill(STATEMENTS[concept], state(concept, thing, value)),
                    "false_statement": fill(STATEMENTS[concept], state(concept, thing, custom)),
                    "existent_noun": THINGS[value if concept == "companion" else thing].a,
                    "non-existent_noun": THINGS[rng.choice(absent)].a,
                    "best_img_id": "0",
                    "aggregated_human_label_good_images": {
                        **{image: rng.choice((2, 3)) for image in PICTURES},
                        POOR_PICTURE: rng.choice((0, 1)),
                    },
                }
            )
    files.write_json(out / "data.json", rows)


def _factual_scene(rng: random.Random, thing: str) -> Scene:
    scene = typical_scene(thing)
    return build_scene(rng, scene.place, [(g.thing, g.color, len(g.cells)) for g in scene.groups])


def described_scenes(benchmark: str, count: int, seed: int = SEED) -> list[Scene]:
    """The scenes of a benchmark that asks for descriptions."""
    rng = random.Random(f"{benchmark}/{seed}")
    return [sample_scene(rng, HABITS) for _ in range(count)]


def write_object_halbench(out: Path, seed: int) -> None:
    """Write questions with their images, synonyms and COCO annotations of Object HalBench."""
    categories = [
        {"id": number, "name": name, "supercategory": thing.home}
        for number, (name, thing) in enumerate(THINGS.items(), start=1)
    ]
    ids = {str(category["name"]): category["id"] for category in categories}
    questions = []
    parts: dict[str, tuple[list[Any], list[Any], list[Any]]] = {"train": ([], [], []), "val": ([], [], [])}
    for image_id, scene in enumerate(described_scenes("object_halbench", DESCRIPTIONS, seed), start=1):
        questions.append(
            {
                "image_id": image_id,
                "question": DETAIL_PROMPTS[image_id % len(DETAIL_PROMPTS)],
                "image": base64.b64encode(png(draw(scene))).decode(),
            }
        )
        images, instances, captions = parts["train" if image_id % 2 else "val"]
        images.append({"id": image_id, "width": SIZE, "height": SIZE, "file_name": f"micro_{image_id:012}.png"})
        captions += [
            {"id": image_id * 10 + number, "image_id": image_id, "caption": text}
            for number, text in enumerate(answers(Question("describe"), scene))
        ]
        instances += [
            {
                "id": image_id * 100 + cell,
                "image_id": image_id,
                "category_id": ids[group.thing],
                "bbox": [cell % COLUMNS * 64, cell // COLUMNS * 64, 64, 64],
                "area": 64 * 64,
                "iscrowd": 0,
            }
            for group in scene.groups
            for cell in group.cells
        ]
    files.write_jsonl(out / "questions.jsonl", questions)
    lines = [", ".join([name, *SYNONYMS.get(name, [])]) for name in THINGS]
    files.write_text(out / "synonyms_refine.txt", "\n".join(lines) + "\n")
    for part, (images, instances, captions) in parts.items():
        files.write_json(
            out / "annotations" / f"instances_{part}2014.json",
            {"images": images, "annotations": instances, "categories": categories},
        )
        files.write_json(out / "annotations" / f"captions_{part}2014.json", {"images": images, "annotations": captions})


def write_amber(out: Path, seed: int) -> None:
    """Write AMBER's annotations, queries and images, for descriptions and for yes/no questions."""
    scenes = described_scenes("amber", DESCRIPTIONS, seed)
    annotations: list[dict[str, Any]] = []
    described, asked = [], []
    for number, scene in enumerate(scenes, start=1):
        name = f"AMBER_{number}.png"
        _write_picture(out / "images" / name, scene)
        truth = [scene.place, *(group.thing for group in scene.groups)]
        annotations.append({"id": number, "type": GENERATIVE, "truth": truth, "hallu": _hallu_words(scene)})
        described.append({"id": number, "image": name, "query": QUESTIONS["describe"][0]})
    for kind, number, question in _amber_questions(scenes, seed):
        item = len(annotations) + 1
        (answer,) = answers(question, scenes[number - 1])
        annotations.append({"id": item, "type": kind, "truth": answer.lower()})
        asked.append({"id": item, "image": f"AMBER_{number}.png", "query": question.text()})
    files.write_json(out / "annotations.json", annotations)
    files.write_json(out / "query_generative.json", described)
    files.write_json(out / "query_discriminative.json", asked)
    files.write_json(out / "relation.json", {word: SYNONYMS.get(word, []) for word in (*THINGS, *PLACES)})
    files.write_text(out / "safe_words.txt", "picture\nimage\n")


def _hallu_words(scene: Scene) -> list[str]:
    """The words that the prior suggests for the scene: missing co-occurring objects, and the typical place of the first
    object.
    """
    words = tempting(scene)
    home = THINGS[scene.groups[0].thing].home
    return words + [home] * (home != scene.place)


def _amber_questions(scenes: list[Scene], seed: int) -> Iterator[tuple[str, int, Question]]:
    """Type, number of the scene (from 1) and question, scene by scene, until each type has its number of questions."""
    kinds = {
        "discriminative-hallucination": "is_there",
        "discriminative-attribute-state": "is_color",
        "discriminative-attribute-number": "is_number",
        "discriminative-attribute-action": "does_look",
        "discriminative-relation": "touch",
        "relation": "touch",
    }
    rng = random.Random(f"amber-questions/{seed}")
    left = dict(AMBER_QUESTIONS)
    seen = set()
    found: list[tuple[str, int, Question]] = []
    while any(left.values()):
        for number, scene in enumerate(scenes, start=1):
            for kind in [kind for kind, count in left.items() if count]:
                question = draw_question(rng, kinds[kind], scene)
                if question is None or (number, question) in seen:
                    continue
                if question.kind == "touch" and (answers(question, scene) == ("Yes",)) != kind.startswith("disc"):
                    continue
                seen.add((number, question))
                found.append((kind, number, question))
                left[kind] -= 1
    order = list(AMBER_QUESTIONS)
    yield from sorted(found, key=lambda item: (order.index(item[0]), item[1]))


MMHAL_QUESTIONS = 96
_MMHAL_KINDS = {
    "attribute": "color",
    "adversarial": "color",
    "comparison": "comparison",
    "counting": "count",
    "relation": "relation",
    "environment": "place",
    "holistic": "describe",
    "other": "look",
}


def write_mmhal(out: Path, seed: int) -> None:
    """Write MMHal-Bench's 96 questions, images and judge template."""
    rows = []
    for number in range(MMHAL_QUESTIONS):
        kind = QUESTION_TYPES[number % len(QUESTION_TYPES)]
        scene, question = _mmhal_item(random.Random(f"mmhal/{seed}/{number}"), kind)
        name = f"micro_{number:02}"
        _write_picture(out / "images" / f"{name}.png", scene)
        rows.append(
            {
                "question_type": kind,
                "question_topic": scene.place,
                "image_id": name,
                "image_src": f"{name}.png",
                "image_content": contents(scene),
                "question": question.text(),
                "gt_answer": answers(question, scene)[0],
                "model_answer": "",
            }
        )
    files.write_json(out / "template.json", rows)
    files.write_text(out / "judge_template.txt", JUDGE_TEMPLATE)


def _mmhal_item(rng: random.Random, kind: str) -> tuple[Scene, Question]:
    while True:
        scene = sample_scene(rng, HABITS)
        question = draw_question(rng, _MMHAL_KINDS[kind], scene)
        if kind == "holistic":
            return scene, Question("describe", form=1)
        if question is None or (kind == "adversarial") != (bool(question.thing) and not scene.group(question.thing)):
            continue
        return scene, question


def contents(scene: Scene) -> list[str]:
    """The content of an image, item by item: everything except the positions."""
    items = [scene.place]
    for group in scene.groups:
        count, thing = len(group.cells), THINGS[group.thing]
        item = f"{NUMBERS[count]} {group.color} {thing.name if count == 1 else thing.plural}"
        items.append(f"{item} looking {group.side}" if thing.animal else item)
    return items


def _write_picture(path: Path, scene: Scene, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(scene).save(path, **options)
