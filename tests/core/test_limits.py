"""What comes from outside ends at a limit of size, time or memory, and each limit can be changed."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.limits import CHECK_BYTES, CHECK_SECONDS, Limit, at_most
from napo_bench.micro.base import base_checkpoint
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.soundness import require_adapter, skeleton
from napo_bench.trainers.rows import open_rows

HOUR = Limit("NAPO_BENCH_MAX_TEST_SECONDS", 3600)


def test_an_environment_variable_changes_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HOUR.value == 3600
    monkeypatch.setenv(HOUR.variable, "7_200")
    assert HOUR.value == 7200


@pytest.mark.parametrize("text", ["many", "-1", "0", "nan", "inf", "1e999"])
def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(HOUR.variable, text)
    with pytest.raises(NapoBenchError, match=r"NAPO_BENCH_MAX_TEST_SECONDS is .*; a number above 0 is expected"):
        _ = HOUR.value


def test_a_block_ends_at_its_time_and_a_limit_around_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOUR.variable, "1")
    began = time.monotonic()
    with pytest.raises(NapoBenchError, match="The outer one takes more than 1 s"), at_most("The outer one", HOUR):
        with at_most("The inner one", CHECK_SECONDS):
            time.sleep(0.3)
        time.sleep(10)
    assert 0.9 < time.monotonic() - began < 5


def with_template(folder: Path, template: str) -> Path:
    shutil.copytree(base_checkpoint(), folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}" + (
    "{% endfor %}{% endfor %}"
)
DOUBLING = "{% set n = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOPS, "chat template takes more than 1 s"),
        (DOUBLING, "chat template (wants more than .* bytes of memory|takes more than 1 s)"),
        ("{{ 'a' * 10**12 }}", "chat template wants more than"),
        ("{{ messages.__class__.__mro__ }}{{ ''.format.__globals__ }}", "chat template cannot be used: SecurityError"),
        ("{{ 1 // 0 }}", "chat template cannot be used: ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "chat template cannot be used: RecursionError"),
    ],
)
def test_a_template_that_does_what_it_may_not_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, message: str
) -> None:
    monkeypatch.setenv(CHECK_SECONDS.variable, "1")
    monkeypatch.setenv(CHECK_BYTES.variable, str(2**28))
    checkpoint = Checkpoint.open(str(with_template(tmp_path / "c", template)))
    with pytest.raises(NapoBenchError, match=message):
        checkpoint.open_parts()


def test_a_library_that_takes_the_interrupt_is_interrupted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHECK_SECONDS.variable, "1")
    taken = []
    with pytest.raises(NapoBenchError, match="A library takes more than 1 s"), at_most("A library", CHECK_SECONDS):
        try:
            time.sleep(30)
        except BaseException as error:
            taken.append(error)
        time.sleep(30)
    assert len(taken) == 1
    time.sleep(0.6)  # nothing interrupts what follows


def test_a_regular_expression_of_an_adapter_ends_at_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHECK_SECONDS.variable, "1")
    config = Checkpoint.open(str(base_checkpoint())).load_config()
    settings = {"peft_type": "LORA", "r": 4, "target_modules": r"((([a-z_.0-9]+)+)+)+!", "base_model_name_or_path": ""}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(NapoBenchError, match=re.escape("adapter_config.json takes more than 1 s")):
        require_adapter(tmp_path, skeleton(base_checkpoint(), config))


def repeated(path: Path) -> None:
    text = "x" * 1024
    rows = pa.table({name: pa.array([text] * 30_000) for name in ("question", "chosen", "rejected", "image")})
    parquet.write_table(rows, path, compression="zstd")


def one_cell(path: Path) -> None:
    rows = pa.table({name: ["x" * 30_000_000] for name in ("question", "chosen", "rejected", "image")})
    parquet.write_table(rows, path, compression="zstd")


@pytest.mark.parametrize("write", [repeated, one_cell])
def test_rows_that_unpack_to_gigabytes_are_refused_before_they_do(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").stat().st_size < 200_000
    with pytest.raises(NapoBenchError, match="its rows unpack to more than"):
        open_rows(tmp_path / "rows.parquet", [], tmp_path / "cache")
    assert not list(tmp_path.glob("cache/**/*.arrow"))
