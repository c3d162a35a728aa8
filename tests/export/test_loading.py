"""Files of others are data: they run nothing, lead nowhere, and take no more memory than is there.

Cannot detect: a flaw of the HDF5 library itself.
"""

import gzip
import os
import pickle
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import pytest
import torch

from gencg import systems
from gencg.ensemble import Ensemble
from gencg.export import loading, read_samples, write_samples
from gencg.export.loading import load_trajectory
from gencg.molecule import Molecule

PDB = Path(systems.__file__).parent / "data" / "alanine_dipeptide.pdb"


@pytest.fixture(scope="module")
def frames():
    frame = mdtraj.load(str(PDB))
    frames = mdtraj.join([frame] * 3)
    frames.xyz += np.random.default_rng(0).normal(size=frames.xyz.shape).astype(np.float32)
    frames.time = np.array([0.0, 2.0, 4.0], dtype=np.float32)
    frames.unitcell_vectors = np.eye(3)[None].repeat(3, 0) * 3
    return frames


def same(a, b) -> bool:
    names = ("xyz", "time", "unitcell_lengths", "unitcell_angles")
    pairs = [(getattr(a, name), getattr(b, name)) for name in names]
    return a.topology == b.topology and all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("suffix", ["h5", "xtc"])
def test_a_trajectory_is_what_mdtraj_reads(suffix: str, frames, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    frames.save(str(path))
    top = {} if suffix == "h5" else {"top": str(PDB)}
    assert same(load_trajectory(path, **top), mdtraj.load(str(path), **top))


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_an_hdf5_file_does_not_run(frames, tmp_path: Path) -> None:
    path, trap = tmp_path / "a.h5", tmp_path / "sprung"
    frames.save(str(path))
    with h5py.File(path, "a") as file:
        file["coordinates"].attrs["units"] = np.bytes_(pickle.dumps(_Trap(trap), protocol=0))
    with pytest.raises(ValueError, match=r"a\.h5 cannot be read \(ValueError: coordinates must be"):
        load_trajectory(path)
    frames.save(str(tmp_path / "a.xtc"))
    load_trajectory(tmp_path / "a.xtc", top=path)
    assert not trap.exists()
    # With MDTraj alone it does, which is why this test is here
    with pytest.raises(AttributeError):
        mdtraj.load(str(path))
    assert trap.exists()


def large(file: h5py.File) -> None:
    del file["coordinates"]
    file.create_dataset("coordinates", shape=(10**9, 22, 3), chunks=(1, 22, 3), dtype="f4")


def elsewhere(file: h5py.File) -> None:
    del file["coordinates"]
    file["coordinates"] = h5py.ExternalLink("b.h5", "/coordinates")


def raw(file: h5py.File) -> None:
    del file["coordinates"]
    file.create_dataset("coordinates", (3, 22, 3), "f4", external=[("b.h5", 0, 3 * 22 * 12)])


def bond(file: h5py.File) -> None:
    text = file["topology"][0].replace(b'"bonds": [[', b'"bonds": [[-1, 99999], [')
    del file["topology"]
    file["topology"] = np.array([text], dtype=np.bytes_)


@pytest.mark.parametrize(
    "change, words",
    [
        (large, "is said to have 264,000,000,000 bytes, more than fit in"),
        (elsewhere, "it has no array coordinates"),
        (raw, "coordinates lies in another file"),
        (bond, r"(no bond of atoms -1 and 99999|zip\(\))"),
    ],
)
def test_arrays_that_are_not_there_are_refused(change, words: str, frames, tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        frames.save(str(tmp_path / name))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        change(file)
    with pytest.raises(ValueError, match=words):
        load_trajectory(tmp_path / "a.h5")


def test_a_reader_that_falls_over_a_file_is_told(
    frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames.save(str(tmp_path / "a.xtc"))
    monkeypatch.setattr("gencg.export.isolated.run_apart", lambda arguments: (-11, b"", b""))
    with pytest.raises(ValueError, match=r"a\.xtc with --top .* its reader fell over it \(-11\)"):
        load_trajectory(tmp_path / "a.xtc", top=PDB)


def test_modules_of_the_working_directory_are_not_run(
    frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames.save(str(tmp_path / "a.xtc"))
    monkeypatch.chdir(tmp_path)
    for name in ("numpy", "mdtraj"):
        (tmp_path / f"{name}.py").write_text("open('planted', 'w').close()")
    assert load_trajectory("a.xtc", top=PDB).n_frames == frames.n_frames
    assert not (tmp_path / "planted").exists()


def test_a_packed_file_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pdb.gz"
    path.write_bytes(gzip.compress(PDB.read_bytes()))
    assert load_trajectory(path).n_atoms == 22
    monkeypatch.setattr(loading, "LARGEST_UNPACKED", 1000)
    with pytest.raises(ValueError, match="more than 1,000 bytes when it is unpacked"):
        load_trajectory(path)


def test_an_array_that_claims_more_than_is_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((4, 22, 3)))
    assert load_trajectory(path).shape == (4, 22, 3)
    path.write_bytes(path.read_bytes().replace(b"(4, 22", b"(999999999999, 22")[:700])
    with pytest.raises(ValueError, match=r"a\.npy is no array of numbers"):
        load_trajectory(path)
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy is no array of numbers"):
        load_trajectory(path)


@pytest.mark.parametrize("name", ["energy", "x", "valid", "reference", "temperature"])
def test_a_changed_number_of_the_samples_is_noticed(name: str, tmp_path: Path) -> None:
    frame = mdtraj.load(str(PDB))
    n, molecule = 4, Molecule(frame.topology, frame.xyz[0].astype(float))
    ensemble = Ensemble(
        x=torch.from_numpy(molecule.positions).repeat(n, 1, 1), y=torch.zeros(n, 60),
        z=torch.zeros(n, 0), energy=torch.zeros(n), log_weights=torch.zeros(n),
        valid=torch.ones(n, dtype=torch.bool), temperature=300.0, molecule=molecule,
    )  # fmt: skip
    (path, _) = write_samples(tmp_path, ensemble)
    assert torch.equal(read_samples(path).x, ensemble.x)
    with h5py.File(path, "a") as file:
        if name == "temperature":
            file.attrs[name] = 301.0
        else:
            file[name][0] = 0 if name == "valid" else 1.0
    with pytest.raises(ValueError, match=r"samples\.h5 is damaged .*its checksum differs"):
        read_samples(path)
    # What was written before there was a checksum has none
    with h5py.File(path, "a") as file:
        del file.attrs["sha256"]
    assert read_samples(path).n_samples == n
