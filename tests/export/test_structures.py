"""Structures as PDB files: the samples asked for, superposed, nothing stale.

Cannot detect: whether a viewer likes the file.
"""

from pathlib import Path

import mdtraj
import numpy as np
from cv_samples import made_up_ensemble

from gencg.export import write_structures
from gencg.systems import alanine_dipeptide


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
