"""The command line's root: each module of a command adds its command here."""

from __future__ import annotations

import typer

from napo_bench import __version__
from napo_bench.cli import console

app = typer.Typer(
    name="napo-bench",
    help="Does a multimodal model look at the image, or guess from one modality? Score it, train it, gate it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"napo-bench {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass
