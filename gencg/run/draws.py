"""More samples of a run: kept while they are drawn, and taken up by a longer draw."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gencg.checkpoint import load_checkpoint, save_checkpoint
from gencg.drawn import Parts, digest
from gencg.ensemble import Ensemble
from gencg.export.trajectory import FORMATS, read_samples, write_samples
from gencg.fit import FitResult
from gencg.run.execute import sample

END = "draw.pt"
"""What a longer draw needs beside the samples."""
PARTS = "parts"
"""Folder of the samples while they are drawn."""


def draw_into(
    out: str | Path,
    result: FitResult,
    n_samples: int,
    *,
    seed: int,
    formats: Sequence[str] = ("h5",),
    seconds: float = 30.0,
    announce: Callable[[str], None] = lambda text: None,
) -> tuple[Ensemble, list[Path]]:
    """Draw samples and write them into a folder, from what there is of them on.

    After a kill the same call goes on from the last part; samples of a shorter draw with the same
    seed, in the folder or beside it, are taken over. Either way the samples are those of one draw.

    Args:
        out: The folder; made if missing.
        result: What to draw from.
        n_samples: Number of samples, those that are there included.
        seed: Seed of the draw.
        formats: As for `write_samples`; those that are there already are written again.
        seconds: Wall time between two parts.
        announce: Called with a line of text where samples are taken over.

    Returns:
        The samples, and the files written.
    """
    out = Path(out)
    parts = Parts(out / PARTS, seconds=seconds)
    if (shorter := _longest(out, result, n_samples, seed)) is not None:
        samples = read_samples(shorter)
        names = ("x", "y", "z", "energy", "log_weights", "valid")
        rows = tuple(getattr(samples, name) for name in names)
        parts.begin_with(rows, load_checkpoint(shorter / END))
    ensemble = sample(result, n_samples, seed=seed, parts=parts)
    if parts.n_taken:
        announce(f"{parts.n_taken:,} of {n_samples:,} samples were there already")
    there = (name for name in FORMATS if (out / f"samples.{name}").exists())
    written = write_samples(out, ensemble, formats=list(dict.fromkeys((*formats, *there))))
    save_checkpoint(out / END, parts.end | {"n_samples": n_samples})
    parts.remove()
    return ensemble, written


def is_shorter(out: str | Path, result: FitResult, n_samples: int, seed: int) -> bool:
    """Whether a folder holds a draw of fewer samples that `draw_into` would make longer."""
    end = _end(Path(out), result, seed)
    return end is not None and int(end["n_samples"]) < n_samples


def _longest(out: Path, result: FitResult, n_samples: int, seed: int) -> Path | None:
    """The folder with most whole batches that belong to this draw."""
    found: list[tuple[int, Path]] = []
    for folder in sorted({out, *out.parent.glob(f"seed{seed}_n*")}):
        end = _end(folder, result, seed)
        if end is not None and 0 < int(end["n_rows"]) <= n_samples:
            found.append((int(end["n_rows"]), folder))
    return max(found)[1] if found else None


def _end(folder: Path, result: FitResult, seed: int) -> dict[str, Any] | None:
    """What the folder says of its draw, if it is one of this model and seed."""
    if not ((folder / END).is_file() and (folder / "samples.h5").is_file()):
        return None
    try:
        end = load_checkpoint(folder / END)
        about = end["about"]
        mine = about["seed"] == seed and about["model"] == digest(result.model)
        return end if mine and int(end["n_rows"]) <= int(end["n_samples"]) else None
    except (ValueError, KeyError, TypeError):
        return None
