"""Run MMHal-Bench's evaluator, and write what it says for `tests/benchmarks/test_mmhal_replay.py`.

    python scripts/replay_mmhal.py RLHF-V > tests/benchmarks/mmhal_replay.json

RLHF-V is a checkout of RLHF-V/RLHF-V. Its `eval/summarize_gpt_mmhal_review.py` reads ratings as the evaluator of
MMHal-Bench's authors does (`MMHal-Bench-eval/eval_gpt4.py` of llava-rlhf/LLaVA-RLHF), and its
`eval/change_mmhal_predict_template.py` fills the template. The test makes the same replies as this script.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import runpy
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

QUESTIONS = 96
REPLIES = 200

_RATINGS = (
    "Rating: {}", "rating: {}", "RATING: {}", "RaTiNg: {}", "Rating: {}.", "Rating: {},", "Rating: {}/6",
    "Rating: {}.5", "Rating: {}0", "Rating: 0{}", "Rating: -{}", "Rating: +{}", "Rating:{}", "Rating:  {}",
    "Rating : {}", "Rating:\n{}", "Rating:\t{}", "Rating:\u00a0{}", "Rating: \u200b{}", "**Rating**: {}",
    "**Rating:** {}", "**Rating: {}**", "*Rating: {}*", "`Rating: {}`", "# Rating: {}", "- Rating: {}",
    "Rating: **{}**", "Rating: [{}]", "Rating: ({})", "Rating: '{}'", 'Rating: "{}"', '{{"rating": {}}}',
    "{{'Rating: {}'}}", "rating={}", "Rating - {}", "Rating is {}", "My rating: {}", "Overall rating: {}",
    "Final Rating: {}", "operating: {}", "berating: {}", "Score: {}", "{}", "{}/6", "I rate it {}", "Rating\uff1a {}",
    "Rating: \uff10{}", "RAT\u0130NG: {}", "\u0158ating: {}", "Rating: {}, very informative, no hallucination",
    "Rating: {} (somewhat informative, with hallucination)", "Rating: {} out of 6", "Rating: {}\nRating: {}",
    "Rating: {}, so rating: {}", "评分: {}", "Rating: {}\x00",
)  # fmt: skip
_ODD = (
    "", " ", "\n", "Rating:", "Rating: ", "Rating: six", "Rating: N/A", "Rating: 7", "Rating: 8", "Rating: 9",
    "Rating: x", "Rating: 10", "Rating: 16", "Rating: 3-4", "Rating: 3 or 4", "Rating: 3 or Rating: 4",
    "Rating: 1 2 3", "Rating: 0, Rating: 1, Rating: 2, Rating: 3, Rating: 4, Rating: 5, Rating: 6",
    "Rating: 4. Not Rating: 5.", "Rating: 4. Again: rating: 4. RATING: 4", "The rating: is 5", "Rating: ⑤",
    "Rating: ５", "Rating: V", "I cannot rate this.", "<think>Rating: 3</think>", "Rating: 6" * 500,
    "word " * 2000 + "Rating: 2",
)  # fmt: skip
_BEFORE = (
    "",
    "The answer is right.\n\n",
    "Analysis: no object is made up. ",
    "Hallucination: Yes. ",
    "Explanation: it says 3 cats, there are 2.\n",
    "- Rating: 6, very informative with good analysis or reasoning, no hallucination\n",
    "## Evaluation\n\n",
)
_AFTER = (
    "",
    "\n",
    " Hallucination: No.",
    "\n\nThe human's answer says 5.",
    " (Rating: 7)",
    "\n- Rating: 0, not informative",
)


def replies() -> list[str]:
    """200 replies of a judge: each odd form alone, then forms within other text."""
    rng = random.Random("replies")
    found = list(dict.fromkeys((*_ODD, *(form.format(*[rng.randrange(7)] * 2) for form in _RATINGS))))
    while len(found) < REPLIES:
        reply = rng.choice(_BEFORE) + rng.choice(_RATINGS).format(*[rng.randrange(7)] * 2) + rng.choice(_AFTER)
        if reply not in found:
            found.append(reply)
    return found


def runs() -> dict[str, list[str]]:
    """Name -> the replies to the 96 questions."""
    rng = random.Random("runs")
    plain = [f"Fine.\nRating: {rng.randrange(7)}, as it is." for _ in range(QUESTIONS)]
    return {
        "plain": plain,
        "four without a rating": ["None.", *plain[1:40], "Rating: 7", "", *plain[42:95], "Rating: 1 or rating: 2"],
        "all 3": ["Rating: 3"] * QUESTIONS,
        "all 2": ["rating: 2"] * QUESTIONS,
        "all 0": ["RATING: 0"] * QUESTIONS,
        "all 6": ["Rating: 6"] * QUESTIONS,
        "one type": ["Rating: 5" if index % 8 == 3 else "Rating: 1" for index in range(QUESTIONS)],
    }


def answers() -> list[str]:
    """Answers of a model, as it writes them."""
    return [
        "Yellow.", " Yellow. ", "\nYellow.\n", "Assistant: Yellow.", "ASSISTANT: Yellow.", "Yellow. Assistant: Or red.",
        "Assistant:Assistant: Yellow", "", "Assistant:", "assistant: Yellow", "{} {0} {{}}", "Ye\tllow", "黄色。",
    ]  # fmt: skip


def _said(text: str) -> dict[str, Any]:
    """The numbers that the evaluator prints."""
    found = {
        name: float(re.search(rf"^{line}: (.*)$", text, re.MULTILINE)[1])  # type: ignore[index]
        for name, line in (
            ("score", "Average score"),
            ("hal_rate", "Hallucination rate"),
            ("informativeness", "Informativeness"),
        )
    }
    types_line = re.search(r"^Average score for each question type: (.*)$", text, re.MULTILINE)
    return found | {"types": [float(value) for value in types_line[1].split(",")]}  # type: ignore[index]


def main(folder: Path) -> None:
    """Write the replay to standard output."""
    sys.modules.setdefault("jsonlines", types.ModuleType("jsonlines"))  # which the functions below do not use
    names = runpy.run_path(str(folder / "eval" / "summarize_gpt_mmhal_review.py"))
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "evaluation.json"

        def said(texts: list[str]) -> tuple[dict[str, Any], bool]:
            file.write_text(json.dumps([{"choices": [{"message": {"content": text}}]} for text in texts]))
            with contextlib.redirect_stdout(io.StringIO()) as output:
                names["cal_informative"](file)
                names["cal_mmhalscore"](file)
            return _said(output.getvalue()), "Warning: multiple or zero scores" in output.getvalue()

        ratings: list[int | None] = []
        for reply in replies():
            numbers, warned = said([reply] * QUESTIONS)
            ratings.append(None if warned else int(numbers["score"]))
        replay = {
            "ratings": ratings,
            "runs": {name: said(texts)[0] for name, texts in runs().items()},
            "answers": _filled(folder, Path(temporary)),
        }
    print(json.dumps(replay))


def _filled(folder: Path, temporary: Path) -> list[str]:
    """`model_answer` of a template that RLHF-V's script fills with the answers."""
    reader = types.ModuleType("jsonlines")
    reader.Reader = lambda stream: map(json.loads, stream)  # type: ignore[attr-defined]
    sys.modules["jsonlines"] = reader
    template, given, saved = (temporary / name for name in ("template.json", "answers.jsonl", "saved.json"))
    template.write_text(json.dumps([{} for _ in answers()]))
    given.write_text("".join(json.dumps({"text": text}) + "\n" for text in answers()))
    sys.argv = ["", "--response-template", str(template), "--answers-file", str(given), "--save-file", str(saved)]
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(str(folder / "eval" / "change_mmhal_predict_template.py"), run_name="__main__")
    return [row["model_answer"] for row in json.loads(saved.read_text())]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
