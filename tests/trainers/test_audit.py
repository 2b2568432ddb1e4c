"""`napo-bench data audit`: planted shortcuts and duplicates are found, and honest rows are cleared."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from synthetic_runs import invoke
from tiny_rows import write_rows

from napo_bench.core.errors import NapoBenchError
from napo_bench.micro.preferences import write_preference_rows
from napo_bench.trainers.audit.duplicates import RowTexts
from napo_bench.trainers.audit.pictures import Looks, look_of
from napo_bench.trainers.audit.rows import BenchmarkPicture, audit_rows
from napo_bench.trainers.audit.telling import pair_auc, tell

CONTENT = [f"thing{number}" for number in range(200)]
FUNCTION = ["the", "a", "is", "of", "in", "on", "and", "not", "with", "to"]


def sentence(rng, words, function=FUNCTION):
    """Words of content, with a function word before each."""
    return " ".join(f"{rng.choice(function)} {rng.choice(CONTENT)}" for _ in range(words)) + "."


def tellings(pairs, pictures=None):
    chosen, others = zip(*pairs, strict=True)
    found = tell("rejected", chosen, others, range(len(pairs)) if pictures is None else pictures)
    return {one.trait: one for one in found}


def test_a_planted_length_is_found_by_length_and_not_by_style():
    """Every chosen response is two words longer than its negative, while lengths differ by 30 words between rows."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 33, 300)
    found = tellings([(sentence(rng, size + 1), sentence(rng, size)) for size in sizes])
    assert found["length"].auc > 0.95 and found["length"].tells
    assert not found["style"].tells


def test_a_planted_style_is_found_by_style_and_not_by_length():
    rng = np.random.default_rng(0)
    found = tellings([(sentence(rng, 8, ["the", "is"]), sentence(rng, 8, ["a", "of"])) for _ in range(200)])
    assert found["style"].auc > 0.95 and found["style"].tells
    assert found["text"].tells


def test_a_planted_word_is_found_by_text_alone():
    rng = np.random.default_rng(0)
    pairs = [(sentence(rng, 6), sentence(rng, 6)) for _ in range(200)]
    found = tellings([(f"thing300 {chosen}", f"thing301 {other}") for chosen, other in pairs])
    assert found["text"].auc > 0.95 and found["text"].tells
    assert not found["length"].tells and not found["style"].tells


def test_matched_rows_are_cleared_in_about_95_percent_of_draws():
    """Chosen and negative come from one distribution. Folds share pairs, which a naive interval does not know."""
    held = {"length": 0, "style": 0, "text": 0}
    draws = 40
    for draw in range(draws):
        rng = np.random.default_rng([1, draw])
        pairs = [(sentence(rng, rng.integers(2, 8)), sentence(rng, rng.integers(2, 8))) for _ in range(120)]
        for trait, found in tellings(pairs, np.arange(120) // 2).items():
            held[trait] += found.interval[0] <= 0.5 <= found.interval[1]
    assert min(held.values()) >= 0.87 * draws


def test_no_picture_is_in_training_and_test():
    """Rows about one picture have words of their own, which say which response is chosen only for that picture."""
    rng = np.random.default_rng(0)
    pictures = np.arange(400) // 4
    known = [f"{sentence(rng, 3)} thing{1000 + picture}" for picture in pictures]
    others = [f"{sentence(rng, 3)} thing{5000 + picture}" for picture in pictures]
    together = tellings(list(zip(known, others, strict=True)), pictures)["text"]
    apart = tellings(list(zip(known, others, strict=True)))["text"]
    assert apart.auc > 0.75
    assert not together.tells


def test_the_auc_is_that_of_all_pairs_in_both_orders_and_its_variance_is_that_over_clusters():
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(0.3, 1, 90), 1)
    auc, _ = pair_auc(scores, np.arange(90))
    assert auc == pytest.approx(roc_auc_score([1] * 90 + [0] * 90, [*scores, *-scores]))

    def draw():
        return rng.normal(0.3, 0.7, 60)[:, None] + rng.normal(0, 0.7, (60, 3))

    drawn = [pair_auc(draw().ravel(), np.arange(180) // 3) for _ in range(600)]
    assert np.mean([variance for _, variance in drawn]) == pytest.approx(np.var([auc for auc, _ in drawn]), rel=0.2)


def test_too_few_pictures_give_no_number():
    rng = np.random.default_rng(0)
    found = tellings([(sentence(rng, 3), sentence(rng, 3)) for _ in range(100)], np.arange(100) % 49)
    assert all(one.auc is None and one.tells is None for one in found.values())


def photo(seed, size=(320, 240)):
    """A picture of coloured areas and a soft light, as a photograph has them."""
    rng = np.random.default_rng(seed)
    areas = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(areas, dtype=np.int16) + rng.integers(-8, 9, (*size[::-1], 3)), 0, 255)
                           .astype(np.uint8))  # fmt: skip


def encoded(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "again",
    [
        lambda image: encoded(image, "JPEG", quality=30),
        lambda image: encoded(image, "WEBP", quality=30),
        lambda image: encoded(image.resize((160, 120)), "JPEG", quality=80),
        lambda image: encoded(image.resize((544, 408)), "JPEG", quality=60),
        lambda image: encoded(image.resize((336, 336)), "PNG"),
    ],
)
def test_a_resized_or_encoded_picture_is_the_same_picture(again):
    looks = Looks()
    numbers = [looks.add(look_of(encoded(photo(seed)))) for seed in range(40)]
    assert numbers == list(range(40))
    assert [looks.find(look_of(again(photo(seed)))) for seed in range(40)] == numbers


