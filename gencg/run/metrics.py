"""The log of a training run as a table, metrics.csv."""

import dataclasses
from pathlib import Path
from typing import IO, Any

from gencg.files import naming, write_atomically
from gencg.training import StepInfo

COLUMNS: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(StepInfo)}


def read_metrics(path: str | Path) -> list[StepInfo]:
    """Log lines in their order; none for a missing file, and a line cut off by a kill is left.

    So are lines that hold anything else. A table of before may lack the last columns, which then
    have their defaults.
    """
    try:
        text = Path(path).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return []
    # A number that is cut off may still be a number
    lines = text[: text.rfind("\n") + 1].splitlines()
    rows = [line.split(",") for line in lines]
    names = rows[0] if rows else []
    return [info for row in rows[1:] if (info := _parse(row, names)) is not None]


class MetricsWriter:
    """Reporter that writes one line per step; steps done again after a kill replace the old.

    Args:
        path: The table; lines before the first step reported are kept.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def __call__(self, info: StepInfo) -> None:
        if self._file is None:
            self._file = self._start(info.step)
        with naming(self.path):
            self._file.write(_line(info))
            self._file.flush()

    def _start(self, step: int) -> IO[str]:
        kept = [_line(info) for info in read_metrics(self.path) if info.step < step]
        content = "".join([",".join(COLUMNS) + "\n", *kept])
        write_atomically(self.path, content.encode())
        return open(self.path, "a", newline="")

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with naming(self.path):
                self._file.close()


def _line(info: StepInfo) -> str:
    return ",".join(repr(getattr(info, name)) for name in COLUMNS) + "\n"


def _parse(row: list[str], names: list[str]) -> StepInfo | None:
    if len(row) != len(names):
        return None
    try:
        return StepInfo(**{name: COLUMNS[name](v) for name, v in zip(names, row, strict=True)})
    except (KeyError, TypeError, ValueError):
        return None
