"""Percent-format scripts as notebooks: ``python -m gencg.notebook.convert docs/tutorials``."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gencg.report import write_atomically

_CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


def cells_of(text: str) -> list[tuple[str, str]]:
    """Kind ("code" or "markdown") and content of the cells of a script.

    A line ``# %%`` begins a cell of code, ``# %% [markdown]`` one of text, whose number signs go.
    What stands before the first is a cell of code too, if it is anything.

    Args:
        text: The script.
    """
    first, *rest = _CELL.split(text)
    found = [("code", first.strip("\n"))]
    for head, body in zip(rest[::2], rest[1::2], strict=True):
        content = body.strip("\n")
        if "[markdown]" in head:
            lines = [re.sub(r"^# ?", "", line) for line in content.splitlines()]
            found.append(("markdown", "\n".join(lines).strip("\n")))
        else:
            found.append(("code", content))
    return [(kind, content) for kind, content in found if content]


def notebook_of(text: str) -> dict[str, Any]:
    """A script as a notebook of format 4.5, without outputs.

    Args:
        text: The script.
    """
    cells: list[dict[str, Any]] = []
    for number, (kind, content) in enumerate(cells_of(text)):
        cell: dict[str, Any] = {
            "cell_type": kind,
            "id": f"cell-{number}",
            "metadata": {},
            "source": content.splitlines(keepends=True),
        }
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def convert(source: str | Path, out: str | Path | None = None) -> list[Path]:
    """Write a notebook for a script, or for every script of a folder.

    Args:
        source: A script in percent format, or a folder of such.
        out: Folder of the notebooks; None: that of the scripts.

    Returns:
        The notebooks.

    Raises:
        ValueError: If there is no such script, or one has no cells.
    """
    source = Path(source)
    scripts = sorted(source.glob("*.py")) if source.is_dir() else [source]
    if not scripts or not all(script.is_file() for script in scripts):
        raise ValueError(f"`source` must be a script or a folder of scripts, got {source}")
    written = []
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        if not _CELL.search(text):
            raise ValueError(f"{script} has no cells: begin them with lines `# %%`")
        path = (script.parent if out is None else Path(out)) / f"{script.stem}.ipynb"
        content = json.dumps(notebook_of(text), indent=1, ensure_ascii=False) + "\n"
        write_atomically(path, content.encode())
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; a wrong argument is one line on stderr and code 2.

    Args:
        arguments: What follows the name of the command.
    """
    parser = argparse.ArgumentParser(
        prog="python -m gencg.notebook.convert", description="Percent-format scripts as notebooks."
    )
    parser.add_argument("source", help="a script, or a folder of scripts such as docs/tutorials")
    parser.add_argument("--out", help="folder of the notebooks; by default that of the scripts")
    given = parser.parse_args(arguments)
    try:
        for path in convert(given.source, given.out):
            sys.stdout.write(f"{path}\n")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
