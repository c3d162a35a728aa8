"""Structures as PDB files: the samples asked for, superposed, nothing stale.

Cannot detect: whether a viewer likes the file.
"""

from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from cv_samples import made_up_ensemble

from gencg.ensemble import Ensemble
from gencg.export import write_equal_weight, write_structures
from gencg.systems import alanine_dipeptide, from_smiles


def test_structures_are_the_samples_up_to_rigid_motion(tmp_path: Path) -> None:
    ensemble = made_up_ensemble(alanine_dipeptide(), 20)
    files = write_structures(tmp_path, ensemble, [3, 7, 11])
    assert [f.name for f in files] == ["basin1.pdb", "basin2.pdb", "basin3.pdb"]
    for file, k in zip(files, (3, 7, 11), strict=True):
        found, x = mdtraj.load(str(file)).xyz[0], ensemble.x[k].numpy()
        distances = [np.linalg.norm(p[:, None] - p, axis=-1) for p in (found, x)]
        # PDB keeps 0.0001 nm
        assert np.abs(distances[0] - distances[1]).max() < 3e-4

    # Fewer structures leave no old ones behind
    write_structures(tmp_path, ensemble, [5])
    assert [f.name for f in tmp_path.iterdir()] == ["basin1.pdb"]


def test_structures_of_equal_weight_are_drawn_by_weight(tmp_path: Path) -> None:
    ensemble = made_up_ensemble(alanine_dipeptide(), 20)
    log_weights = torch.full((20,), -torch.inf, dtype=torch.float64)
    log_weights[4], log_weights[9] = 0.0, torch.tensor(3.0).log()
    path = tmp_path / "structures.pdb"
    write_equal_weight(path, replace(ensemble, log_weights=log_weights), n=8)
    found = mdtraj.load(str(path)).xyz
    shape = np.linalg.norm(found[:, 0] - found[:, 10], axis=-1)
    four, nine = (float((ensemble.x[k, 0] - ensemble.x[k, 10]).norm()) for k in (4, 9))
    assert sum(abs(d - four) < 3e-4 for d in shape) == 2
    assert sum(abs(d - nine) < 3e-4 for d in shape) == 6


def test_few_heavy_atoms_are_superposed_with_their_hydrogens(tmp_path: Path) -> None:
    water = from_smiles("O").molecule
    flat = torch.as_tensor(water.positions)[None]
    # The same molecule, turned and moved
    x = torch.cat([flat, flat[..., [1, 2, 0]] + 1.0])
    none = torch.zeros(2)
    ensemble = Ensemble(
        x=x, y=x.flatten(1), z=x[:, 0, :0], energy=none, log_weights=none,
        valid=none == 0, temperature=300.0, molecule=water,
    )  # fmt: skip
    first, second = (mdtraj.load(str(f)).xyz for f in write_structures(tmp_path, ensemble, [0, 1]))
    assert np.abs(first - second).max() < 3e-4


def test_no_structures_are_refused_and_a_folder_is_made(tmp_path: Path) -> None:
    ensemble = made_up_ensemble(alanine_dipeptide(), 20)
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        write_equal_weight(tmp_path / "a.pdb", ensemble, n=0)
    path = write_equal_weight(tmp_path / "new" / "a.pdb", ensemble, n=2)
    assert mdtraj.load(str(path)).n_frames == 2
