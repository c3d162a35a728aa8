"""Collective variables over time as PLUMED prints them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gencg.export.checks import ExportError
from gencg.files import replacing


def write_colvar(
    path: str | Path,
    columns: Mapping[str, ArrayLike],
    *,
    angles: Sequence[str] = (),
) -> Path:
    """Write columns as a COLVAR file, angles with the period of a circle; every digit is kept.

    Args:
        path: Where to write.
        columns: Numbers ``(n,)`` by name, the first usually "time", in ps.
        angles: Names of the columns that are angles in rad.

    Raises:
        ValueError: If a name has a blank in it or the columns differ in length.
    """
    path = Path(path)
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    if broken := [name for name in arrays if not name or name.split() != [name]]:
        raise ValueError(f"names of columns must have no blanks, got {broken[0]!r}")
    if len({array.shape for array in arrays.values()}) != 1:
        raise ValueError("`columns` must all have the same length")
    lines = ["#! FIELDS " + " ".join(arrays)]
    for name in angles:
        lines += [f"#! SET min_{name} -pi", f"#! SET max_{name} pi"]
    rows = np.stack(list(arrays.values()), axis=1).tolist()
    lines += [" " + " ".join(repr(value) for value in row) for row in rows]
    with replacing(path) as draft:
        draft.write_text("\n".join(lines) + "\n")
    return path


def read_colvar(path: str | Path) -> dict[str, NDArray[np.float64]]:
    """Columns of a COLVAR file by name.

    Raises:
        ExportError: If it does not begin with the names of as many columns as it has.
    """
    with Path(path).open() as file:
        words = file.readline().split()
    if words[:2] != ["#!", "FIELDS"]:
        raise ExportError(f"{path} does not begin with #! FIELDS")
    rows = np.loadtxt(path, comments="#", ndmin=2)
    if rows.shape[1] != len(words) - 2:
        raise ExportError(f"{path} names {len(words) - 2} columns and has {rows.shape[1]}")
    return dict(zip(words[2:], rows.T, strict=True))
