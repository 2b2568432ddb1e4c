"""The text of a model, and the answer in the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from napo_bench.core.thoughts import DEFAULT_MARKS, NEVER_ENDS, Marks, split_thoughts

FINGERPRINT = "fingerprint"
"""Setting of a judge or an extractor with the system fingerprints that its endpoint reported."""

CUT_OFF = "cut off at the token limit before an answer"


@dataclass(frozen=True)
class Completion:
    """The output of a model, as a journal stores it.

    Attributes:
        text: Text of the model; may be empty.
        model: The model's name as an endpoint reported it, else "".
        prompt_tokens: Number of tokens as an endpoint reported it, else 0.
        completion_tokens: Number of tokens as an endpoint reported it, else 0.
        cut_off: Whether the text ends at the token limit; None if this is unknown.
        thoughts: Thoughts that an endpoint sent apart from the text.
        request: Fields that an endpoint got beside model and messages.
        refused: Reason why an endpoint refuses the prompt; "" if the endpoint answers the prompt.
        fingerprint: System fingerprint of the endpoint's backend, else "".
        thought_tokens: Number of tokens of the thoughts as an endpoint reported it; None if it is unknown.
    """

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    cut_off: bool | None = None
    thoughts: str = ""
    request: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    fingerprint: str = ""
    thought_tokens: int | None = None

    @classmethod
    def of(cls, text: str, cut_off: bool | None = None) -> Self:
        """The output of a local model."""
        return cls(text, "", 0, 0, cut_off)


class ModelAnswer(str):
    """The text that is scored. The class is a string, because lmms-eval passes answers as strings.

    Attributes:
        thoughts: Text before the answer, with the marks; "" if there is none.
        unanswered: Reason why there is no answer; "" if there is an answer.
        cut_off: Whether the answer ends at the token limit; None if this is unknown.
        thought_tokens: Number of tokens of the thoughts; None if it is unknown.
        reported_model: Name of the model as an endpoint reported it; "" for a model in this process.
        fingerprint: System fingerprint of the endpoint's backend, else "".
    """

    reported_model: str = ""
    fingerprint: str = ""
    thoughts: str
    unanswered: str
    cut_off: bool | None
    thought_tokens: int | None

    def __new__(
        cls,
        text: str,
        thoughts: str = "",
        unanswered: str = "",
        cut_off: bool | None = None,
        thought_tokens: int | None = None,
    ) -> Self:
        """See the class."""
        answer = super().__new__(cls, text)
        answer.thoughts = thoughts
        answer.unanswered = unanswered
        answer.cut_off = cut_off
        answer.thought_tokens = thought_tokens
        return answer

    @classmethod
    def of(cls, raw: str, marks: Marks = DEFAULT_MARKS) -> Self:
        """The answer in a model's text."""
        thoughts, text = split_thoughts(raw, marks)
        return cls("", thoughts, NEVER_ENDS) if text is None else cls(text, thoughts)

    def beside(self) -> dict[str, str | int]:
        """The fields that a response row gets beside the official fields."""
        fields: dict[str, str | int] = {"thoughts": self.thoughts, "unanswered": self.unanswered}
        fields["thought_tokens"] = self.thought_tokens or 0
        known = {} if self.cut_off is None else {"cut_off": self.cut_off}
        return {name: value for name, value in fields.items() if value} | known
