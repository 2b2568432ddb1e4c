"""What a model wrote, and the answer in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from napo_bench.core.thoughts import DEFAULT_MARKS, NEVER_ENDS, Marks, split_thoughts

CUT_OFF = "cut off at the token limit before an answer"


@dataclass(frozen=True)
class Completion:
    """What a model wrote, as a journal stores it.

    Attributes:
        text: The text; "" if the model wrote none.
        model: The model's name as an endpoint reported it, else "".
        prompt_tokens: Number of tokens as an endpoint reported it, else 0.
        completion_tokens: Number of tokens as an endpoint reported it, else 0.
        cut_off: Whether the text ends at the token limit.
        thoughts: What an endpoint sent apart from the text.
        request: The fields that an endpoint got beside model and messages.
        refused: Why an endpoint refuses the prompt; "" if the endpoint answers it.
    """

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cut_off: bool = False
    thoughts: str = ""
    request: dict[str, Any] = field(default_factory=dict)
    refused: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """A text that no endpoint sent."""
        return cls(text, "", 0, 0)


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
