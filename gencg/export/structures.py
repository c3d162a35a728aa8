"""A few configurations of an ensemble as PDB files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gencg.analysis.alignment import superposed
from gencg.ensemble import Ensemble
from gencg.files import replacing

FEWEST_HEAVY = 3
"""With fewer heavy atoms than span a plane, a turn about them would be left open."""


def write_structures(
    folder: str | Path, ensemble: Ensemble, samples: Sequence[int], *, stem: str = "basin"
) -> list[Path]:
    """Write samples as ``basin1.pdb``, ``basin2.pdb``, ..., superposed onto the first one.

    Each file appears whole or not at all; files of higher numbers, from an earlier call, go.

    Args:
        folder: Where to write; made if missing.
        ensemble: The samples; a toy without molecule writes nothing.
        samples: Indices of the samples, in the order of the files.
        stem: Name of the files, without their number.

    Returns:
        The files written.
    """
    folder = Path(folder)
    if ensemble.molecule is None or not samples:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    frames = _superposed(ensemble.select(torch.tensor(list(samples))))
    written = []
    for k in range(len(samples)):
        path = folder / f"{stem}{k + 1}.pdb"
        with replacing(path) as draft:
            frames[k].save_pdb(str(draft))
        written.append(path)
    stale = len(samples) + 1
    while (folder / f"{stem}{stale}.pdb").exists():
        (folder / f"{stem}{stale}.pdb").unlink()
        stale += 1
    return written


def write_equal_weight(path: str | Path, ensemble: Ensemble, *, n: int = 20, seed: int = 0) -> Path:
    """Write structures drawn by weight into one PDB file, superposed onto the first one.

    The file appears whole or not at all.

    Args:
        path: The file; its folder is made if missing.
        ensemble: The samples, of a molecule.
        n: How many structures; one of great weight is there several times.
        seed: Decides which.

    Returns:
        The file written.

    Raises:
        ValueError: If `n` is below 1, no sample carries weight, or the ensemble has no molecule.
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    path = Path(path)
    frames = _superposed(ensemble.resample(n, seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        frames.save_pdb(str(draft))
    return path


def _superposed(ensemble: Ensemble) -> Any:
    """Frames turned onto the first one by their heavy atoms, or by all where these are few."""
    frames = ensemble.to_mdtraj()
    heavy = [bool(a.element) and a.element.symbol != "H" for a in frames.topology.atoms]
    chosen = torch.tensor(heavy if sum(heavy) >= FEWEST_HEAVY else [True] * len(heavy)).double()
    # MDTraj's own fit leaves planar sets of atoms, such as water, as they are
    x = ensemble.x.double()
    frames.xyz = superposed(x, x[0], chosen).numpy()
    return frames
