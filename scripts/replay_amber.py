"""Run AMBER's own script, and write what it prints for `tests/benchmarks/test_amber_replay.py`.

    python scripts/replay_amber.py AMBER SPACY-MODEL > tests/benchmarks/amber_replay.json

AMBER is a checkout of junyangwang0410/AMBER. SPACY-MODEL takes the place of en_core_web_lg. The test makes the same
responses as this script. spaCy's parses of single words are kept, because the script parses each word thousands of
times.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import random
import sys
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DESCRIPTIONS = 1004
QUESTIONS = 15220
_METRICS = {"CHAIR": "chair", "Cover": "cover", "Hal": "hal", "Cog": "cog"}
_GROUPS = {
    "Descriminative Task": "all",
    "Exsitence": "existence",
    "Attribute": "attribute",
    "State": "state",
    "Number": "number",
    "Action": "action",
    "Relation": "relation",
}
"""Heading of a group as the script prints it -> the group's name in napo-bench."""

Rows = list[dict[str, Any]]


def _words(annotation: Mapping[str, Any], name: str) -> list[str]:
    return list(annotation[name])


def descriptions(annotations: list[dict[str, Any]], associates: Mapping[str, list[str]]) -> dict[str, Rows]:
    """Degenerate descriptions: name of a case -> its response rows.

    Args:
        annotations: annotations.json.
        associates: relation.json.
    """
    rng = random.Random("descriptions")
    vocabulary = sorted(set(associates).union(*associates.values()))
    # Images with a word twice among the truth or the hallucinations, and others.
    twice = [
        row["id"]
        for row in annotations[:DESCRIPTIONS]
        if any(len(set(row[name])) < len(row[name]) for name in ("truth", "hallu"))
    ]
    ids = sorted({1, 2, 500, DESCRIPTIONS, *twice[:8], *rng.sample(range(1, DESCRIPTIONS), 6)})

    def every(text: Any) -> Rows:
        return [{"id": number, "response": text(annotations[number - 1])} for number in ids]

    def sentence(words: list[str]) -> str:
        return f"The image shows a {', a '.join(words)}."

    def plural(word: str) -> str:
        return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")

    def shuffled(annotation: Mapping[str, Any], count: int) -> list[str]:
        own = random.Random(f"words of {annotation['id']}")
        some = own.sample(vocabulary, 12) + _words(annotation, "truth") + _words(annotation, "hallu")
        return [own.choice(some) for _ in range(count)]

    fixed = {
        "empty": "",
        "blank": " \n\t ",
        "full stop": ".",
        "dots": "... ... ...",
        "one word": "sky",
        "one capital": "Sky",
        "yes": "Yes",
        "no vocabulary": "Quarks permeate spacetime.",
        "safe words": "An orange light, a sign, a line, a camera and a shoe.",
        "numbers": "1 2 3 4,5 6.7 100% $8",
        "markup": "<b>sky</b> **tree** `dog` [car](person) # table",
        "glued": "sky.tree,dog;car/person|table sky-tree dog_car",
        "possessive": "The dog's tail, the man's hat, the trees' leaves.",
        "apostrophes": "It’s the dog’s “tree” — isn't it?",
        "hyphens": "a teddy-bear, a T-shirt, a tennis-court",
        "accents": "un café, une forêt, ein Käse, naïve dogs",
        "cjk": "图片里有一只狗和一棵树。空に雲がある。",
        "emoji": "🐶 dog 🌳 tree 🚗",
        "zero width": "do\u200bg \u200btree\u200b s\u00adky",
        "full width": "ｄｏｇ ａｎｄ ｔｒｅｅ",
        "combining": "do\u0301g tre\u0308e",
        "control": "dog\x00tree\x07 sky\x1b[31m",
        "line ends": "dog\r\ntree\rsky\u2028car\u2029person",
        "no spaces": "dogtree" * 700,
        "one letter": "a " * 300,
        "verbs": "To dog, to tree, to sky, to table a man and to fish.",
        "special tokens": "</s> <image> ASSISTANT: dog <pad>",
    }
    cases = {name: every(lambda annotation, text=text: text) for name, text in fixed.items()}
    cases |= {
        "truth": every(lambda annotation: sentence(_words(annotation, "truth"))),
        "hallucinations": every(lambda annotation: sentence(_words(annotation, "hallu"))),
        "both": every(lambda annotation: sentence(_words(annotation, "truth") + _words(annotation, "hallu"))),
        "associates": every(
            lambda annotation: sentence(
                [word for name in ("truth", "hallu") for key in annotation[name] for word in associates[key][:2]]
                or ["thing"]
            )
        ),
        "repeated": every(lambda annotation: f"{annotation['truth'][0]} " * 50),
        "repeated hallucination": every(lambda annotation: f"{(annotation['hallu'] or ['sea'])[0]} " * 50),
        "plural": every(lambda annotation: sentence([plural(word) for word in annotation["truth"]])),
        "capitals": every(lambda annotation: sentence([word.upper() for word in annotation["truth"]])),
        "title": every(lambda annotation: sentence([word.title() for word in annotation["truth"]])),
        "bare list": every(lambda annotation: "\n".join(f"- {word}" for word in annotation["truth"])),
        "random words": every(lambda annotation: sentence(shuffled(annotation, 40))),
        "2000 words": [
            {"id": number, "response": sentence(shuffled(annotations[number - 1], 2000))} for number in ids[:3]
        ],
    }
    return cases


