import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napo_bench.trainers.forward.attention import CAUSAL_THEN_MASKED, branch_mask
from napo_bench.trainers.forward.packing import PADDING, PackedRows

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


BRANCHES = torch.tensor([[0, 0, 0, 1, 1, 2, 3, 3], [0, 0, 1, 1, 2, 2, -1, -1]])


def test_a_token_sees_the_prompt_and_its_own_branch_before_it():
    mask = branch_mask(BRANCHES, "sdpa", torch.float32)[:, 0]
    for row, branches in enumerate(BRANCHES.tolist()):
        for query, own in enumerate(branches):
            seen = [key for key in range(query + 1) if branches[key] in (0, own)]
            assert mask[row, query].nonzero().flatten().tolist() == seen


def test_every_implementation_gets_the_same_mask():
    dense = branch_mask(BRANCHES, "sdpa", torch.float32)
    assert torch.equal(branch_mask(BRANCHES, "eager", torch.float32) == 0, dense)
    assert torch.equal(branch_mask(BRANCHES, CAUSAL_THEN_MASKED, torch.float32), dense[:, :, 2:])
    block = branch_mask(BRANCHES, "flex_attention", torch.float32)
    rows, queries, keys = (torch.arange(size) for size in (2, 8, 8))
    evaluated = block.mask_mod(rows[:, None, None], torch.tensor(0), queries[:, None], keys)
    assert torch.equal(evaluated, dense[:, 0])
