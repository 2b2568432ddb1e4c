"""Published rows: the pinned commits, the licences, and the model card that names them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from local_site import Site, hub_pages
from tiny_rows import tiny_rows, write_rows

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.card import write_card
from napo_bench.trainers.published import PUBLISHED, full_name, hub_revision, licence_of
from napo_bench.trainers.recipe import load_recipe
from napo_bench.trainers.rows import RowReport, open_rows

RLAIF_V, BIAS = "openbmb/RLAIF-V-Dataset", "Starrrrrry/RLAIF-V-Bias-Dataset"


def test_the_rows_of_every_recipe_are_pinned_to_a_commit_and_have_a_licence() -> None:
    recipes = [f"llava-1.5-{size}-{kind}" for size in ("7b", "13b") for kind in ("napo", "dpo", "mdpo")]
    assert {load_recipe(name, []).data for name in recipes} == {RLAIF_V, BIAS} == set(PUBLISHED)
    assert all(len(one.revision) == 40 and "CC-BY-NC-4.0" in one.licence for one in PUBLISHED.values())


def test_a_revision_of_the_user_replaces_the_pinned_one() -> None:
    assert hub_revision(RLAIF_V) == (RLAIF_V, PUBLISHED[RLAIF_V].revision)
    assert hub_revision(f"{RLAIF_V}@main") == (RLAIF_V, "main")
    assert hub_revision("someone/rows") == ("someone/rows", None)
    assert full_name(BIAS) == f"{BIAS}@{PUBLISHED[BIAS].revision}"
    assert full_name("rows.parquet") == "rows.parquet"


@pytest.mark.parametrize(
    ("name", "asked"), [(RLAIF_V, PUBLISHED[RLAIF_V].revision), (f"{RLAIF_V}@main", "main"), ("other/rows", "main")]
)
def test_the_pinned_commit_is_what_the_hub_is_asked_for(hub: Site, tmp_path: Path, name: str, asked: str) -> None:
    content = write_rows(tmp_path / "rows.parquet", tiny_rows(3)).read_bytes()
    commit = asked if len(asked) == 40 else "c" * 40
    hub.pages = hub_pages(name.partition("@")[0], asked, {"part-0.parquet": content}, commit)
    assert len(open_rows(name, ("rejected",), tmp_path / "cache")) == 3
    assert any(asked in path for path, _ in hub.requests)


def test_rows_behind_a_login_name_the_login(hub: Site, tmp_path: Path) -> None:
    path = "/api/datasets/some/rows/revision/main"
    hub.refused[path] = (403, {"X-Error-Code": "GatedRepo"})
    with pytest.raises(NapoBenchError, match="its authors ask for a login") as error:
        open_rows("some/rows", ("rejected",), tmp_path / "cache")
    assert "hf auth login" in error.value.hint


def test_a_git_lfs_pointer_in_place_of_the_rows_is_named(tmp_path: Path) -> None:
    pointer = tmp_path / "rows.parquet"
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4' * 64}\nsize 1109434826\n")
    with pytest.raises(NapoBenchError, match=r"rows\.parquet is a Git LFS pointer") as error:
        open_rows(pointer, ("rejected",), tmp_path / "cache")
    assert "git lfs pull" in error.value.hint


def test_built_rows_have_the_licence_of_the_rows_that_they_were_built_from(tmp_path: Path) -> None:
    (tmp_path / "build.json").write_text(json.dumps({"data": f"{RLAIF_V}@{'a' * 40}"}))
    assert licence_of(tmp_path) == PUBLISHED[RLAIF_V].licence
    assert licence_of(tmp_path / "rows.parquet") == licence_of("someone/rows") == ""


def test_the_model_card_names_base_rows_and_licence(tmp_path: Path) -> None:
    write_card(tmp_path, load_recipe("llava-1.5-7b-napo", []), RowReport(12, {"no chosen response": ["3"]}), "llava_v1")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith('---\nlibrary_name: "transformers"\n')
    assert 'base_model: "llava-hf/llava-1.5-7b-hf"\n' in card
    assert f'datasets: ["{BIAS}"]\n---\n' in card
    assert "Its prompts are in the conversation llava_v1" in card
    assert f"11 of 12 preference rows of `{BIAS}`" in card
    assert f"- Rows `{BIAS}`: {PUBLISHED[BIAS].licence}." in card


def test_the_model_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    for name in ("base", "rows", "out"):
        (tmp_path / name).mkdir()
    changes = [f"base={tmp_path / 'base'}", f"data={tmp_path / 'rows'}"]
    write_card(tmp_path / "out", load_recipe("llava-1.5-7b-dpo", changes, "lora"), RowReport(2), None)
    card = (tmp_path / "out/README.md").read_text()
    assert str(tmp_path) not in card
    assert "An adapter of `base`" in card and 'library_name: "peft"' in card and "base_model" not in card
