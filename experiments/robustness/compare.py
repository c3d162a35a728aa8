"""Whether two run folders hold the same result, to the last bit."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import torch

from gencg.checkpoint import load_checkpoint

TIMES = ("seconds", "wall_seconds", "training_seconds")
CALLS = ("energy_calls", "gradient_calls")
"""Counts of work: what a kill lost was computed, too, and counts, so that they may be higher."""
CHECKPOINTS = ("checkpoint.pt", "joint.pt", "cvs.pt", "probes.pt")


def differences(a: Path, b: Path) -> list[str]:
    """Places where a run that was killed differs from a whole one, but for time and lost work.

    Args:
        a: The whole run.
        b: The other, whose counts of work may be higher.
    """
    found = [f"only one has {name}" for name in sorted(_names(a) ^ _names(b))]
    for name in CHECKPOINTS:
        if (a / name).exists() and (b / name).exists():
            found += _differ(load_checkpoint(a / name), load_checkpoint(b / name), name)
    found += _differ(_samples(a / "samples.h5"), _samples(b / "samples.h5"), "samples.h5")
    found += _differ(_metrics(a), _metrics(b), "metrics.csv")
    for name in ("summary.json", "figures/explain.json"):
        if (a / name).exists() and (b / name).exists():
            pair = (json.loads((folder / name).read_text()) for folder in (a, b))
            found += _differ(*pair, name)
    for name in sorted(_names(a) & _names(b)):
        # The axis of the training figure counts energy calls, lost ones included
        drawn = name.endswith(".png") and name != "figures/training.png"
        if (drawn or name.endswith(".pdb")) and _content(a / name) != _content(b / name):
            found.append(f"{name} differs")
    if (b / "drawing").exists() or any(p.name.startswith(".") and p.name != ".lock"
                                       for p in b.rglob("*")):  # fmt: skip
        found.append("drafts are left")
    return found


def _names(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files}


def _content(path: Path) -> list[bytes]:
    """Lines of a file without the remark that tells the day."""
    return [line for line in path.read_bytes().split(b"\n") if not line.startswith(b"REMARK")]


def _differ(a: Any, b: Any, place: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        if set(a) != set(b):
            yield f"{place} has other keys"
        for key in a.keys() & b.keys():
            if key in CALLS:
                if None not in (a[key], b[key]) and float(b[key]) < float(a[key]):
                    yield f"{place}.{key} is lower: {a[key]} and {b[key]}"
            elif key not in TIMES:
                yield from _differ(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            yield f"{place} has another length"
        for k, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from _differ(x, y, f"{place}[{k}]")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.shape == b.shape and a.dtype == b.dtype
        if not (same and bool(((a == b) | ((a != a) & (b != b))).all())):
            yield f"{place} differs"
    # Not equal to itself: a number that is none
    elif not (a == b or (a != a and b != b)):
        yield f"{place} is {a} and {b}"


def _samples(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        found: dict[str, Any] = {
            name: file[name][()].tobytes() for name in file if name not in ("_",)
        }
        return found | {f"attribute {name}": value for name, value in file.attrs.items()}


def _metrics(folder: Path) -> list[dict[str, Any]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))
