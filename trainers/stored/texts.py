"""Columns of texts: which texts show nothing, which are equal, and which contain a token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from napo_bench.models.conversation import Markup, any_of

# Characters that show nothing: spaces, controls, zero-width characters, blank letters, variation selectors.
_BLANK = r"[\p{Z}\p{C}\x{115F}\x{1160}\x{2800}\x{3164}\x{FE00}-\x{FE0F}]+"


def without_markup(texts: pa.ChunkedArray, markup: Markup) -> Any:
    """The texts without placeholders and control tokens."""
    return pc.replace_substring_regex(texts, any_of((*markup.placeholders, *markup.controls)), "")


def visible(texts: pa.ChunkedArray, markup: Markup) -> Any:
    """The texts without markup and without invisible characters."""
    return pc.replace_substring_regex(without_markup(texts, markup), _BLANK, "")


def are_empty(texts: Any) -> NDArray[np.bool_]:
    """Which texts are null or only white space."""
    length = pc.utf8_length(pc.utf8_trim_whitespace(texts))
    return np.asarray(pc.fill_null(pc.equal(length, 0), True))


def are_equal(texts: Any, others: Any) -> NDArray[np.bool_]:
    """Which texts equal the text at the same place; a null equals nothing."""
    return np.asarray(pc.fill_null(pc.equal(texts, others), False))


def contain(columns: Iterable[pa.ChunkedArray], rows: int, strings: Iterable[str]) -> NDArray[np.bool_]:
    """Which rows contain one of the strings in one of the columns.

    Args:
        columns: Columns of texts.
        rows: Number of rows.
        strings: The strings.
    """
    found = np.zeros(rows, dtype=np.bool_)
    if pattern := any_of(strings):
        for texts in columns:
            found |= np.asarray(pc.fill_null(pc.match_substring_regex(texts, pattern), False))
    return found
