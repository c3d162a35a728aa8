"""Files of Amber, GROMACS and OpenMM: the energy that OpenMM's own loaders give, or one line.

Cannot detect: a term that the amide of these files does not have, such as CMAP; the energies have
tests of their own.
"""

import logging
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openmm
import pytest
import torch
from amide_files import POSITIONS, write_amber, write_gromacs
from openmm import app
from torch.testing import assert_close

from gencg.energies.forcefield import ForceField
from gencg.energies.openmm import openmm_energy_terms
from gencg.systems import System, from_gromacs, from_prmtop, from_system, load
from gencg.systems.energies import structure_energy
from gencg.systems.gromacs import read_gromacs, written_out
from gencg.systems.implicit import IMPLICIT_SOLVENTS
from gencg.systems.molecules import DATA
from gencg.systems.structure import read_structure

DIPEPTIDE = DATA / "alanine_dipeptide.pdb"
SOLVENTS = [None, *IMPLICIT_SOLVENTS]


def distorted(positions: np.ndarray, n: int = 6) -> np.ndarray:
    """Geometries with noise growing to 0.02 nm, in nm."""
    noise = np.random.default_rng(0).normal(size=(n, *positions.shape))
    return positions + np.linspace(0, 0.02, n)[:, None, None] * noise


def gromacs_of_openmm(path: Path) -> app.GromacsTopFile:
    """A topology by OpenMM alone, which leaves its file open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        return app.GromacsTopFile(str(path))


def assert_energies(system: System, reference: openmm.System) -> None:
    """Energies and forces of a loaded system are those of OpenMM's own."""
    assert isinstance(system.energy, ForceField)
    assert system.molecule is not None
    context = openmm.Context(
        reference,
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    for x in distorted(POSITIONS / 10):
        context.setPositions(x)
        state = context.getState(energy=True, forces=True)
        ours = torch.tensor(x).requires_grad_()
        energy = system.energy(ours)
        energy.backward()
        assert energy.item() == pytest.approx(state.getPotentialEnergy()._value, abs=1e-5)
        forces = np.array(state.getForces(asNumpy=True)._value)
        assert ours.grad is not None
        assert np.abs(ours.grad.numpy() + forces).max() < 1e-3
    x = torch.tensor(system.molecule.positions)
    assert bool(system.coordinates.valid(x))


@pytest.mark.parametrize("solvent", SOLVENTS)
def test_a_prmtop_has_the_energy_of_openmm(solvent: str | None, tmp_path: Path) -> None:
    path = write_amber(tmp_path)
    loaded = app.AmberPrmtopFile(str(path))
    with warnings.catch_warnings():
        # Its radii suit one of the models only; see below
        warnings.simplefilter("ignore")
        reference = loaded.createSystem(
            implicitSolvent=None if solvent is None else getattr(app, solvent)
        )
    system = from_prmtop(path, implicit_solvent=solvent and solvent.lower())
    assert_energies(system, reference)
    assert system.name == "amide"
    assert system.description == "amide, Amber topology" + (f" + {solvent}" if solvent else "")


@pytest.mark.parametrize("solvent", SOLVENTS)
def test_a_gromacs_topology_has_the_energy_of_openmm(solvent: str | None, tmp_path: Path) -> None:
    path = write_gromacs(tmp_path)
    loaded = gromacs_of_openmm(path)
    reference = loaded.createSystem()
    if solvent:
        # What OpenMM runs when this file is given beside a force field
        file = Path(app.__file__).parent / "data" / "implicit" / f"{solvent.lower()}.xml"
        names = {"sys": reference, "topology": loaded.topology, "nonbondedMethod": app.NoCutoff}
        exec(ElementTree.parse(file).find("Script").text, names | {"args": {}})
    assert_energies(from_gromacs(path, implicit_solvent=solvent), reference)


def test_one_force_field_has_one_energy_in_both_programs(tmp_path: Path) -> None:
    amber = structure_energy(str(write_amber(tmp_path)))
    # The one file beside the other has its stem: both are found
    gromacs = structure_energy(str(write_gromacs(tmp_path)))
    assert amber["terms"] == pytest.approx(gromacs["terms"], abs=1e-6)
    assert amber["total"] == pytest.approx(amber["openmm"], abs=1e-5)
    assert gromacs["total"] == pytest.approx(gromacs["openmm"], abs=1e-5)


@pytest.mark.parametrize("rule", [1, 2, 3])
def test_gromacs_combination_rules_and_impropers_are_batched(rule: int, tmp_path: Path) -> None:
    impropers = "[ dihedrals ]\n1 4 2 3 2 10.0 50.0\n2 6 4 5 2 -170.0 30.0\n"
    path = write_gromacs(tmp_path, rule=rule, extra=impropers)
    reference = gromacs_of_openmm(path).createSystem()
    system = from_gromacs(path)
    assert_energies(system, reference)
    x = distorted(POSITIONS / 10)[-1]
    theirs = openmm_energy_terms(reference, x)
    assert isinstance(system.energy, ForceField)
    ours = {name: float(v) for name, v in system.energy.terms(torch.tensor(x)).items()}
    for name in ("bonds", "angles", "torsions", "impropers"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5)


def test_a_top_file_is_told_by_its_content(tmp_path: Path) -> None:
    amber = write_amber(tmp_path).rename(tmp_path / "one.top")
    gromacs = write_gromacs(tmp_path).rename(tmp_path / "two.top")
    coordinates = str(tmp_path / "amide.rst7")
    assert load(str(amber), coordinates=coordinates).description.endswith("Amber topology")
    found = load(str(gromacs), coordinates=str(tmp_path / "amide.gro"), temperature=310.0)
    assert found.description == "two, GROMACS topology"
    assert found.temperature == 310.0
    assert found.molecule is not None
    assert found.molecule.n_atoms == 9
    # Amber's coordinates serve GROMACS' topology too: the atoms are the same
    assert load(str(gromacs), coordinates=coordinates).molecule is not None


def serialize(folder: Path) -> tuple[Path, Path, openmm.System]:
    topology, _ = read_structure(DIPEPTIDE)
    system = app.ForceField("amber96.xml").createSystem(topology)
    path = folder / "mine.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    structure = folder / "mine.pdb"
    structure.write_text(DIPEPTIDE.read_text())
    return path, structure, system


def test_a_serialized_system_is_the_system(tmp_path: Path) -> None:
    path, structure, system = serialize(tmp_path)
    topology, positions = read_structure(structure)
    objects = from_system(system, topology, positions)
    x = torch.tensor(distorted(positions))
    for files in (
        from_system(str(path), structure),
        from_system(path, topology, positions),
        load(str(path)),
        load(str(path), coordinates=str(structure)),
    ):
        assert_close(files.energy(x), objects.energy(x))
        assert files.coordinates.names == objects.coordinates.names
        assert files.name == "mine"
    assert load(str(path)).description == "mine, mine.xml"
    assert objects.name == "molecule"
    with pytest.raises(ValueError, match="`positions` must be given where `topology` is no file"):
        from_system(path, topology)


def test_includes_are_written_out(tmp_path: Path) -> None:
    fields = tmp_path / "share"
    fields.mkdir()
    top = write_gromacs(tmp_path, include="types.itp")
    (tmp_path / "types.itp").rename(fields / "types.itp")
    # One file leads to the next, beside itself
    (fields / "field").mkdir()
    (fields / "field" / "field.itp").write_text('#include "nested.itp"\n')
    (fields / "types.itp").rename(fields / "field" / "nested.itp")
    top.write_text(top.read_text().replace('"types.itp"', "<field/field.itp>"))
    message = r"amide\.top includes field/field\.itp, which is not in .*--include-dir"
    with pytest.raises(FileNotFoundError, match=message):
        from_gromacs(top)
    text = written_out(top, include_dir=fields)
    assert "[ atomtypes ]" in text
    # A file behind a condition that does not hold is not missed
    assert '#include "posre.itp"' in text
    assert from_gromacs(top, include_dir=fields).molecule is not None
    with pytest.raises(FileNotFoundError, match=r"includes posre\.itp, which is not in"):
        from_gromacs(top, include_dir=fields, defines=["POSRES"])
    alone = tmp_path / "alone.top"
    alone.write_text(text)
    one = read_gromacs(alone, tmp_path / "amide.gro")
    two = read_gromacs(top, include_dir=fields)
    serialize = openmm.XmlSerializer.serialize
    assert serialize(one.system) == serialize(two.system)

    (fields / "field" / "field.itp").write_text('#include "field.itp"\n')
    with pytest.raises(ValueError, match=r"field\.itp includes itself"):
        from_gromacs(top, include_dir=fields)
    with pytest.raises(FileNotFoundError, match="`include_dir` must be a folder, got nowhere"):
        from_gromacs(top, include_dir="nowhere")


def test_macros_of_a_topology(tmp_path: Path) -> None:
    path = write_gromacs(tmp_path)
    text = path.read_text().replace("1 2 1 0.11 ", "1 2 1 LENGTH ")
    assert "LENGTH" in text
    path.write_text(text)
    with pytest.raises(ValueError, match="LENGTH"):
        from_gromacs(path)
    for defines in ({"LENGTH": "0.11"}, ["LENGTH=0.11"], ["-DLENGTH=0.11"]):
        changed = read_gromacs(path, defines=defines)
        path.with_name("same.top").write_text(text.replace("LENGTH", "0.11"))
        plain = read_gromacs(path.with_name("same.top"), tmp_path / "amide.gro")
        serialize = openmm.XmlSerializer.serialize
        assert serialize(changed.system) == serialize(plain.system)


def test_warnings_of_openmm_are_logged(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="gencg"):
        from_prmtop(write_amber(tmp_path), implicit_solvent="GBn2")
    assert "amide.prmtop: Non-optimal GB parameters" in caplog.text


# --- What is refused ---------------------------------------------------------------------------


def cut(path: Path, fraction: float) -> Path:
    text = path.read_text()
    path.write_text(text[: int(fraction * len(text))])
    return path


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def amber_of_nine_in(folder: Path, name: str, text: str) -> tuple[str, dict]:
    (folder / name).write_text(text)
    return str(write_amber(folder)), {"coordinates": str(folder / name)}


def fewer_atoms(folder: Path) -> tuple[str, dict]:
    rows = ["   1.0000000   2.0000000   3.0000000" * 2]
    return amber_of_nine_in(folder, "two.rst7", "\n".join(["two", "    2", *rows]) + "\n")


def no_coordinates(folder: Path) -> tuple[str, dict]:
    path = write_amber(folder)
    (folder / "amide.rst7").unlink()
    return str(path), {}


def water_in_amber(folder: Path) -> tuple[str, dict]:
    path = changed(write_amber(folder), "%FLAG RESIDUE_POINTER\n%FORMAT(10I8)\n       1",
                   "%FLAG RESIDUE_POINTER\n%FORMAT(10I8)\n       1       6")  # fmt: skip
    changed(path, "NMF", "NMF WAT")
    text = path.read_text().splitlines()
    i = text.index("%FLAG POINTERS") + 3
    text[i] = text[i][:8] + f"{2:8d}" + text[i][16:]
    path.write_text("\n".join(text) + "\n")
    return str(path), {}


def many_atoms(folder: Path) -> tuple[str, dict]:
    path = write_amber(folder)
    return str(changed(path, "%FORMAT(10I8)\n       9", "%FORMAT(10I8)\n   30000")), {}


def water_in_gromacs(folder: Path) -> tuple[str, dict]:
    path = changed(write_gromacs(folder), "NMF 1\n", "NMF 1\nSOL 2\n")
    water = (
        "[ moleculetype ]\nSOL 1\n[ atoms ]\n1 o 1 SOL OW 1 -0.8 16.0\n2 hn 1 SOL H1 1 0.4 1.0\n"
        "3 hn 1 SOL H2 1 0.4 1.0\n[ bonds ]\n1 2 1 0.1 1000\n1 3 1 0.1 1000\n[ system ]"
    )
    return str(changed(path, "[ system ]", water)), {}


def fixed_bonds(folder: Path) -> tuple[str, dict]:
    path = write_gromacs(folder, extra="[ constraints ]\n1 2 1 0.11\n")
    return str(path), {}


def another_order(folder: Path) -> tuple[str, dict]:
    path = write_gromacs(folder)
    lines = (folder / "amide.gro").read_text().splitlines()
    lines[3], lines[4] = lines[4], lines[3]
    (folder / "amide.gro").write_text("\n".join(lines) + "\n")
    return str(path), {}


def short_gro(folder: Path) -> tuple[str, dict]:
    path = write_gromacs(folder)
    lines = (folder / "amide.gro").read_text().splitlines()
    (folder / "amide.gro").write_text("\n".join(lines[:6]) + "\n")
    return str(path), {}


def unknown_type(folder: Path) -> tuple[str, dict]:
    return str(changed(write_gromacs(folder), "1 h5 1", "1 h9 1")), {}


def other_masses(folder: Path) -> tuple[str, dict]:
    path, _, system = serialize(folder)
    one, two = system.getParticleMass(0), system.getParticleMass(1)
    system.setParticleMass(0, two)
    system.setParticleMass(1, one)
    path.write_text(openmm.XmlSerializer.serialize(system))
    return str(path), {}


def other_molecule(folder: Path) -> tuple[str, dict]:
    path, structure, _ = serialize(folder)
    lines = structure.read_text().splitlines()
    structure.write_text("\n".join(line for line in lines if " HA " not in line) + "\n")
    return str(path), {}


def xml(text: str):
    def write(folder: Path) -> tuple[str, dict]:
        path, _, _ = serialize(folder)
        path.write_text(text)
        return str(path), {}

    return write


def with_constraints(folder: Path) -> tuple[str, dict]:
    path, structure, _ = serialize(folder)
    topology, _ = read_structure(structure)
    system = app.ForceField("amber96.xml").createSystem(topology, constraints=app.HBonds)
    path.write_text(openmm.XmlSerializer.serialize(system))
    return str(path), {}


def named(name: str, text: str = "hello\n", options: dict | None = None):
    def write(folder: Path) -> tuple[str, dict]:
        (folder / name).write_text(text)
        return str(folder / name), options or {}

    return write


def amber(options: dict):
    return lambda folder: (str(write_amber(folder)), options)


def gromacs(options: dict):
    return lambda folder: (str(write_gromacs(folder)), options)


STATE = openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001))
REFUSED = {
    "a prmtop that is none": (named("my.prmtop"), "is not an Amber topology: it does not begin"),
    "a prmtop that ends too soon": (
        lambda folder: (str(cut(write_amber(folder), 0.5)), {}),
        r"not an Amber topology that OpenMM can use",
    ),
    "an empty prmtop": (named("my.prmtop", ""), r"my\.prmtop is empty; give a \.prmtop"),
    "a missing prmtop": (lambda folder: (str(folder / "no.parm7"), {}), "no topology file at"),
    "a box of water in Amber": (many_atoms, "holds 30,000 atoms; gencg describes one molecule"),
    "water in Amber": (water_in_amber, "holds 1 water molecules or ions"),
    "no coordinates": (no_coordinates, r"none of amide\.inpcrd, amide\.rst7.*--coordinates"),
    "missing coordinates": (amber({"coordinates": "no.rst7"}), "no coordinate file at"),
    "other coordinates": (amber({"coordinates": "no.xyz"}), "`coordinates` must be one of .inpcrd"),
    "coordinates that are none": (
        lambda folder: amber_of_nine_in(folder, "a.rst7", "Dear diary,\nall is well\n"),
        r"a\.rst7 is not a coordinate file",
    ),
    "coordinates of fewer atoms": (fewer_atoms, r"two\.rst7 holds 2 atoms and .*amide\.prmtop 9"),
    "no radii": (
        lambda folder: (str(write_amber(folder, radii=False)), {"implicit_solvent": "OBC2"}),
        "not an Amber topology that OpenMM can use",
    ),
    "an unknown solvent": (
        amber({"implicit_solvent": "obc7"}), "must be one of HCT, OBC1, OBC2, GBn, GBn2.*'obc7'",
    ),
    "a force field for a prmtop": (
        amber({"forcefield": ["amber96.xml"]}),
        "`forcefield` does not apply to the Amber topology .*holds the parameters",
    ),
    "a top that is none": (named("my.top"), r"not a topology of GROMACS or Amber"),
    "water in GROMACS": (water_in_gromacs, "holds 2 water molecules or ions"),
    "constraints in GROMACS": (fixed_bonds, r"fixes 1 distances \(\[ constraints \]"),
    "a gro in another order": (another_order, "in another order: number 2 is O there and C here"),
    "a gro that ends too soon": (short_gro, "should hold 9 atoms and ends after 4"),
    "an unknown atom type": (unknown_type, "h9"),
    "a pH for a topology": (gromacs({"ph": 5.0}), "`ph` does not apply to the GROMACS topology"),
    "an XML file that is none": (xml("<System"), "is not a system that OpenMM can read"),
    "a force field as a system": (xml("<ForceField></ForceField>"), "is a force field, not a sys"),
    "an integrator as a system": (xml(STATE), "holds a serialized VerletIntegrator"),
    "a system of another order": (other_masses, "in another order: number 1"),
    "a system of another molecule": (other_molecule, "holds 22 atoms and .* 21"),
    "a system with constraints": (with_constraints, "12 constrained bonds"),
    "coordinates as a target": (named("my.rst7"), r"holds coordinates alone; give the topology"),
    "another kind of file": (named("my.docx"), r"is no file that gencg reads"),
    "solvent for a structure": (
        lambda folder: (str(DIPEPTIDE), {"implicit_solvent": "OBC2"}),
        r"does not apply to the structure file .*such as implicit/obc2\.xml",
    ),
    "coordinates for a structure": (
        lambda folder: (str(DIPEPTIDE), {"coordinates": "a.rst7"}),
        "`coordinates` does not apply to the structure file .*it holds them",
    ),
    "a pH without hydrogens": (
        lambda folder: (str(DIPEPTIDE), {"ph": 0.0}), "`ph` chooses .*give add_hydrogens",
    ),
    "coordinates for a sequence": (
        lambda folder: ("sequence:ACE-ALA-NME", {"coordinates": "a.rst7"}),
        "`coordinates` does not apply to the sequence .*phi_psi",
    ),
    "caps for a toy": (lambda folder: ("butane", {"caps": True}), "does not apply to the toy"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_molecule_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    target, options = make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load(target, **options)
    assert "\n" not in str(caught.value)


def test_unknown_options_are_no_setting() -> None:
    with pytest.raises(TypeError, match="unknown option 'colour'; known are add_hydrogens"):
        load("butane", colour="red")
