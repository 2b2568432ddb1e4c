"""Stored reference log-probs: right, kept, the same however often the pass was killed, and apart for other inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rounding import LOG_PROB
from tiny_rows import tiny_checkpoint, tiny_rows, write_rows

from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.trainers import reference as reference_module
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.reference import Examiner, compute_reference, read_reference, reference_folder, rows_missing
from napo_bench.trainers.rows import open_rows

ALL = ("rejected", "language", "vision")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint.open(str(tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))))


@pytest.fixture(scope="module")
def model(checkpoint):
    return checkpoint.load_model(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def conversation(checkpoint):
    return Conversation.of(checkpoint.load_processor(), checkpoint.load_config())


@pytest.fixture
def rows(tmp_path):
    source = tiny_rows(23)
    source[4]["image"]["bytes"] = b"no picture"
    source[9]["question_only"] = ""
    return open_rows(write_rows(tmp_path / "rows.parquet", source), ALL, tmp_path / "cache")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(reference_module, "CHUNK_ROWS", 8)


def run(model, rows, conversation, folder, rank=0, processes=1, crop_seed=None, on_rows=lambda count: None):
    compute_reference(
        model,
        rows,
        Examiner(Collator(conversation, crop_seed), max_length=512),
        folder,
        batch_size=3,
        shared_prefix=True,
        bf16=False,
        rank=rank,
        processes=processes,
        workers=0,
        on_rows=on_rows,
    )


def logp_by_hand(model, conversation, row, text, picture=None):
    """Sum over the response's tokens of the log-probs of one plain forward, and the number of tokens."""
    prompt = conversation.prompt(row.question, has_image=True)
    encoded = conversation.encode([prompt], [conversation.prepare_image(picture or row.image)])
    answer = torch.tensor([conversation.answer_ids(text)])
    ids = torch.cat([encoded["input_ids"], answer], 1)
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=encoded["pixel_values"]).logits[0, -answer.shape[1] - 1 : -1]
    return logits.log_softmax(-1).gather(1, answer[0, :, None]).sum().item(), answer.shape[1]


@pytest.mark.numeric
def test_stored_log_probs_are_those_of_one_plain_forward_a_response(model, rows, conversation, tmp_path):
    run(model, rows, conversation, tmp_path / "pass")
    stored = read_reference(rows, tmp_path / "pass")
    for index in (0, 9, 22):
        row = rows[index, True]
        for column, text in enumerate(row.responses):
            expected, tokens = logp_by_hand(model, conversation, row, text) if text else (0.0, 1)
            assert stored.sum[row.position, column] == pytest.approx(expected, abs=LOG_PROB)
            assert stored.mean[row.position, column] == pytest.approx(expected / tokens, abs=LOG_PROB)


@pytest.mark.numeric
def test_the_chosen_response_over_the_crop_comes_last(model, tmp_path, conversation):
    from napo_bench.trainers.batches import random_crop

    rows = open_rows(write_rows(tmp_path / "rows.parquet", tiny_rows(3)), ("rejected",), tmp_path / "cache")
    run(model, rows, conversation, tmp_path / "pass", crop_seed=5)
    stored = read_reference(rows, tmp_path / "pass")
    row = rows[1, True]
    crop = random_crop(conversation.prepare_image(row.image), f"5/{row.id}")
    expected, _ = logp_by_hand(model, conversation, row, row.responses[0], crop)
    assert stored.sum.shape == (3, 3)
    assert stored.sum[1, 2] == pytest.approx(expected, abs=LOG_PROB)
    assert abs(stored.sum[1, 2] - stored.sum[1, 0]) > 1e-3


def test_rows_with_problems_are_found_before_training(model, rows, conversation, tmp_path):
    run(model, rows, conversation, tmp_path / "pass")
    stored = read_reference(rows, tmp_path / "pass")
    assert stored.problems == {4: "image cannot be decoded"}
    assert np.isnan(stored.sum[4]).all() and np.isfinite(np.delete(stored.sum, 4, 0)).all()


def test_log_probs_that_are_not_finite_are_a_problem_of_the_row(checkpoint, rows, conversation, tmp_path):
    broken = checkpoint.load_model(torch.device("cpu"), torch.float32)
    word = conversation.answer_ids(rows[2, True].responses[1])[0]
    broken.get_output_embeddings().weight.data[word] = torch.inf
    run(broken, rows, conversation, tmp_path / "pass")
    assert "NaN or infinite" in read_reference(rows, tmp_path / "pass").problems[2]


def test_a_killed_pass_goes_on_and_ends_with_the_same_bits(model, rows, conversation, tmp_path):
    class Killed(Exception):
        pass

    counted = []

    def kill_in_the_second_chunk(count):
        counted.append(count)
        if sum(counted) > 10:
            raise Killed

    run(model, rows, conversation, tmp_path / "whole")
    with pytest.raises(Killed):
        run(model, rows, conversation, tmp_path / "killed", on_rows=kill_in_the_second_chunk)
    assert rows_missing(len(rows), tmp_path / "killed") == 15
    done_again = []
    run(model, rows, conversation, tmp_path / "killed", on_rows=done_again.append)
    assert sum(done_again) == 15
    whole, resumed = (read_reference(rows, tmp_path / name) for name in ("whole", "killed"))
    assert whole.sum.tobytes() == resumed.sum.tobytes()
    assert whole.problems == resumed.problems


def test_processes_share_the_chunks_out_and_get_the_same_bits(model, rows, conversation, tmp_path):
    run(model, rows, conversation, tmp_path / "one")
    shares = ([], [])
    for rank in (0, 1):
        run(model, rows, conversation, tmp_path / "two", rank, 2, on_rows=shares[rank].append)
    assert [sum(share) for share in shares] == [15, 8]
    one, two = (read_reference(rows, tmp_path / name) for name in ("one", "two"))
    assert one.sum.tobytes() == two.sum.tobytes()


def test_a_pass_that_is_whole_is_not_computed_again(model, rows, conversation, tmp_path):
    run(model, rows, conversation, tmp_path / "pass")
    run(model, rows, conversation, tmp_path / "pass", on_rows=lambda count: pytest.fail("computed again"))


def test_every_determinant_has_its_own_folder(tmp_path):
    same = {"ckpt": "a", "data": "b", "precision": "fp32"}
    folders = {reference_folder(tmp_path, **{**same, **change}) for change in ({}, {"ckpt": "c"}, {"data": "c"})}
    assert len(folders) == 3
    assert reference_folder(tmp_path, **same) == reference_folder(tmp_path, **dict(reversed(same.items())))
