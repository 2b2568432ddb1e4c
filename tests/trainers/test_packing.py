import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model
from torch.nn.attention.flex_attention import create_block_mask
from transformers.masking_utils import (
    blockwise_overlay,
    causal_mask_function,
    or_masks,
    sdpa_mask,
    sliding_window_causal_mask_function,
)

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.forward.masks import Visible, block_mask, in_own_branch, masks_of_packed_rows
from napo_bench.trainers.forward.packing import PADDING, PROMPT, PackedRows

lengths = st.integers(1, 3).flatmap(
    lambda responses: st.lists(
        st.tuples(st.integers(1, 5), st.lists(st.integers(0, 4), min_size=responses, max_size=responses)),
        min_size=1,
        max_size=3,
    )
)


def mask_of(lengths_of_rows: list[int], longest: int, side: str = "right") -> torch.Tensor:
    mask = torch.arange(longest) < torch.tensor(lengths_of_rows)[:, None]
    return mask if side == "right" else mask.flip(-1)


def unpacked(rows: list[tuple[int, list[int]]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of rows given as (prompt length, response lengths)."""
    prompt = mask_of([length for length, _ in rows], max(length for length, _ in rows), side)
    longest = max(1, *(max(responses) for _, responses in rows))
    return prompt, torch.stack([mask_of(responses, longest) for _, responses in rows])


@settings(deadline=None)
@given(lengths, st.sampled_from(["left", "right"]))
def test_a_row_is_its_prompt_then_each_response_without_its_last_token(rows, side):
    prompt, responses = unpacked(rows, side)
    tokens = torch.arange(prompt.numel()).view_as(prompt)
    response_tokens = 1000 + torch.arange(responses.numel()).view_as(responses)
    packed = PackedRows.of(prompt, responses)
    arranged = packed.arrange(tokens, response_tokens)
    for row in range(len(rows)):
        expected = tokens[row][prompt[row]].tolist()
        branches = [0] * len(expected)
        for branch, (ids, mask) in enumerate(zip(response_tokens[row], responses[row], strict=True), start=1):
            expected += ids[mask][:-1].tolist()
            branches += [branch] * (int(mask.sum()) - 1)
        padding = arranged.shape[1] - len(expected)
        assert arranged[row, : len(expected)].tolist() == expected
        assert packed.branches[row].tolist() == branches + [PADDING] * padding


@settings(deadline=None)
@given(lengths, st.sampled_from(["left", "right"]))
def test_each_response_token_is_predicted_by_the_token_before_it(rows, side):
    prompt, responses = unpacked(rows, side)
    tokens = torch.arange(prompt.numel()).view_as(prompt)
    response_tokens = 1000 + torch.arange(responses.numel()).view_as(responses)
    packed = PackedRows.of(prompt, responses)
    predictors = packed.arrange(tokens, response_tokens).flatten()[packed.predictors].tolist()
    expected = []
    for row in range(len(rows)):
        last_of_prompt = int(tokens[row][prompt[row]][-1])
        for ids, mask in zip(response_tokens[row], responses[row], strict=True):
            present = ids[mask].tolist()
            expected += [last_of_prompt, *present[:-1]] if present else []
    assert predictors == expected


@settings(deadline=None)
@given(lengths, st.sampled_from(["left", "right"]))
def test_a_place_counts_the_tokens_of_the_prompt_and_of_the_own_response(rows, side):
    prompt, responses = unpacked(rows, side)
    packed = PackedRows.of(prompt, responses)
    for places, branches, (length, _) in zip(packed.places.tolist(), packed.branches.tolist(), rows, strict=True):
        for branch in set(branches) - {PADDING}:
            own = [place for place, of in zip(places, branches, strict=True) if of == branch]
            first = 0 if branch == PROMPT else length
            assert own == list(range(first, first + len(own)))


ROWS = PackedRows.of(mask_of([3, 2], 3), torch.stack([mask_of([3, 2, 3], 3), mask_of([3, 3, 0], 3)]))
"""Branches 0 0 0 1 1 2 3 3, and 0 0 1 1 2 2 with two tokens of padding."""


def dense(visible: Visible) -> torch.Tensor:
    return sdpa_mask(2, 8, 8, mask_function=in_own_branch(visible, ROWS), allow_is_causal_skip=False)[:, 0]


def test_a_token_sees_the_prompt_and_its_own_branch_before_it():
    mask = dense(causal_mask_function)
    for row, branches in enumerate(ROWS.branches.tolist()):
        for query, own in enumerate(branches):
            seen = [key for key in range(query + 1) if branches[key] in (0, own)]
            if own != PADDING:
                assert mask[row, query].nonzero().flatten().tolist() == seen


def test_a_window_reaches_back_along_the_own_branch_and_the_prompt():
    mask = dense(sliding_window_causal_mask_function(2))
    assert mask[0, 3].nonzero().flatten().tolist() == [2, 3], "the first token of response 1, after the prompt"
    assert mask[0, 6].nonzero().flatten().tolist() == [2, 6], "the first token of response 3, after the prompt"
    assert mask[0, 7].nonzero().flatten().tolist() == [6, 7]


def test_tokens_that_read_both_ways_do_so_in_the_prompt_alone():
    images = torch.tensor([[0, 0, -1, -1, -1, -1, -1, -1], [-1] * 8])
    mask = dense(or_masks(causal_mask_function, blockwise_overlay(images)))
    assert mask[0, 0].nonzero().flatten().tolist() == [0, 1]
    expected = dense(causal_mask_function)
    expected[0, 0, 1] = True
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("lengths", [(3, 2), (150, 90), (256, 128)])
def test_the_blocks_of_flex_attention_are_those_of_the_whole_mask(lengths):
    response = torch.ones(2, 3, 100, dtype=torch.bool)
    packed = PackedRows.of(mask_of(list(lengths), max(lengths)), response)
    visible = in_own_branch(causal_mask_function, packed)
    rows, length = packed.branches.shape
    ours = block_mask(visible, packed.branches.shape, torch.device("cpu"))
    expected = create_block_mask(visible, rows, None, length, length, device="cpu")
    assert torch.equal(ours.to_dense(), expected.to_dense())
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name
    for name in ("kv_indices", "full_kv_indices"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name


def test_a_text_model_that_makes_no_mask_is_refused():
    decoder = tiny_model("llava").get_decoder()
    with (
        pytest.raises(NapoBenchError, match="LlamaModel makes its attention masks itself"),
        masks_of_packed_rows(decoder, ROWS),
    ):
        decoder.embed_tokens(torch.tensor([[1]]))
