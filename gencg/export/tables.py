"""Collective variables of a trajectory as a file: NumPy array, CSV or text."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gencg.files import replacing

TABLES = (".npy", ".csv", ".txt")


def write_table(path: str | Path, values: NDArray[np.float64], columns: Sequence[str]) -> Path:
    """Write an array with a row per frame; the file appears whole or not at all.

    Args:
        path: ``.npy`` keeps the array alone; ``.csv`` and ``.txt`` begin with a line of column
            names, in ``.txt`` marked as a comment, and keep every digit.
        values: Shape ``(n, len(columns))``.
        columns: Name and unit of each column.

    Raises:
        ValueError: If the suffix is another.
    """
    path = check_table(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        if path.suffix == ".npy":
            with draft.open("wb") as file:
                np.save(file, values)
        else:
            draft.write_text(_text(values, columns, as_csv=path.suffix == ".csv"))
    return path


def check_table(path: str | Path) -> Path:
    """The path, if its suffix is one of `TABLES`."""
    path = Path(path)
    if path.suffix not in TABLES:
        raise ValueError(f"`out` must end in {', '.join(TABLES)}, got {path}")
    return path


def _text(values: NDArray[np.float64], columns: Sequence[str], *, as_csv: bool) -> str:
    rows = [[repr(v) for v in row] for row in values.tolist()]
    text = io.StringIO()
    if as_csv:
        csv.writer(text, lineterminator="\n").writerows([list(columns), *rows])
    else:
        text.write("# " + ", ".join(columns) + "\n")
        text.writelines(" ".join(row) + "\n" for row in rows)
    return text.getvalue()
