"""The tokenizer of a checkpoint of LLaVA's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.models import soundness

FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
IMAGE = "<image>"


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer of a folder, with the image token."""
    from transformers import AddedToken, LlamaTokenizer

    read: Any = LlamaTokenizer.from_pretrained
    # LLaVA's code reads tokenizer.model also if there is a tokenizer.json.
    tokenizer = _of_pieces(folder) if (folder / "tokenizer.model").is_file() else read(str(folder))
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
    return tokenizer


def _of_pieces(folder: Path) -> Any:
    """The tokenizer of a SentencePiece model. transformers' own reader needs another protobuf than other packages."""
    from sentencepiece import SentencePieceProcessor
    from transformers import AddedToken, LlamaTokenizer

    model = SentencePieceProcessor(str(folder / "tokenizer.model"))
    pieces = {model.id_to_piece(number): number for number in range(model.get_piece_size())}
    # SentencePiece joins the pair whose piece has the highest score. A pair of the same piece is joined from the left.
    merges = sorted(
        (-model.get_score(number), number, cut, piece)
        for piece, number in pieces.items()
        if not (model.is_control(number) or model.is_unknown(number) or model.is_byte(number))
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    )
    said: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        said |= files.read_json(folder / name) if (folder / name).is_file() else {}
    special = {
        role: token["content"] if isinstance(token := said[role], dict) else token
        for role in ("bos_token", "eos_token", "unk_token", "pad_token")
        if said.get(role)
    }
    make: Any = LlamaTokenizer
    tokenizer = make(
        vocab=pieces, merges=[(piece[:cut], piece[cut:]) for *_, cut, piece in merges], add_bos_token=True, **special
    )
    added = files.read_json(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
    for token, number in sorted(added.items(), key=lambda item: item[1]):
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)
        if tokenizer.convert_tokens_to_ids(token) != number:
            raise NapoBenchError(
                f"{folder / 'added_tokens.json'}: {token!r} is number {number}; after the {len(pieces)} pieces of "
                f"tokenizer.model it is number {tokenizer.convert_tokens_to_ids(token)}.",
                soundness.FETCH_AGAIN,
            )
    return tokenizer
