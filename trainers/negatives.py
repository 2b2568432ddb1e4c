"""The kinds of negative response: each name, column and tag is written here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

CHOSEN = "chosen"
"""Column, response and tag of the response that every negative is compared with."""


@dataclass(frozen=True)
class Negative:
    """A kind of negative response.

    Attributes:
        name: Word for the kind in a recipe's keys (`loss_language`) and in messages.
        column: Column of the preference rows with the response.
        tag: Word for the kind in the names of logged values (`loss/lang`).
        biased: Whether the base model writes the response from one modality alone; False for the negative of the
            original pair.
    """

    name: str
    column: str
    tag: str
    biased: bool = True

    @property
    def label(self) -> str:
        """The kind in a figure's legend."""
        return f"{self.name}-biased" if self.biased else "original pairs"

    @property
    def suffix(self) -> str:
        """The end of the names of logged margins: `rewards/margins_lang`; "" for the original pair, as in TRL."""
        return f"_{self.tag}" if self.biased else ""


REJECTED = Negative("rejected", column="rejected", tag="rejected", biased=False)
LANGUAGE = Negative("language", column="question_only", tag="lang")
VISION = Negative("vision", column="image_only", tag="vis")

NEGATIVES = {negative.name: negative for negative in (REJECTED, LANGUAGE, VISION)}
"""Name -> kind of negative, in the order of the objective's terms and of a row's responses."""

BIASED = {name: negative for name, negative in NEGATIVES.items() if negative.biased}
"""The kinds that `napo-bench data build-bias` adds to rows."""


def column_of(response: str) -> str:
    """The column of a response: "chosen", or the name of a negative."""
    return CHOSEN if response == CHOSEN else NEGATIVES[response].column
