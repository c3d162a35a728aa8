"""A few configurations of an ensemble as PDB files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gencg.ensemble import Ensemble
from gencg.files import replacing


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
        path: The file.
        ensemble: The samples, of a molecule.
        n: How many structures; one of great weight is there several times.
        seed: Decides which.

    Raises:
        ValueError: If no sample carries weight, or the ensemble has no molecule.
    """
    frames = _superposed(ensemble.resample(n, seed))
    with replacing(Path(path)) as draft:
        frames.save_pdb(str(draft))
    return Path(path)


def _superposed(ensemble: Ensemble) -> Any:
    frames = ensemble.to_mdtraj()
    heavy = [a.index for a in frames.topology.atoms if a.element and a.element.symbol != "H"]
    frames.superpose(frames, 0, atom_indices=heavy)
    return frames
