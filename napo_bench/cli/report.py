"""`napo-bench report`: runs -> the paper's tables, figures and the HTML explorer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from napo_bench.cli import console
from napo_bench.cli.root import app
from napo_bench.core import disk
from napo_bench.core.errors import NapoBenchError, unknown_name

FORMATS = ("md", "tex", "csv", "html")


@app.command("report")
def report(
    runs: Annotated[list[str], typer.Argument(help="PATH or NAME=PATH of each run: its JSON file or its folder.")],
    format: Annotated[
        str, typer.Option(help="md, tex or csv: the tables. html: tables, figures, every sample.")
    ] = "md",
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: the terminal, and report.html for html.")
    ] = None,
    intervals: Annotated[bool, typer.Option("--intervals", help="Print 95% intervals.")] = False,
    paper: Annotated[
        bool | None,
        typer.Option(
            "--paper/--no-paper", help="Show the paper's rows above the runs. Default: yes, except for micro runs."
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="Add the published numbers that were measured in the same way, and what is left out."
        ),
    ] = False,
    base: Annotated[
        str, typer.Option(help="Base of the runs for --published, if their checkpoint does not say it: LLaVA-v1.5-7B.")
    ] = "",
    panel: Annotated[
        bool, typer.Option("--panel", help="Show what the gains over the baseline were bought with; html shows it.")
    ] = False,
    panel_baseline: Annotated[
        str | None, typer.Option(help="Name of the run that is the panel's baseline. Default: the first run.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Write the figures into this folder, as SVG and PNG.")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with the images of the explorer. Default: the folder that each run used."),
    ] = None,
) -> None:
    """Put runs into the paper's tables, draw their figures, and browse their samples.

    A number that is not comparable with the paper's has a footnote with the reason.
    """
    from napo_bench.core import files
    from napo_bench.report import controls as control_page
    from napo_bench.report import explorer, line_up, table
    from napo_bench.report import panel as panel_page
    from napo_bench.report.figures import draw_figures, save_figures
    from napo_bench.report.runs import load_runs

    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS, "--format")
    if format == "html":
        out = out or Path("report.html")
    if out is not None:
        disk.try_file(out)
    if figures is not None:
        disk.try_folder(figures)
    panel = panel or panel_baseline is not None
    if panel and format in ("tex", "csv"):
        raise NapoBenchError(f"The panel is no {format} table.", "Use --format md or html.")
    if base and not published:
        raise NapoBenchError("--base is for the published numbers.", "Add --published.")
    loaded = load_runs(runs, samples=panel or format == "html" or figures is not None)
    if lacking := "; ".join(f"{run.name}: {run.lacks}" for run in loaded if run.lacks):
        _note(f"Files of the training are missing, so curves or rows of Tables 2-6 are left out. {lacking}.")
    tables = [table.table_1(loaded, paper=paper), *table.variant_tables(loaded, paper=paper)]
    if published:
        tables += line_up.line_up(loaded, base)
    for warning in dict.fromkeys(text for entry in tables for text in entry.warnings):
        _note(warning)
    drawn = draw_figures(loaded) if format == "html" or figures is not None else []
    panels = panel_page.panels(loaded, panel_baseline) if panel or (format == "html" and len(loaded) > 1) else []
    controls = control_page.controlled_methods(loaded, panel_baseline, _note) if panels else []
    if figures is not None:
        for path in save_figures(drawn, figures):
            console.err.print(f"Written: {escape(str(path))}", highlight=False)
    if format == "html":
        with console.err.status("Collecting samples ..."):
            text = explorer.to_html(
                loaded,
                tables,
                drawn,
                data_dir,
                panels=panels,
                controls=controls,
                intervals=intervals,
                tell=_note,
            )
    elif format == "csv":
        text = table.to_csv(tables)
    else:
        write = table.to_markdown if format == "md" else table.to_latex
        written = [write(entry, intervals=intervals) for entry in tables]
        above = [control_page.to_markdown(controls)] if controls else []
        text = "\n".join([*above, *map(panel_page.to_markdown, panels), *written])
    if out is None:
        console.out.print(text, markup=False, highlight=False, soft_wrap=True, end="")
    else:
        files.write_text(out, text)
        console.err.print(f"Written: {escape(str(out))}", highlight=False)


def _note(text: str) -> None:
    console.err.print(f"[yellow]note[/yellow] {escape(text)}", highlight=False)
