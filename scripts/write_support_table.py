"""Write docs/models.md: what `eval` and `train` do with each image-text-to-text type of the installed transformers.

    python scripts/write_support_table.py
    python scripts/write_support_table.py --check qwen3_vl gemma3

Each type is built tiny, with random weights, from its own configuration and its own processor, and goes from `--ckpt`
to the answer and to the log-probs of a preference row. With `--check`, the script writes nothing, and fails if a row of
the page is another. The whole table takes about five minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from support_table import TYPES, SupportRow, row_of, rows_of  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def table(rows: list[SupportRow]) -> str:
    """The table in Markdown, with a sentence of counts in front."""
    evaluated = [row for row in rows if row.evaluated.startswith("yes")]
    shared = sum(row.training == "shared prefix" for row in rows)
    several = sum(row.several == "yes" for row in rows)
    head = "| type | evaluated | several images | training |\n|---|---|---|---|"
    return (
        f"transformers {transformers.__version__} lists {len(rows)} image-text-to-text types. {len(evaluated)} of "
        f"them are evaluated, {several} with several images in a prompt. {shared} share the prefix in training.\n\n"
        f"{head}\n" + "\n".join(row.line() for row in rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/models.md from the installed transformers.")
    parser.add_argument("families", nargs="*", help="Types to check; all if none is given.")
    parser.add_argument("--check", action="store_true", help="Compare with docs/models.md, and write nothing.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows = []
    for family in arguments.families or TYPES:
        with TemporaryDirectory() as folder:
            rows.append(row_of(family, Path(folder)))
        print(rows[-1].line(), flush=True)
    page = PAGE.read_text(encoding="utf-8")
    wrong = [row.family for row in rows if row.training == "wrong" or row.evaluated.startswith("no:")]
    if wrong:
        sys.exit(
            f"Wrong answers or log-probs: {', '.join(wrong)}. Mend or refuse them in napo_bench/models/families.py."
        )
    if arguments.check:
        written = rows_of(page)
        changed = [row.family for row in rows if written.get(row.family) != row]
        sys.exit(f"docs/models.md is older than the code: {', '.join(changed)}." if changed else 0)
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
