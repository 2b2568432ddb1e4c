"""Prompts as tokens and pixels: a batch in which the prompts about one image are the branches of one trunk.

The trunk is what the prompts have in common: the system line, the image, the first words of the questions. A trunk goes
through the model once, and each branch only with the tokens of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from napo_bench.engines.prompt import Prompt
from napo_bench.models.conversation import Conversation

TEXT_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
"""Inputs of a model that are no pixels."""


@dataclass(frozen=True)
class Branches:
    """A batch of R prompts on G trunks. Tokens are padded on the left; a mask is 1 on tokens.

    Attributes:
        order: The number in the batch of each row's prompt, R numbers.
        digests: Digest of the image of each trunk; "" if there is no image.
        trunk_ids: Tokens of the trunks, `[G, T]`.
        trunk_mask: Mask of the trunks, `[G, T]`.
        trunk_of: The trunk of each row, `[R]`.
        branch_ids: Tokens of the branches, `[R, S]`. S is 0 if each prompt is a trunk of its own.
        branch_mask: Mask of the branches, `[R, S]`.
        pixels: The image processor's result for the images of the trunks.
        of_tokens: What else the processor says about each token of the trunks, `[G, T]`: `mm_token_type_ids`.
    """

    order: list[int]
    digests: list[str]
    trunk_ids: Tensor
    trunk_mask: Tensor
    trunk_of: Tensor
    branch_ids: Tensor
    branch_mask: Tensor
    pixels: Mapping[str, Any]
    of_tokens: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def prompt_ids(self) -> Tensor:
        """The tokens of the whole prompts, `[R, T + S]`. Their first token, repeated, is in the place of padding.

        So a penalty for repeated tokens does not depend on the padding.
        """
        ids = torch.cat([self.trunk_ids[self.trunk_of], self.branch_ids], dim=1)
        order = self.prompt_mask.argsort(dim=1, stable=True)
        ids, is_padding = ids.gather(1, order), self.prompt_mask.gather(1, order) == 0
        return torch.where(is_padding, ids.gather(1, is_padding.sum(1, keepdim=True)), ids)

    @property
    def prompt_mask(self) -> Tensor:
        """The mask of the trunk and the branch of each row, `[R, T + S]`."""
        return torch.cat([self.trunk_mask[self.trunk_of], self.branch_mask], dim=1)

    @property
    def tokens(self) -> int:
        """Number of tokens that go through the model."""
        return int(self.trunk_mask.sum() + self.branch_mask.sum())

    def to(self, device: torch.device, dtype: torch.dtype) -> Branches:
        """The same batch on a device. Pixels have the type of the model."""
        moved = {
            name: value.to(device, dtype if value.is_floating_point() else None) if isinstance(value, Tensor) else value
            for name, value in self.pixels.items()
        }
        names = ("trunk_ids", "trunk_mask", "trunk_of", "branch_ids", "branch_mask")
        of_tokens = {name: value.to(device) for name, value in self.of_tokens.items()}
        moved_ids = {name: getattr(self, name).to(device) for name in names}
        return replace(self, pixels=moved, of_tokens=of_tokens, **moved_ids)


class Encoder:
    """Turns prompts into tokens and pixels.

    Args:
        conversation: Conversation of the checkpoint.
        shares: Whether prompts about one image share a trunk in `encode`.

    Attributes:
        shares: See above.
        pad: Token that pads.
        tokenizing: A fast tokenizer that pads in one thread cannot decode in another. This lock is for both.
    """

    def __init__(self, conversation: Conversation, shares: bool) -> None:
        self.shares = shares
        self.pad: int = conversation.processor.tokenizer.pad_token_id
        self.tokenizing = threading.Lock()
        self._conversation = conversation
        self._ids: dict[str, list[int]] = {}

    def encode(self, prompts: Sequence[Prompt]) -> Any:
        """`branches` if prompts share, else `whole`."""
        return self.branches(prompts) if self.shares else self.whole(prompts)

    def whole(self, prompts: Sequence[Prompt]) -> Any:
        """See `Conversation.encode`."""
        images = [prompt.images for prompt in prompts if prompt.images]
        with self.tokenizing:
            return self._conversation.encode([prompt.text for prompt in prompts], images)

    def branches(self, prompts: Sequence[Prompt]) -> Branches:
        """The batch of some prompts, all with an image or all without. Each image is turned into pixels once."""
        with self.tokenizing:
            return _branches(self._conversation, prompts, self._ids_of)

    def ids(self, text: str) -> list[int]:
        """The tokens of a prompt's text, in which an image is one token."""
        with self.tokenizing:
            return list(self._ids_of(text))

    def _ids_of(self, text: str) -> list[int]:
        if text not in self._ids:
            self._ids[text] = self._conversation.prompt_ids(text)
        return self._ids[text]


def _branches(
    conversation: Conversation, prompts: Sequence[Prompt], ids_of: Callable[[str], Sequence[int]]
) -> Branches:
    by_image: dict[Any, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_image.setdefault(prompt.digest or number, []).append(number)
    texts = [list(ids_of(prompt.text)) for prompt in prompts]
    try:
        return _grouped(conversation, prompts, texts, list(by_image.values()))
    except _OtherTokensError:
        return _grouped(conversation, prompts, texts, [[number] for number in range(len(prompts))])


class _OtherTokensError(ValueError):
    """A prompt with images does not end with the tokens of its text, or has an image after the common beginning."""


def _grouped(
    conversation: Conversation,
    prompts: Sequence[Prompt],
    texts: Sequence[list[int]],
    groups: list[list[int]],
) -> Branches:
    """The batch whose trunks are the groups."""
    heads = [prompts[group[0]] for group in groups]
    encoded = conversation.encode([head.text for head in heads], [head.images for head in heads if head.images])
    shares = len(groups) < len(prompts)
    image = getattr(conversation.processor, "image_token_id", None)
    trunks, branches, types = [], [], []
    named = [name for name in encoded if name in TEXT_INPUTS - {"input_ids", "attention_mask"}]
    for number, (row, mask, group) in enumerate(
        zip(encoded["input_ids"], encoded["attention_mask"], groups, strict=True)
    ):
        ids, of_group = row[mask.bool()].tolist(), [texts[number] for number in group]
        own = len(of_group[0]) - (_common(of_group) if shares else len(of_group[0]))
        if own and (ids[-own:] != of_group[0][-own:] or image in ids[-own:]):
            raise _OtherTokensError
        trunks.append(ids[: len(ids) - own])
        types.append([encoded[name][number][mask.bool()].tolist()[: len(ids) - own] for name in named])
        branches += [text[len(of_group[0]) - own :] if own else [] for text in of_group]
    pad = conversation.processor.tokenizer.pad_token_id
    return Branches(
        [number for group in groups for number in group],
        [head.digest for head in heads],
        *_padded(trunks, pad),
        torch.tensor([number for number, group in enumerate(groups) for _ in group]),
        *_padded(branches, pad),
        {name: value for name, value in encoded.items() if name not in TEXT_INPUTS},
        {name: _padded([row[place] for row in types], 0)[0] for place, name in enumerate(named)},
    )


def _common(texts: Sequence[Sequence[int]]) -> int:
    """Number of tokens that all texts begin with. Each text keeps a token of its own."""
    most = min(map(len, texts)) - 1
    first = texts[0]
    return next((place for place in range(most) if any(text[place] != first[place] for text in texts)), most)


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Tokens and their mask, padded on the left."""
    length = max(map(len, rows))
    ids = torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows]).view(len(rows), length)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]).view(len(rows), length)
    return ids.long(), mask.long()
