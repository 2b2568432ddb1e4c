"""Run VLind-Bench's own scorer, and write what it says for `tests/benchmarks/test_vlind_replay.py`.

    python scripts/replay_vlind.py VLIND-BENCH > tests/benchmarks/vlind_replay.json

VLIND-BENCH is a checkout of klee972/VLind-Bench. The test makes the same instances and answers as this script.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import random
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

STYLES = ("all", "photorealistic", "illustration", "cartoon")
CONCEPTS = ("climate", "color", "diet", "history", "size")

_PLAIN = ("True", "False")
_ODD = (
    "True.", "False.", "TRUE", "false", "tRuE", "True,", "False!", "'True'", '"False"', "**True**", "`False`",
    "(True)",
    "True:", "True;", "true/false", "True or False", "False, not True", "True. False.", "True.False", "False,True",
    "untrue", "truefalse", "falsely", "Trues", "true-ish", "not true", "It is not false.", "Answer: True",
    "Answer:False",
    "The statement is true.", "The statement is false because the bear is blue.", "Yes", "No", "N/A", "", " ", "\n",
    "...",
    "True\n", "\nFalse", "True\nFalse", "True\tFalse", "\tTrue", "True\r\nFalse", "\r\nFalse", "True\u00a0",
    "\u00a0False",
    "True\u2003now", "\u200bTrue", "True\u200b", "\uff34rue", "Tru e", "T r u e", "真", "Wahr", "faux", "vrai",
    "истина",
    "tr,ue", "f.alse", "t.r.u.e.", ",,,true,,,", "...false...", ".true", "true.", "1", "0", "T", "F", "true" * 40,
    "I cannot tell.", "</s>True", "True</s>", "<s> False", "ASSISTANT: True", "Statement: True", "TRUE!!!",
    "FALSE???",
    "true,false", "true, false", "false true", "Neither true nor false.", "It's true", "İs true", "True—because",
    "True – because", "False…", "False ...", "true.\nfalse.", "a true\u2028b", "true\x0bfalse", "\x0ctrue",
    "true\x00",
)  # fmt: skip
_BEFORE = ("", "I think ", "Well, ", "Based on the image, the answer is ", "No. ", "**Answer:** ", "\n\n", "- ")
_AFTER = ("", ".", ", clearly.", " because it shows snow.", "\nFalse", " Only respond in True or False.", "!", "?")


def odd_answers() -> list[str]:
    """300 answers: each odd form alone, then forms within other text."""
    rng = random.Random("odd answers")
    answers = list(dict.fromkeys((*_PLAIN, *_ODD)))
    while len(answers) < 300:
        answer = rng.choice(_BEFORE) + rng.choice((*_PLAIN, *_ODD)) + rng.choice(_AFTER)
        if answer not in answers:
            answers.append(answer)
    return answers


def instances() -> list[dict[str, Any]]:
    """Rows of data.json: with good images of every style, of some, and of none."""
    rng = random.Random("instances")
    rows = []
    for concept in CONCEPTS:
        for number in range(14):
            ids = [str(image) for image in range(12)]
            rng.shuffle(ids)
            styles = rng.choice(((0, 4, 8), (0,), (4, 8), (8,), ()))
            votes = {i: rng.choice((0, 1, 2, 3) if int(i) // 4 * 4 in styles else (0, 1)) for i in ids}
            rows.append(
                {
                    "concept": concept,
                    "context_id": number,
                    "context": f"Context {number}.",
                    "factual_context": f"Fact {number}.",
                    "true_statement": "It is so.",
                    "false_statement": "It is not so.",
                    "existent_noun": "a cat",
                    "non-existent_noun": "a dog",
                    "best_img_id": rng.choice(ids),
                    "aggregated_human_label_good_images": votes,
                }
            )
    return rows


def answer(concept: str, context_id: int | str, test: str, statement: int, image: str) -> str:
    """The made-up answer to a question. No instance of `history` passes CK, and few of `size` pass VP."""
    rng = random.Random(f"{concept}/{context_id}/{test}/{statement}/{image}")
    right = "True" if statement == 1 else "False"
    if (concept, test, statement) == ("history", "ck", 2):
        return "Both are true."
    chance = 0.3 if (concept, test) == ("size", "vp") else 0.85
    return f"{right}." if rng.random() < chance else rng.choice(_ODD)


def good(row: dict[str, Any]) -> list[str]:
    """The image ids with two votes or more."""
    return [image for image, count in row["aggregated_human_label_good_images"].items() if count >= 2]


def _parser(path: Path) -> Any:
    """The authors' reading of an answer, out of a script that needs a key."""
    tree = ast.parse(path.read_text())
    (function,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "infer_true_or_false"
    )
    names: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), str(path), "exec"), names)
    return names["infer_true_or_false"]


def _answered(row: dict[str, Any], parse: Any) -> dict[str, Any]:
    """A row with answers, as the authors' scripts write it."""

    def given(test: str, image: str, statement: int) -> dict[str, str]:
        text = answer(row["concept"], row["context_id"], test, statement, image)
        return {"response": text, "answer": parse(text)}

    best = row["best_img_id"]
    single = {"a{}_image": ("ck", "0"), "b{}": ("vp", best), "c{}_image": ("cb", best)}
    found = {
        f"made_up_pred_{name.format(n)}": given(test, image, n)
        for name, (test, image) in single.items()
        for n in (1, 2)
    }
    lp = {f"made_up_pred_d{n}": {image: given("lp", image, n) for image in good(row)} for n in (1, 2)}
    return row | (found | lp if good(row) else {})


def main(folder: Path) -> None:
    """Write the replay to standard output."""
    parse = _parser(folder / "eval" / "gpt4o_eval.py")
    replay: dict[str, Any] = {"answers": [parse(text) for text in odd_answers()], "scores": {}}
    with tempfile.TemporaryDirectory() as temporary:
        predictions = Path(temporary) / "predictions.json"
        predictions.write_text(json.dumps([_answered(row, parse) for row in instances()]))
        for style in STYLES:
            sys.argv = ["score_pipeline.py", "-dp", str(predictions), "-mid", "made_up", "-st", style]
            with contextlib.redirect_stdout(io.StringIO()):
                names = runpy.run_path(str(folder / "eval" / "score_pipeline.py"))
            replay["scores"][style] = {
                group: {
                    "ck": scores["a_pass_ratio"],
                    "vp": scores["b_pass_ratio"],
                    "cb": scores["c_pass_ratio"],
                    "lp": scores["d_pass_ratio_macro"],
                    "cb_accuracy": scores["c"] / names["concept2num_instance"][group],
                    "lp_accuracy": scores["d_macro"] / names["concept2num_instance"][group],
                }
                for group, scores in names["concept2scores"].items()
            }
    print(json.dumps(replay, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
