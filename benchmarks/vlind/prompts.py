"""VLind-Bench's questions about an instance: four tests, each with a statement that is True and a statement that is
False.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from napo_bench.benchmarks.vlind.instance import BEST_IMG_ID, Instance, Picture
from napo_bench.benchmarks.vlind.official import FACTUAL_IMAGE, AnswerKey

_ANSWER_FORM = "Only respond in True or False."


@dataclass(frozen=True)
class Statement:
    """One question: the key of its answer, the prompt, and the image."""

    key: AnswerKey
    prompt: str
    picture: Picture

    @property
    def expected(self) -> str:
        """The right answer."""
        return "True" if self.key.statement == 1 else "False"


def commonsense_prompt(statement: str) -> str:
    """The prompt of the test CK."""
    return f"Statement: {statement}\nBased on common sense, is the given statement true or false? {_ANSWER_FORM}"


def image_prompt(statement: str, forget: bool = False) -> str:
    """The prompt of the test VP. With `forget` the prompt of the test LP, which says to ignore common sense."""
    return (
        f"Statement: {statement}\nBased on the image, is the given statement true or false? "
        f"{_forget('image') if forget else ''}{_ANSWER_FORM}"
    )


def context_prompt(context: str, statement: str) -> str:
    """The prompt of the test CB."""
    return (
        f"Context: {context}\nStatement: {statement}\nBased on the context, is the given statement true or false? "
        f"{_forget('context')}{_ANSWER_FORM}"
    )


def presence_statement(noun: str) -> str:
    """The statement of the test VP."""
    return f"There is {noun} in the given image."


def statements(instance: Instance, rule: str = BEST_IMG_ID) -> Iterator[Statement]:
    """The questions of an instance, in the order CK, VP, CB, LP; statement 1 before statement 2.

    Args:
        instance: The instance.
        rule: How the image of VP and CB is chosen, of `instance.RULES`.
    """
    true, false = instance.true_statement, instance.false_statement
    nouns = instance.existent_noun, instance.non_existent_noun
    best = instance.best_images[rule]

    def pair(test: str, image: str, first: str, second: str) -> Iterator[Statement]:
        picture = instance.factual if test == "ck" else instance.counterfactual[image]
        for statement, prompt in ((1, first), (2, second)):
            yield Statement(AnswerKey(instance.concept, instance.context_id, test, statement, image), prompt, picture)

    yield from pair("ck", FACTUAL_IMAGE, commonsense_prompt(false), commonsense_prompt(true))
    yield from pair("vp", best, *(image_prompt(presence_statement(noun)) for noun in nouns))
    yield from pair("cb", best, *(context_prompt(instance.context, statement) for statement in (true, false)))
    for image in instance.good_images:
        yield from pair("lp", image, *(image_prompt(statement, forget=True) for statement in (true, false)))


def _forget(source: str) -> str:
    return f"Forget real-world common sense and just follow the information provided in the {source}. "
