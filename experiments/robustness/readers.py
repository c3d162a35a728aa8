"""Everything of gencg that reads what others wrote, each with whole files to begin with."""

import contextlib
import gzip
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from experiments.robustness.mutations import sealed
from gencg.export.isolated import READ

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
DIPEPTIDE = ROOT / "gencg" / "systems" / "data" / "alanine_dipeptide.pdb"


@dataclass(frozen=True)
class Reader:
    """One reader of files.

    Args:
        read: Reads the file of this path; a `ValueError` or `OSError` is how it refuses one.
        seeds: Whole files to be damaged, by their name.
        repair: Applied to the damaged bytes, such as a checksum set right.
    """

    read: Callable[[Path], Any]
    seeds: dict[str, bytes]
    repair: Callable[[bytes], bytes] | None = None


def readers(folder: Path) -> dict[str, Reader]:
    """All readers of files by name; their whole files are made in `folder`."""
    return {
        **_checkpoints(folder),
        **_samples(folder),
        **_trajectories(folder),
        **_molecules(folder),
        **_settings(folder),
    }


def _checkpoints(folder: Path) -> dict[str, Reader]:
    from gencg.checkpoint import load_checkpoint

    seeds = {f"{n}.pt": (TESTS / "data" / f"checkpoint_format{n}.pt").read_bytes() for n in (1, 2)}
    return {
        "checkpoint": Reader(load_checkpoint, seeds),
        "checkpoint, checksum right": Reader(load_checkpoint, seeds, sealed),
        "training that goes on": Reader(_resume, seeds, sealed),
    }


def _resume(path: Path) -> Any:
    sys.path.insert(0, str(TESTS))
    from tiny_fit import tiny_fit

    torch.set_default_dtype(torch.float32)
    return tiny_fit(path)


def _ensemble(n: int) -> Any:
    import mdtraj

    from gencg.ensemble import Ensemble
    from gencg.molecule import Molecule

    frame = mdtraj.load(str(DIPEPTIDE))
    molecule = Molecule(frame.topology, frame.xyz[0].astype(float))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, frame.n_atoms, 3, generator=generator, dtype=torch.float64)
    flat = torch.randn(n, 62, generator=generator, dtype=torch.float64)
    return Ensemble(
        x=torch.from_numpy(molecule.positions) + 0.001 * noise, y=flat[:, :60], z=flat[:, :0],
        energy=flat[:, 60], log_weights=flat[:, 61], valid=torch.ones(n, dtype=torch.bool),
        temperature=300.0, molecule=molecule, name="dipeptide",
    )  # fmt: skip


def _samples(folder: Path) -> dict[str, Reader]:
    from gencg.export import read_samples, write_samples

    (path, *_) = write_samples(folder / "samples", _ensemble(3))
    return {"samples.h5": Reader(read_samples, {"samples.h5": path.read_bytes()})}


def _trajectories(folder: Path) -> dict[str, Reader]:
    import mdtraj

    from gencg.export.loading import load_trajectory

    frames = mdtraj.load(str(DIPEPTIDE))
    frames = mdtraj.join([frames] * 3)
    seeds = {}
    for suffix in ("h5", "pdb", "xtc", "dcd", "trr", "gro", "nc", "xyz"):
        path = folder / f"frames.{suffix}"
        with contextlib.redirect_stdout(io.StringIO()):
            frames.save(str(path))
        seeds[path.name] = path.read_bytes()
    seeds["frames.pdb.gz"] = gzip.compress(seeds["frames.pdb"], mtime=0)
    array = io.BytesIO()
    np.save(array, frames.xyz)
    seeds["frames.npy"] = array.getvalue()
    seeds["frames.mol2"] = MOL2.encode()

    def read(path: Path) -> Any:
        with mock.patch("gencg.export.isolated.run_apart", forked):
            return load(path)

    def load(path: Path) -> Any:
        alone = path.name.endswith((".h5", ".pdb", ".pdb.gz", ".npy", ".gro", ".mol2"))
        return load_trajectory(path, None if alone else DIPEPTIDE)

    def read_top(path: Path) -> Any:
        with mock.patch("gencg.export.isolated.run_apart", forked):
            return load_trajectory(folder / "frames.xtc", path)

    tops = {name: seeds[name] for name in ("frames.pdb", "frames.gro", "frames.h5")}
    found = {
        f"trajectory {name.partition('.')[2]}": Reader(read, {name: data})
        for name, data in seeds.items()
    }
    return {**found, "topology of a trajectory": Reader(read_top, tops)}


