"""Run the authors' CHAIR, and write what it says for `tests/benchmarks/test_object_halbench_replay.py`.

    python scripts/replay_object_halbench.py RLAIF-V SPACY_MODEL > tests/benchmarks/object_halbench_replay.json

RLAIF-V is a checkout of the repository of that name. The output contains no word of the synonym file: a class is the
number of its line. The test makes the same texts from the user's file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

KINDS = ("a {}", "two {}s", "The {}, PLEASE.", "baby {}", "adult {}", "{} seat", "{} of the toilet")
"""Texts around each term. A further kind joins a term and the next one."""

SENTENCES = (
    "A hot dog and two hot dogs lie beside a dog that is hot.",
    "The teddy bear, teddy bears and a bear with a teddy.",
    "The toilet seat is up. The seat of the toilet is down. A seat near a toilet seat.",
    "A seat. A chair. Seats and stools.",
    "Two wine glasses, a wine glass, a glass of wine and a wine glas.",
    "A baby elephant, an adult giraffe, a baby, an adult and a baby bird.",
    "A passenger jet, a passenger train, passengers and a passenger car.",
    "Home plate, a dinner plate, the train track, train tracks and a train.",
    "A bow tie, bow ties, a bow and a tie.",
    "TRAFFIC LIGHTS, Stop Signs and FIRE HYDRANTS.",
    "A man's umbrella; the men's umbrellas; a woman-sized chair.",
    "Tennis rackets, tennis balls, sports balls, ball games and baseball bats.",
    "Cell phones, mobile phones, a phone, smartphones and a telephone booth.",
    "A potted plant, potted plants, plants and a flower pot.",
    "Dining tables, a dining room, coffee tables and a table top.",
    "A stove top oven, a stove top, an oven and stoves.",
    "A laptop computer, laptops, computers and a computer mouse with mice.",
    "Knives, forks, spoons, knive, glasses, skis, scissors and buses.",
    "People, persons, a person, children, a child, kids, ladies and policemen.",
    "Geese, a goose, sheep, oxen, an ox, calves, a calf, wolves and puppies.",
    "TVs, a T.V., televisions, a tv set, monitors and a screen.",
    "Hair driers, a hair dryer, hairdryers and a toothbrush.",
    "Motor bikes, motorcycles, a motor cycle, bikes and a bicycle.",
    "Air planes, airplanes, planes, aeroplanes and a jetliner.",
    "Remote controls, a remote, a keyboard, key boards and a computer keyboard.",
    "Donuts, doughnuts, cakes, a cup cake, cupcakes, cup and cake.",
    "An orange cat holds an orange orange; a mouse clicks a mouse.",
    "Ducks, a duck-shaped boat, sailboats and a sail boat.",
    "Baby baby bird. Adult adult dog. Baby adult horse.",
    "hot dog dog hot dog hot hot dog",
    "Café tables, naïve dogs, 3 cats, “two” birds — a cow… and a sheep’s bell.",
    "狗 and a dog. Собака и cat. 🐶🐱 two 🐘 elephants.",
    "dog.cat,bird;cow:sheep/horse(zebra)[bear]{giraffe}",
    "dog\ncat\tbird\r\ncow\u00a0sheep\u2003horse",
    "Assistant: A dog. Assistant: A cat.",
    "The suit case, suitcases, a suit and a case of bottles.",
    "A street light, streetlights, stop lights, lights and a light.",
    "A refrigerator, a freezer, fridge doors, sinks and a sink.",
    "Nothing that COCO knows: clouds, walls, grass, sky.",
    "It isn't a dog, can't be cats, won't be the bird's.",
)

DEGENERATE = ("", "   ", "dog", "Dogs.", "a red dog", "No.", "Assistant:", "dog " * 2000, "\u200b", "....", "a")

REPLIES = (
    '["dog", "cat"]', "[]", "()", "[ ]", '[""]', ' ["dog"] \n', '\n\n["dog"]\n\n', '["dog",]', '["dog" "cat"]',
    "['dog']",
    '["dog"', '"dog"]', "dog, cat", "", "null", '"dog"', "3", "true", '{"objects": ["dog"]}', '[["dog"]]',
    '["dog", 3]',
    '["dog", null]', '[{"name": "dog"}]', 'The objects are:\n["dog"]', 'The objects are: ["dog"]',
    '["dog"]\nThat is all.',
    '["dog"]\n["cat"]', 'Objects:\n["dog",\n "cat"]', '[\n  "dog",\n  "cat"\n]', '```json\n["dog"]\n```',
    '```\n["dog"]```',
    'Sure!\n\n["dog"]', 'Sure! [1] says:\n["dog"]', "[\u201cdog\u201d]", '["h\\u00fct"]', '["h\u00fct"]',
    '["dog\\"s"]',
    '["a", "b", "c", "d"]', '["dog"] ["cat"]', 'Here: []', 'Here:\n[]', 'Empty JSON list ()', '[object_1, object_2]',
    '1. ["dog"]', '- dog\n- cat', '["dog"].', 'x = ["dog"]', '\ufeff["dog"]', '["dog"]\n\n', '["DOG", "Cat"]',
    '["dog"]//',
    '[1, 2]', '["dog"]\r\n', 'A: ["x"]\r\n["dog"]', 'Objects ["x"]\n \t["dog", "cat"]  ', '[["dog"], ["cat"]]',
    '["two hot dogs", "the toilet seat"]', '["dog"],', '{"dog": 1, "cat": 2}',
)  # fmt: skip

PHRASES = ("{}", "large brown {}s")


def terms(synonyms: str) -> list[list[str]]:
    """The terms of each line of the synonym file."""
    return [[term.strip() for term in line.split(", ")] for line in synonyms.splitlines()]


def texts_of_terms(synonyms: str) -> list[str]:
    """Texts around every term of the synonym file, kind by kind."""
    flat = [term for line in terms(synonyms) for term in line]
    around = [kind.format(term) for kind in KINDS for term in flat]
    return around + [f"{first} {second}" for first, second in zip(flat, flat[1:] + flat[:1], strict=True)]


def phrases(synonyms: str) -> list[str]:
    """Objects as an LLM may list them: each class and each term of two words, in several forms."""
    flat = [term for line in terms(synonyms) for n, term in enumerate(line) if n == 0 or " " in term]
    return [phrase.format(term) for phrase in PHRASES for term in dict.fromkeys(flat)]


def listed_objects(prompt: str) -> str:
    """The reply of a made-up extractor: the parts of the answer as a JSON list."""
    answer = prompt.split("[Start of Examiner's Answer]")[1].split("[End of Examiner's Answer]")[0]
    parts = [part.strip() for part in re.split(r"[,;.\n]| and ", answer)]
    return json.dumps([part for part in parts if part][:12])


def write_answers(folder: Path, synonyms: str) -> None:
    """Write answers.jsonl about one image each, and COCO annotations of these images, into a folder."""
    answers = [*SENTENCES, *DEGENERATE]
    rows = [
        {"image_id": number, "question": f"Question {number}?", "text": text} for number, text in enumerate(answers, 1)
    ]
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    names = [line[0] for line in terms(synonyms)]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    (folder / "annotations").mkdir()
    for part, of_part in (("train", 0), ("val", 1)):
        images = [{"id": row["image_id"]} for row in rows if int(row["image_id"]) % 2 == of_part]
        shared = {"info": {}, "licenses": [], "images": images}
        instances = [
            {"image_id": image["id"], "category_id": 1 + (7 * int(image["id"]) + step) % len(names)}
            for image in images
            for step in range(9)
        ]
        captions = [
            {"image_id": image["id"], "caption": SENTENCES[(int(image["id"]) * 3 + 5) % len(SENTENCES)]}
            for image in images
        ]
        for kind, entries in (("instances", instances), ("captions", captions)):
            document = shared | {"annotations": entries}
            document |= {"categories": categories} if kind == "instances" else {}
            (folder / "annotations" / f"{kind}_{part}2014.json").write_text(json.dumps(document), encoding="utf-8")


class _Chat:
    def __init__(self, **_: Any) -> None:
        pass

    def chat_completion(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        usage = dict.fromkeys(("total_tokens", "prompt_tokens", "completion_tokens"), 0)
        reply = listed_objects(messages[-1]["content"])
        return {"model": "made-up", "usage": usage, "choices": [{"message": {"content": reply}}]}


def _authors(folder: Path, spacy_model: str) -> types.ModuleType:
    """The authors' script as a module, with a made-up LLM and another spaCy model."""
    import spacy

    nlp = spacy.load(spacy_model)
    spacy.load = lambda *_: nlp
    sys.modules["gpt4_grpc"] = types.ModuleType("gpt4_grpc")
    sys.modules["gpt4_grpc"].Chat = _Chat  # type: ignore[attr-defined]
    sys.modules["jsonlines"] = types.ModuleType("jsonlines")
    sys.modules["jsonlines"].Reader = lambda stream: map(json.loads, stream)  # type: ignore[attr-defined]
    module = types.ModuleType("authors")
    exec(compile((folder / "eval/eval_gpt_obj_halbench.py").read_text(), "authors", "exec"), module.__dict__)
    module.time.sleep = lambda _: None
    return module


