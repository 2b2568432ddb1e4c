"""Batches of preference rows: the tensors for one forward of a process, and the rows of each batch in each epoch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from napo_bench.models.conversation import Conversation
from napo_bench.trainers.forward.batch import PreferenceBatch
from napo_bench.trainers.rows import PreferenceRow

_CROP_SCALE = (0.01, 0.2)
_CROP_RATIO = (3 / 4, 4 / 3)
_OF_TEXT = ("input_ids", "attention_mask", "labels")


@dataclass
class TrainingBatch:
    """A batch of rows, ready for the forward.

    Attributes:
        ids: Names of the rows.
        positions: Positions of the rows in the data set.
        lengths: Tokens of image, prompt and the longest response of each row.
        prompts: Rows as prompts with responses. If chosen responses are also compared over a crop of their image, B
            more prompts follow, with the crops and the chosen responses alone.
        present: 1 if the row counts and has the negative, else 0, `[B, N]`.
        reference_sum: Summed log-probs under the reference, `[B, K]`: chosen, the negatives, then the chosen response
            over the crop, if it is compared.
        reference_mean: The same divided by the number of tokens.
    """

    ids: list[str]
    positions: list[int]
    lengths: list[int]
    prompts: PreferenceBatch
    present: Tensor
    reference_sum: Tensor
    reference_mean: Tensor

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch with its tensors on a device."""
        prompts = replace(
            self.prompts,
            input_ids=self.prompts.input_ids.to(device),
            attention_mask=self.prompts.attention_mask.to(device),
            response_ids=self.prompts.response_ids.to(device),
            response_mask=self.prompts.response_mask.to(device),
            images={name: value.to(device) for name, value in self.prompts.images.items()},
            of_tokens={name: value.to(device) for name, value in self.prompts.of_tokens.items()},
        )
        return replace(
            self,
            prompts=prompts,
            present=self.present.to(device),
            reference_sum=self.reference_sum.to(device),
            reference_mean=self.reference_mean.to(device),
        )


@dataclass(frozen=True)
class Collator:
    """Makes a `TrainingBatch` from rows.

    Attributes:
        conversation: Conversation of the checkpoint.
        crop_seed: Seed of the crops that mDPO compares with; None if the recipe does not.
        reference: Stored log-probs by position in the data set, `[rows, K]` each: sums and means.
    """

    conversation: Conversation
    crop_seed: int | None = None
    reference: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def __call__(self, rows: Sequence[PreferenceRow]) -> TrainingBatch:
        """Encode rows, all with a decoded image."""
        pictures = [self.conversation.prepare_image(row.image) for row in rows if row.image is not None]
        prompts = [self.conversation.prompt(row.question, has_image=True) for row in rows]
        answers = [[self.conversation.answer_ids(text) if text else [] for text in row.responses] for row in rows]
        prompt_answers = list(answers)
        if self.crop_seed is not None:
            pictures += [
                random_crop(picture, f"{self.crop_seed}/{row.id}") for picture, row in zip(pictures, rows, strict=True)
            ]
            prompts += prompts
            prompt_answers += [[row[0], *([] for _ in row[1:])] for row in answers]
        processor = self.conversation.processor
        encoded = self.conversation.encode(prompts, pictures)
        input_ids, attention_mask = encoded["input_ids"], encoded["attention_mask"]
        others = {name: value for name, value in encoded.items() if name not in _OF_TEXT}
        of_images = processor.image_processor.model_input_names
        of_tokens = [name for name in others if name not in of_images and others[name].shape[:2] == input_ids.shape]
        response_ids, response_mask = _pad(prompt_answers)
        positions = [row.position for row in rows]
        stored = [torch.from_numpy(table[positions]) for table in self.reference or ()]
        return TrainingBatch(
            ids=[row.id for row in rows],
            positions=positions,
            lengths=[
                int(length) + max(map(len, row)) for length, row in zip(attention_mask.sum(1), answers, strict=False)
            ],
            prompts=PreferenceBatch(
                input_ids,
                attention_mask,
                response_ids,
                response_mask,
                images={name: _float32(value) for name, value in others.items() if name not in of_tokens},
                of_tokens={name: others[name] for name in of_tokens},
            ),
            present=torch.tensor([[float(row.counted and bool(text)) for text in row.responses[1:]] for row in rows]),
            reference_sum=stored[0] if stored else torch.empty(0),
            reference_mean=stored[1] if stored else torch.empty(0),
        )


class EpochBatches(Sampler[list[tuple[int, bool]]]):
    """The rows of one process in each batch of all processes: every row once an epoch, in an order that is drawn.

    A batch of all processes contains the same rows for any number of processes. The last batch of an epoch may be
    smaller. A process without a row in this batch gets a row that does not count.

    Args:
        rows: Number of rows.
        batch_size: Rows of one process in one batch.
        rank: Rank of this process.
        processes: Number of processes.
        seed: Seed of the order.
        each_epoch: Whether each epoch has an order of its own. False draws one order as
            `random.seed(seed); random.shuffle(rows)` does.
    """

    def __init__(self, rows: int, batch_size: int, rank: int, processes: int, seed: int, *, each_epoch: bool) -> None:
        self.rows, self.batch_size, self.rank, self.processes, self.seed = rows, batch_size, rank, processes, seed
        self.each_epoch, self.epoch = each_epoch, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, whose order follows if each epoch has an order of its own."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // (self.batch_size * self.processes))

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        order = list(range(self.rows))
        random.Random(f"{self.seed}/{self.epoch}" if self.each_epoch else self.seed).shuffle(order)
        step = self.batch_size * self.processes
        for start in range(0, self.rows, step):
            batch = order[start : start + step]
            mine = batch[self.rank :: self.processes]
            yield [(index, True) for index in mine] or [(batch[0], False)]


class EpochLoader(DataLoader[PreferenceRow]):
    """A loader of `EpochBatches`. The Trainer sets the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        assert isinstance(self.batch_sampler, EpochBatches)
        self.batch_sampler.set_epoch(epoch)


def random_crop(picture: Image.Image, seed: str) -> Image.Image:
    """The image that mDPO compares with the whole image: a crop of 1 to 20 % of the area, in the size of the image.

    Args:
        picture: Image in RGB.
        seed: Seed of the crop. The same seed gives the same crop, so policy and reference see the same image.
    """
    from torchvision.transforms import RandomResizedCrop  # type: ignore[import-untyped]

    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        top, left, height, width = RandomResizedCrop.get_params(picture, list(_CROP_SCALE), list(_CROP_RATIO))
    return picture.resize(picture.size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))


def _float32(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values


def _pad(answers: Sequence[Sequence[Sequence[int]]]) -> tuple[Tensor, Tensor]:
    longest = max(len(answer) for row in answers for answer in row)
    ids = torch.zeros(len(answers), len(answers[0]), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, row_answers in enumerate(answers):
        for column, answer in enumerate(row_answers):
            ids[row, column, : len(answer)] = torch.tensor(answer, dtype=torch.long)
            mask[row, column, : len(answer)] = 1
    return ids, mask
