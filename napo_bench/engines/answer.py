"""An answer of a model, and what is kept beside it."""

from __future__ import annotations

from typing import Self

from napo_bench.core.thoughts import DEFAULT_MARKS, NEVER_ENDS, Marks, split_thoughts


class ModelAnswer(str):
    """The text that is scored. A string, because lmms-eval hands answers on as strings.

    Attributes:
        thoughts: What the model wrote before its answer, with the marks; "" if nothing.
        unanswered: Why there is no answer; "" if there is one.
    """

    thoughts: str
    unanswered: str

    def __new__(cls, text: str, thoughts: str = "", unanswered: str = "") -> Self:
        """See the class."""
        answer = super().__new__(cls, text)
        answer.thoughts = thoughts
        answer.unanswered = unanswered
        return answer

    @classmethod
    def of(cls, raw: str, marks: Marks = DEFAULT_MARKS) -> Self:
        """The answer in a model's text."""
        thoughts, text = split_thoughts(raw, marks)
        return cls("", thoughts, NEVER_ENDS) if text is None else cls(text, thoughts)

    def beside(self) -> dict[str, str]:
        """The fields that a response row gets beside the official ones."""
        fields = {"thoughts": self.thoughts, "unanswered": self.unanswered}
        return {name: value for name, value in fields.items() if value}
