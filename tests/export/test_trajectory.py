"""Written ensembles come back as they were.

Cannot detect: whether the weights are right; that is `tests/test_ensemble.py`.
"""

import csv
import math
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gencg.ensemble import Ensemble
from gencg.export import read_samples, write_samples
from gencg.molecule import Molecule

PDB = Path(__file__).parents[2] / "gencg/systems/data/alanine_dipeptide.pdb"
FIELDS = ("x", "y", "z", "energy", "log_weights", "valid")


def dipeptide(n: int = 12) -> Ensemble:
    """Shaken copies of the reference structure; the last is broken."""
    molecule = Molecule.from_mdtraj(mdtraj.load(str(PDB)))
    x = torch.tensor(molecule.positions) + 0.01 * torch.randn(n, molecule.n_atoms, 3)
    x[-1] = math.nan
    log_weights = torch.randn(n)
    log_weights[-1] = -math.inf
    return Ensemble(
        x=x,
        y=torch.randn(n, 60),
        z=torch.randn(n, 2),
        energy=torch.randn(n),
        log_weights=log_weights,
        valid=torch.arange(n) < n - 1,
        temperature=310.0,
        molecule=molecule,
        n_energy_calls=99,
        name="alanine-dipeptide",
    )


def toy(n: int = 7) -> Ensemble:
    x, one = torch.randn(n, 2), torch.ones(n)
    return Ensemble(
        x=x,
        y=x,
        z=torch.zeros(n, 0),
        energy=one,
        log_weights=one,
        valid=one > 0,
        temperature=120.0,
        name="Müller",
    )


@pytest.mark.parametrize("build", [dipeptide, toy])
def test_round_trip_is_exact(build, tmp_path: Path) -> None:
    ensemble = build()
    write_samples(tmp_path / "run", ensemble)
    for path in (tmp_path / "run", tmp_path / "run" / "samples.h5"):
        again = read_samples(path)
        for name in FIELDS:
            before, after = getattr(ensemble, name), getattr(again, name)
            assert after.dtype == before.dtype
            assert torch.equal(after.nan_to_num(), before.nan_to_num())
        for name in ("temperature", "n_energy_calls", "name"):
            assert getattr(again, name) == getattr(ensemble, name)


def test_the_molecule_comes_back(tmp_path: Path) -> None:
    ensemble = dipeptide()
    write_samples(tmp_path, ensemble)
    before, after = ensemble.molecule, read_samples(tmp_path).molecule
    assert before is not None
    assert after is not None
    assert after.topology == before.topology
    assert after.names == before.names
    assert np.array_equal(after.bonds, before.bonds)
    assert np.array_equal(after.positions, before.positions)


def test_mdtraj_loads_it_without_a_topology(tmp_path: Path) -> None:
    ensemble = dipeptide()
    write_samples(tmp_path, ensemble)
    trajectory = mdtraj.load(str(tmp_path / "samples.h5"))
    assert ensemble.molecule is not None
    assert trajectory.topology == ensemble.molecule.topology
    assert trajectory.unitcell_lengths is None
    assert trajectory.n_frames == 12
    assert_close(torch.tensor(trajectory.xyz[:-1]), ensemble.x[:-1].float(), rtol=0, atol=0)
    phi = mdtraj.compute_phi(trajectory)[1]
    assert phi.shape == (12, 1)

    pdb = mdtraj.load(str(tmp_path / "topology.pdb"))
    assert [a.name for a in pdb.topology.atoms] == [a.name for a in trajectory.topology.atoms]
    assert pdb.topology.n_bonds == trajectory.topology.n_bonds
    assert np.abs(pdb.xyz[0] - ensemble.molecule.positions).max() < 1e-4


def test_weights_lie_beside_the_positions(tmp_path: Path) -> None:
    import h5py

    ensemble = dipeptide()
    write_samples(tmp_path, ensemble)
    with h5py.File(tmp_path / "samples.h5") as file:
        assert file["weights"][()].sum() == pytest.approx(1)
        assert file["weights"][-1] == 0
        assert file["x"].dtype == np.float64
        assert "time" not in file


@pytest.mark.parametrize("kind, precision", [("xtc", 1.0e-3), ("dcd", 1e-6)])
def test_other_formats_hold_the_valid_samples(kind, precision, tmp_path: Path) -> None:
    ensemble = dipeptide()
    files = write_samples(tmp_path, ensemble, formats=("h5", kind))
    assert sorted(p.name for p in files) == sorted(p.name for p in tmp_path.iterdir())
    trajectory = mdtraj.load(str(tmp_path / f"samples.{kind}"), top=str(tmp_path / "topology.pdb"))
    assert trajectory.n_frames == 11
    assert np.abs(trajectory.xyz - ensemble.x[:-1].numpy()).max() < precision
    with (tmp_path / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in rows] == list(range(11))
    assert [float(row["weight"]) for row in rows] == ensemble.weights[:-1].tolist()
    assert [float(row["energy_kj_per_mol"]) for row in rows] == ensemble.energy[:-1].tolist()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    import gencg.export.trajectory as module

    write_samples(tmp_path, toy())
    old = (tmp_path / "samples.h5").read_bytes()

    def fail(path: Path, ensemble: Ensemble) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(module, "_write_hdf5", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_samples(tmp_path, toy())
    assert (tmp_path / "samples.h5").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["samples.h5"]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`formats` must be among h5, xtc, dcd, got 'pdbqt'"):
        write_samples(tmp_path / "new", toy(), formats=("pdbqt",))
    with pytest.raises(ValueError, match="need a molecule"):
        write_samples(tmp_path / "new", toy(), formats=("xtc",))
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileNotFoundError, match=r"no samples at .*samples\.h5"):
        read_samples(tmp_path)
    damaged = tmp_path / "samples.h5"
    write_samples(tmp_path, toy())
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged or not written by gencg"):
        read_samples(damaged)
    mdtraj.load(str(PDB)).save_hdf5(str(tmp_path / "other.h5"))
    with pytest.raises(ValueError, match="is damaged or not written by gencg"):
        read_samples(tmp_path / "other.h5")