_ODD_ANSWERS = (
    "Yes", "No", "yes", "no", "YES", "NO", "Yes.", "No.", "Yes,", "No!", " Yes", "Yes ", "\nNo", "No\n", "", " ", ".",
    "Yes, it is.", "No, it is not.", "Yes and no", "No No", "Yes Yes", "Nope", "Yeah", "Not", "True", "False", "1", "0",
    "N", "Y", "Y e s", "**Yes**", '"No"', "(Yes)", "Yes\u200b", "\u200bNo", "\uff39\uff45\uff53", "Ｎｏ", "是", "Oui",
    "Да", "yEs", "nO", "Yes</s>", "<s>No", "ASSISTANT: Yes", "Answer: No", "Unknown", "The sky is sunny.",
    "No. Yes.", "Yes\u00a0", "N\u043e", "Yes\x00", "No" * 1000, "word " * 2000,
)  # fmt: skip


def answers(annotations: list[dict[str, Any]]) -> dict[str, Rows]:
    """Answers to yes/no questions: name of a case -> its response rows."""
    rng = random.Random("answers")
    by_type: dict[tuple[str, str], list[int]] = {}
    for row in annotations[DESCRIPTIONS:]:
        by_type.setdefault((row["type"], row["truth"]), []).append(row["id"])
    chosen = [number for numbers in by_type.values() for number in rng.sample(numbers, 60)]

    def given(ids: list[int], draw: Any) -> Rows:
        return [{"id": number, "response": draw(number)} for number in ids]

    cases = {
        "every odd answer": [
            {"id": number, "response": text}
            for numbers in by_type.values()
            for number, text in zip(rng.sample(numbers, len(_ODD_ANSWERS)), _ODD_ANSWERS, strict=True)
        ],
        "plain": given(chosen, lambda number: rng.choice(("Yes", "No"))),
        "mixed": given(chosen, lambda number: rng.choice(("Yes", "No", rng.choice(_ODD_ANSWERS)))),
        "all yes": given(chosen, lambda number: "Yes"),
        "all no": given(chosen, lambda number: "No"),
        "all empty": given(chosen, lambda number: ""),
        "right": given(chosen, lambda number: annotations[number - 1]["truth"].capitalize()),
        "wrong": given(chosen, lambda number: {"yes": "No", "no": "Yes"}[annotations[number - 1]["truth"]]),
    }
    kinds = sorted({kind for kind, _ in by_type})
    cases |= {
        f"only {kind}": given(
            [number for (of, _), numbers in by_type.items() if of == kind for number in rng.sample(numbers, 40)],
            lambda number: rng.choice(("Yes", "No", "no")),
        )
        for kind in kinds
    }
    return cases


def _printed(text: str) -> dict[str, dict[str, float]]:
    """Group -> metric -> value, of what the script prints."""
    found: dict[str, dict[str, float]] = {}
    group = ""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if not colon:
            continue
        if not value.strip():
            group = "descriptions" if name == "Generative Task" else _GROUPS[name]
        else:
            found.setdefault(group, {})[_METRICS.get(name, name.lower())] = float(value)
    return found


def main(folder: Path, model: str) -> None:
    """Write the replay to standard output."""
    import spacy

    load = spacy.load
    spacy.load = lambda name: load(model)
    sys.argv = ["inference.py"]
    script = types.ModuleType("amber_inference")
    exec(compile((folder / "inference.py").read_text(), str(folder / "inference.py"), "exec"), vars(script))
    script.nlp = functools.cache(script.nlp)
    script.tqdm = lambda steps: steps
    data = folder / "data"
    annotations = json.loads((data / "annotations.json").read_text())
    associates = json.loads((data / "relation.json").read_text())
    replay: dict[str, Any] = {"spacy_model": f"{spacy.__version__}, {Path(model).name}"}
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "inference.json"

        def printed(rows: Rows, kind: str) -> dict[str, dict[str, float]]:
            file.write_text(json.dumps(rows))
            script.args = argparse.Namespace(
                word_association=data / "relation.json",
                safe_words=data / "safe_words.txt",
                inference_data=file,
                annotation=data / "annotations.json",
                metrics=data / "metrics.txt",
                similarity_score=0.8,
                evaluation_type=kind,
            )
            with contextlib.redirect_stdout(io.StringIO()) as text:
                script.main(script.args)
            return _printed(text.getvalue())

        replay["descriptions"] = {
            name: printed(rows, "g")["descriptions"] for name, rows in descriptions(annotations, associates).items()
        }
        replay["answers"] = {name: printed(rows, "d") for name, rows in answers(annotations).items()}
    print(json.dumps(replay, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