def test_different_pictures_are_different_also_if_only_a_colour_differs():
    looks = Looks()
    assert {looks.add(look_of(encoded(photo(seed, (64, 48))))) for seed in range(1500)} == set(range(1500))
    flat = [Image.new("RGB", (200, 200), "white") for _ in range(3)]
    for image, colour in zip(flat, ("red", "green", "blue"), strict=True):
        image.paste(colour, (80, 80, 120, 120))
    assert len({looks.add(look_of(encoded(image))) for image in flat}) == 3


def test_a_row_repeats_another_if_the_words_of_its_fields_do_about_the_same_picture():
    rng = np.random.default_rng(0)
    texts = RowTexts()
    question, chosen, rejected = "What is on the table?", sentence(rng, 20), sentence(rng, 20)
    assert texts.add(0, [question, chosen, rejected]) == 0
    assert texts.add(0, [question.upper(), f"{chosen}!", rejected]) == 0
    assert texts.add(0, [question, chosen.replace(chosen.split()[20], "other", 1), rejected]) == 0
    assert texts.add(0, [question, rejected, chosen]) == 1
    assert texts.add(0, [question, sentence(rng, 20), sentence(rng, 20)]) == 2
    assert texts.add(1, [question, chosen, rejected]) == 3


def rows_with_plants(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        {
            "idx": f"row-{number}",
            "question": sentence(rng, 4),
            "chosen": sentence(rng, 6),
            "rejected": sentence(rng, 4),
            "image": {"bytes": encoded(photo(number)), "path": f"{number}.png"},
        }
        for number in range(60)
    ]
    rows[7]["image"]["bytes"] = encoded(photo(3).resize((200, 150)), "JPEG")
    rows[9]["image"]["bytes"] = rows[4]["image"]["bytes"]
    rows.append({**rows[5], "idx": "again"})
    rows.append({**rows[6], "idx": "broken", "image": {"bytes": b"no picture", "path": "x.png"}})
    rows.append({**rows[6], "idx": "empty", "chosen": " "})
    return write_rows(folder / "rows.parquet", rows)


def test_an_audit_finds_each_plant_once(tmp_path):
    there = [
        BenchmarkPicture("a.jpg", lambda: encoded(photo(11).resize((160, 120)), "JPEG")),
        BenchmarkPicture("b.png", lambda: encoded(photo(900))),
        BenchmarkPicture("gone.png", tmp_path / "gone.png"),
    ]
    audit = audit_rows(rows_with_plants(tmp_path), {"amber": there}, cache=tmp_path / "cache")
    assert (audit.rows, audit.left_out, audit.pictures) == (62, 1, 58)
    assert audit.repeated_pictures == {"row-3": ["row-7"]}
    assert audit.repeated_rows == {"row-5": ["again"]}
    assert audit.unreadable == ["broken"]
    overlap = audit.overlaps["amber"]
    assert overlap.found == {"a.jpg": ["row-11"]}
    assert (overlap.pictures, overlap.rows, overlap.unreadable) == (3, 1, 1)
    by = {one.trait: one for one in audit.tellings}
    assert by["length"].tells and by["length"].pairs == 62


def test_the_command_prints_the_table_and_writes_every_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "audit.json"
    code, shown, _ = invoke(["data", "audit", rows_with_plants(tmp_path), "--json", out], monkeypatch, capsys)
    assert code == 0
    assert "1 (row-7 like row-3)" in shown and "1 (again like row-5)" in shown
    document = json.loads(out.read_text())
    length = next(one for one in document["tellings"] if one["trait"] == "length")
    assert f"{length['auc']:.3f}" in shown
    code, _, panel = invoke(["data", "audit", tmp_path / "none.parquet"], monkeypatch, capsys)
    assert code == 2 and "does not exist" in panel
    arguments = ["data", "audit", tmp_path / "rows.parquet", "--against", tmp_path]
    code, _, panel = invoke(arguments, monkeypatch, capsys)
    assert code == 2 and "no folder of a benchmark" in " ".join(panel.split())


def test_rows_of_the_micro_world_are_audited(tmp_path):
    audit = audit_rows(write_preference_rows(tmp_path / "micro.parquet", 200), cache=tmp_path / "cache")
    assert (audit.rows, audit.pictures, audit.unreadable, audit.repeated_rows) == (200, 200, [], {})
    assert {one.trait: one.pictures for one in audit.tellings} == {"length": 200, "style": 200, "text": 200}
    assert all(0.5 < one.auc < 0.95 for one in audit.tellings)


def test_rows_without_any_negative_are_refused(tmp_path):
    row = {"idx": "1", "question": "q", "chosen": "c", "image": {"bytes": encoded(photo(0)), "path": "0.png"}}
    with pytest.raises(NapoBenchError, match="none of the columns rejected, question_only, image_only"):
        audit_rows(write_rows(tmp_path / "rows.parquet", [row]), cache=tmp_path / "cache")