def _read(authors: Any, reply: str) -> Any:
    try:
        return authors.parse_object_list(reply)
    except ValueError:
        return "asked again"


def main(folder: Path, spacy_model: str) -> None:
    """Write the replay to standard output."""
    model = str(Path(spacy_model).resolve()) if Path(spacy_model).is_dir() else spacy_model
    synonyms = (folder / "eval/data/synonyms_refine.txt").read_text(encoding="utf-8")
    lines = {line[0]: number for number, line in reversed(list(enumerate(terms(synonyms))))}
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(sys.stderr):
        data = Path(temporary)
        write_answers(data, synonyms)
        os.chdir(folder)
        authors = _authors(Path(), model)
        images = {json.loads(line)["image_id"] for line in (data / "answers.jsonl").read_text().splitlines()}
        chair = authors.CHAIR(images, str(data / "annotations"), "")
        chair.get_annotations()

        def numbers(node_words: list[list[str]]) -> str:
            return " ".join(str(lines[word[-1]]) for word in node_words)

        def of_object(phrase: str) -> str:
            (item,) = chair.get_pred_objs_match([{"extract_objs": [phrase]}])
            return numbers(chair.caption_objects_to_coco_objects(item["objs"])[1])

        answers = str(data / "answers.jsonl")
        words, listed = (chair.compute_chair(answers, -1, gpt_process=gpt)["overall_metrics"] for gpt in (False, True))
        replay = {
            "texts": ";".join(numbers(chair.caption_to_words(text)[1]) for text in texts_of_terms(synonyms)),
            "sentences": [numbers(chair.caption_to_words(text)[1]) for text in SENTENCES],
            "phrases": ";".join(of_object(phrase) for phrase in phrases(synonyms)),
            "replies": [_read(authors, reply) for reply in REPLIES],
            "words": {name: value for name, value in words.items() if "gpt" not in name},
            "listed": {name: value for name, value in listed.items() if "gpt" not in name},
        }
    print(json.dumps(replay, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