def forked(arguments: list[str]) -> tuple[int, bytes, bytes]:
    """The reader of `gencg.export.isolated` in a copy of this process, which has MDTraj loaded."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = ["-c", *arguments]
            code = 0
            try:
                exec(compile(READ, "READ", "exec"), {})
            except SystemExit as stop:
                os.write(2, str(stop.code).encode())
                code = 1
            except BaseException:
                code = 2
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def _molecules(folder: Path) -> dict[str, Reader]:
    sys.path.insert(0, str(TESTS))
    from amide_files import write_amber, write_gromacs

    from gencg.systems.amber import read_prmtop
    from gencg.systems.gromacs import read_gromacs, written_out
    from gencg.systems.sdf import parse_block, read_blocks
    from gencg.systems.serialized import read_serialized
    from gencg.systems.structure import read_structure

    (folder / "amber").mkdir()
    (folder / "gromacs").mkdir()
    write_amber(folder / "amber")
    write_gromacs(folder / "gromacs")
    amber = {path.suffix: path for path in (folder / "amber").iterdir()}
    top, gro = folder / "gromacs" / "amide.top", folder / "gromacs" / "amide.gro"
    prmtop = next(path for s, path in amber.items() if s in (".prmtop", ".parm7"))
    inpcrd = next(path for s, path in amber.items() if s not in (".prmtop", ".parm7"))

    def read_sdf(path: Path) -> Any:
        return [parse_block(block, str(path)) for block in read_blocks(path)[:5]]

    pdb = {"a.pdb": DIPEPTIDE.read_bytes(), "a.cif": _cif(folder)}
    return {
        "structure": Reader(read_structure, pdb),
        "sdf": Reader(read_sdf, {"a.sdf": SDF.encode(), "b.mol": _v3000()}),
        "prmtop": Reader(lambda p: read_prmtop(p, inpcrd), {"a.prmtop": prmtop.read_bytes()}),
        "inpcrd": Reader(
            lambda p: read_prmtop(prmtop, p), {f"a{inpcrd.suffix}": inpcrd.read_bytes()}
        ),
        "gromacs top": Reader(lambda p: read_gromacs(p, gro), {"a.top": written_out(top).encode()}),
        "gro": Reader(lambda p: read_gromacs(top, p), {"a.gro": gro.read_bytes()}),
        "serialized system": Reader(
            lambda p: read_serialized(p, DIPEPTIDE), {"a.xml": _xml().encode()}
        ),
    }


def _cif(folder: Path) -> bytes:
    from openmm import app

    structure = app.PDBFile(str(DIPEPTIDE))
    text = io.StringIO()
    app.PDBxFile.writeFile(structure.topology, structure.positions, text)
    return text.getvalue().encode()


def _xml() -> str:
    import openmm
    from openmm import app

    structure = app.PDBFile(str(DIPEPTIDE))
    field = app.ForceField("amber96.xml")
    return str(openmm.XmlSerializer.serialize(field.createSystem(structure.topology)))


def _v3000() -> bytes:
    from rdkit import Chem

    mol = Chem.AddHs(Chem.MolFromSmiles("C[C@H](O)C(=O)N"))
    return Chem.MolToV3KMolBlock(mol).encode()


def _settings(folder: Path) -> dict[str, Reader]:
    from gencg.config import RunConfig, read_object, read_toml
    from gencg.run.folder import RunFolder
    from gencg.run.metrics import read_metrics
    from gencg.systems import double_well

    config = RunConfig("double-well", n_cvs=0, energy_calls=1e6).resolve(double_well())
    toml = b'seed = 7\nenergy-calls = 12e6\nforcefield = ["a.xml", "b.xml"]\ntemperature = 3.1\n'
    metrics = b"step,n_steps,beta,temperature,loss,ess,energy_calls,gradient_calls,gradient_norm,"
    metrics += b"learning_rate,n_compressed,n_dropped,n_invalid,seconds,n_restored\n"
    metrics += b"1,20,0.25,481.0,-2.1,0.1,200,200,3.5,0.001,0,4,0,0.02,0\n" * 3

    def read_config(path: Path) -> Any:
        home = path.parent / "run"
        home.mkdir(exist_ok=True)
        shutil.copy(path, home / "config.json")
        return RunFolder.open(home).config.resolve(double_well())

    def from_toml(path: Path) -> Any:
        content = read_toml(path)
        RunConfig.check_names(content, source=str(path))
        return RunConfig(**{**content, "target": "double-well"}).resolve(double_well())

    return {
        "config.json": Reader(read_config, {"config.json": config.to_json().encode()}),
        "config toml": Reader(from_toml, {"a.toml": toml}),
        "summary.json": Reader(read_object, {"summary.json": b'{"ess": 0.5, "name": "a"}'}),
        "metrics.csv": Reader(read_metrics, {"metrics.csv": metrics}),
    }


RUN_FILES = (
    "config.json", "summary.json", "versions.json", "metrics.csv", "checkpoint.pt", "probes.pt",
    "samples.h5", ".lock",
)  # fmt: skip
"""Files of a run of which a damaged one must not bring the command line down."""
VERBS: tuple[Sequence[str], ...] = (
    ["run", "double-well"], ["report", "run"], ["sample", "run", "-n", "20", "--out", "more"],
    ["check", "run"], ["states", "run"], ["explain", "run"], ["cv", "run", "run/samples.h5"],
    ["backmap", "run", "--cv", "1", "-n", "5"], ["export", "run", "--format", "colvar"],
    ["walk", "run", "--cv", "1"],
)  # fmt: skip
SMALL = [
    "--energy-calls", "3e3", "--samples", "100", "--batch-size", "400", "--coverage-calls", "1.2e3",
    "--cvs", "0", "--quiet", "--out", "run",
]  # fmt: skip
CODES = (0, 1, 2, 74, 75)


def finished_run(folder: Path) -> Path:
    """A finished run of the double well in ``folder/run``, whose report has one small figure."""
    with contextlib.chdir(folder), quick_figures():
        assert command(["run", "double-well", *SMALL])[0] == 0
    return folder / "run"


@contextlib.contextmanager
def quick_figures() -> Iterator[None]:
    """Reports with a figure that is drawn in no time."""
    from matplotlib.figure import Figure

    from gencg.plots.overview import Panel

    def overview(*_: Any, **__: Any) -> list[Panel]:
        return [Panel("small", "Small", "A figure.", Figure(figsize=(0.2, 0.2)))]

    with mock.patch("gencg.report.page.overview", overview):
        yield


def command(arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and stderr of a command line in this process."""
    from gencg import cli

    code, err = 0, io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main([*arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, err.getvalue()


def complaint(code: int, err: str, codes: Sequence[int] = CODES) -> str | None:
    """What is wrong with the end of a command; None where it is as documented."""
    if code not in codes or "Traceback" in err or "gencg: unexpected" in err:
        return f"code {code}: {err[-500:]}"
    lines = [line for line in err.splitlines() if line.startswith("gencg: ")]
    if code not in (0, 1) and len(lines) != 1:
        return f"code {code} and {len(lines)} lines: {err[-500:]}"
    return None


def damaged_run(whole: Path, name: str, data: bytes, verb: Sequence[str]) -> str | None:
    """What is wrong when a verb meets a run with a damaged file; None where nothing is."""
    shutil.rmtree("run", ignore_errors=True)
    shutil.rmtree("more", ignore_errors=True)
    shutil.copytree(whole, "run")
    (Path("run") / name).write_bytes(data)
    arguments = [*verb, *SMALL] if verb[0] == "run" else [*verb, "--quiet"]
    with quick_figures(), mock.patch("gencg.run.lock.PATIENCE", 0.01):
        code, err = command(arguments)
    return complaint(code, err)


MOL2 = """@<TRIPOS>MOLECULE
water
 3 2 1 0 0
SMALL
NO_CHARGES

@<TRIPOS>ATOM
      1 O1          0.0000    0.0000    0.0000 O.3       1 WAT         0.0000
      2 H1          0.9572    0.0000    0.0000 H         1 WAT         0.0000
      3 H2         -0.2400    0.9266    0.0000 H         1 WAT         0.0000
@<TRIPOS>BOND
     1    1    2 1
     2    1    3 1
"""
SDF = """ethanol
  by hand

  9  8  0  0  0  0  0  0  0  0999 V2000
   -0.8883    0.1670   -0.0273 C   0  0
    0.4658   -0.5116   -0.0368 C   0  0
    1.4311    0.3229    0.5867 O   0  0
   -0.8487    1.1175   -0.5695 H   0  0
   -1.6471   -0.4704   -0.4896 H   0  0
   -1.1964    0.3978    0.9977 H   0  0
    0.7920   -0.7224   -1.0597 H   0  0
    0.4246   -1.4559    0.5138 H   0  0
    1.4671    1.1550    0.0848 H   0  0
  1  2  1  0
  2  3  1  0
  1  4  1  0
  1  5  1  0
  1  6  1  0
  2  7  1  0
  2  8  1  0
  3  9  1  0
M  END
$$$$
"""
