"""Systems from files: what is built, and one line for everything that cannot be.

Cannot detect: whether energies and coordinates are right; they have tests of their own.
"""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gencg import systems
from gencg.energies.forcefield import ForceField
from gencg.systems import SYSTEMS, alanine_dipeptide, describe, from_pdb, from_system, load
from gencg.systems.energies import structure_energy
from gencg.systems.files import MAX_ATOMS
from gencg.systems.force_fields import create_system, force_field_names, load_force_field
from gencg.systems.molecules import read_pdb
from gencg.systems.peptide import build_peptide
from gencg.systems.registry import STRUCTURES
from gencg.systems.residues import parse_sequence
from gencg.systems.structure import _cif_atoms, read_structure
from gencg.target import BoltzmannTarget

PDB = Path(systems.__file__).parent / "data" / "alanine_dipeptide.pdb"
VACUUM = ("amber96.xml",)


@pytest.fixture
def write(tmp_path: Path):
    """Write the dipeptide's PDB file with its ATOM lines changed or left out."""

    def write(change, name: str = "my.pdb") -> Path:
        lines = []
        for line in PDB.read_text().splitlines():
            is_atom = line.startswith(("ATOM", "HETATM"))
            lines.append(change(line) if is_atom else line)
        path = tmp_path / name
        path.write_text("\n".join(line for line in lines if line is not None) + "\n")
        return path

    return write


def named(line: str, name: str, residue: str) -> bool:
    return line[12:16].strip() == name and line[17:20] == residue


def test_the_dipeptide() -> None:
    system = alanine_dipeptide()
    assert system.molecule is not None
    assert isinstance(system.energy, ForceField)
    assert system.molecule.n_atoms == 22
    assert system.coordinates.dim == 60
    assert system.known["log_z"] == -178.685

    # Soft: phi, psi and three methyl rotors; the two amides are stiff
    soft = [n for n, s in zip(system.coordinates.names, system.coordinates.soft, strict=True) if s]
    assert len(soft) == 5
    assert sum(name.startswith("rotor") for name in soft) == 3
    assert any("phi" in name for name in soft)
    assert any("psi" in name for name in soft)

    # The reference is a minimum and the centre of the coordinates; it is valid
    x = torch.tensor(system.molecule.positions).requires_grad_()
    energy = system.energy(x)
    energy.backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 20
    y, _ = system.coordinates.forward(x.detach())
    assert_close(y, system.coordinates.centre, atol=1e-6, rtol=0)
    assert system.coordinates.valid(x.detach())
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    assert target.log_density(y).isfinite()


def test_the_known_answer_belongs_to_one_force_field_and_temperature() -> None:
    assert alanine_dipeptide(temperature=310.0).known == {}
    assert alanine_dipeptide(forcefield=VACUUM).known == {}


def test_every_registered_system_builds_and_describes_itself() -> None:
    for name in SYSTEMS:
        system = load(name)
        assert system.name == name
        assert 10 < len(describe(name)) < 100
        assert system.description
    assert load("butane", temperature=250.0).temperature == 250.0
    assert load("alanine-dipeptide", forcefield=VACUUM).description.endswith("amber96.xml")


def test_load_takes_a_path(write) -> None:
    path = write(lambda line: line)
    system = load(str(path), forcefield=["amber96.xml"], temperature=310.0)
    assert system.name == "my"
    assert system.temperature == 310.0
    assert system.molecule is not None
    assert system.molecule.n_atoms == 22


def test_soft_bonds_are_the_users_choice() -> None:
    molecule = alanine_dipeptide().molecule
    assert molecule is not None
    phi = dict(molecule.phi_psi())
    (label,) = [label for label in phi if label.startswith("phi")]
    axis = phi[label][1:3]
    system = from_pdb(PDB, forcefield=VACUUM, soft_bonds=[axis])
    assert int(system.coordinates.soft.sum()) == 1
    # All rotatable bonds are soft below an infinite barrier, amides included
    system = from_pdb(PDB, forcefield=VACUUM, max_barrier=math.inf, fold_rotors=False)
    assert int(system.coordinates.soft.sum()) == len(molecule.rotatable_bonds()) == 7
    with pytest.raises(ValueError, match=r"`max_barrier` must be positive.*got nan"):
        from_pdb(PDB, forcefield=VACUUM, max_barrier=math.nan)


def test_from_system_is_from_pdb() -> None:
    topology, positions = read_structure(PDB)
    openmm_system = create_system(load_force_field(VACUUM), topology, source="test")
    one = from_system(openmm_system, topology, positions, name="mine")
    two = from_pdb(PDB, forcefield=VACUUM)
    x = torch.tensor(positions)
    assert_close(one.energy(x), two.energy(x))
    assert one.coordinates.names == two.coordinates.names
    assert one.name == "mine"

    # Positions with a unit are converted
    from openmm import unit

    three = from_system(openmm_system, topology, 10 * positions * unit.angstrom)
    assert three.molecule is not None
    assert one.molecule is not None
    assert_close(three.molecule.positions, one.molecule.positions, atol=1e-4, rtol=0)


def test_mmcif_is_read_as_pdb_is(tmp_path: Path) -> None:
    from openmm import app

    pdb = app.PDBFile(str(PDB))
    path = tmp_path / "my.cif"
    with path.open("w") as file:
        app.PDBxFile.writeFile(pdb.topology, pdb.positions, file)
    topology, positions = read_structure(path)
    assert topology.getNumAtoms() == 22
    assert np.abs(positions - read_structure(PDB)[1]).max() < 1e-6


def test_alternate_locations_of_mmcif_are_noted(tmp_path: Path, caplog) -> None:
    from openmm import app

    pdb = app.PDBFile(str(PDB))
    path = tmp_path / "my.cif"
    with path.open("w") as file:
        app.PDBxFile.writeFile(pdb.topology, pdb.positions, file)
    lines = path.read_text().splitlines()
    place = [k.strip() for k in lines if k.startswith("_atom_site.")].index(
        "_atom_site.label_alt_id"
    )
    at = next(k for k, line in enumerate(lines) if line.startswith(("ATOM", "HETATM")))
    words = lines[at].split()
    both = [" ".join([*words[:place], letter, *words[place + 1 :]]) for letter in "AB"]
    path.write_text("\n".join([*lines[:at], *both, *lines[at + 1 :]]) + "\n")
    with caplog.at_level(logging.WARNING, logger="gencg"):
        topology, _ = read_structure(path)
    assert topology.getNumAtoms() == 22
    assert "holds 1 alternate locations, the first is used" in caplog.text


def test_models_and_alternate_locations_are_noted(write, caplog) -> None:
    path = write(lambda line: line)
    atoms = [line for line in path.read_text().splitlines() if line.startswith(("ATOM", "HETATM"))]
    shifted = [f"{line[:30]}{float(line[30:38]) + 1:8.3f}{line[38:]}" for line in atoms]
    models = ["MODEL        1", *atoms, "ENDMDL", "MODEL        2", *shifted, "ENDMDL", "END"]
    path.write_text("\n".join(models) + "\n")
    with caplog.at_level(logging.WARNING, logger="gencg"):
        _, positions = read_structure(path)
    assert "holds 2 models, the first is used" in caplog.text
    assert_close(positions, read_structure(PDB)[1])

    caplog.clear()
    a, b = (next(line for line in lines if " CB " in line) for lines in (atoms, shifted))
    both = f"{a[:16]}A{a[17:]}\n{b[:16]}B{b[17:]}"
    path.write_text(PDB.read_text().replace(a, both))
    with caplog.at_level(logging.WARNING, logger="gencg"):
        _, positions = read_structure(path)
    assert "holds 1 alternate locations" in caplog.text
    assert_close(positions, read_structure(PDB)[1])


PENTAPEPTIDE = Path(__file__).parents[1] / "data" / "pentapeptide.pdb"


def heavy_atoms(path: Path, to: Path) -> Path:
    """The file without hydrogens and bonds."""
    lines = path.read_text().splitlines()
    kept = [x for x in lines if not x.startswith("CONECT") and x[76:78].strip() != "H"]
    to.write_text("\n".join(kept) + "\n")
    return to


def test_hydrogens_are_added_on_request(tmp_path: Path, caplog) -> None:
    bare = heavy_atoms(PENTAPEPTIDE, tmp_path / "bare.pdb")
    with pytest.raises(ValueError, match=r"Add the hydrogens with add_hydrogens=True \(--add-hydr"):
        from_pdb(bare)
    with caplog.at_level(logging.WARNING, logger="gencg"):
        parts = read_pdb(bare, add_hydrogens=True)
    whole, positions = read_structure(PENTAPEPTIDE)
    n_added = whole.getNumAtoms() - read_structure(bare)[0].getNumAtoms()
    assert parts.topology.getNumAtoms() == whole.getNumAtoms()
    assert f"bare.pdb: added {n_added} hydrogens: 15 to LYS 1, 9 to MET 2" in caplog.text

    # Heavy atoms stay, the names are the usual ones, the same input gives the same positions
    heavy = [a.index for a in parts.topology.atoms() if a.element.symbol != "H"]
    assert_close(parts.positions[heavy], read_structure(bare)[1])
    names = [sorted(a.name for a in r.atoms()) for r in parts.topology.residues()]
    assert names == [sorted(a.name for a in r.atoms()) for r in whole.residues()]
    assert np.array_equal(parts.positions, read_pdb(bare, add_hydrogens=True).positions)

    # The pH decides where the file does not: GLU, HIS and the rest
    acid = read_pdb(bare, add_hydrogens=True, ph=3.0).topology
    assert acid.getNumAtoms() == whole.getNumAtoms() + 2
    with pytest.raises(ValueError, match=r"LYS 1 .*lacks this residue in its state of protonation"):
        read_pdb(bare, add_hydrogens=True, ph=12.0)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="gencg"):
        same = read_pdb(PENTAPEPTIDE, add_hydrogens=True)
    assert "no hydrogens were missing" in caplog.text
    assert_close(same.positions, positions)
    with pytest.raises(ValueError, match="`ph` must be finite, got nan"):
        read_pdb(bare, add_hydrogens=True, ph=math.nan)


def test_a_structure_with_added_hydrogens_is_a_system(tmp_path: Path) -> None:
    bare = heavy_atoms(PDB, tmp_path / "bare.pdb")
    system = load(str(bare), add_hydrogens=True, forcefield=VACUUM)
    known = from_pdb(PDB, forcefield=VACUUM)
    assert system.coordinates.dim == known.coordinates.dim
    x = torch.tensor(system.molecule.positions)
    assert bool(system.coordinates.valid(x))


def test_a_gap_in_a_chain_names_its_residues(tmp_path: Path) -> None:
    from openmm import app, unit

    topology, positions = build_peptide(parse_sequence("GLY-ALA-SER-VAL-GLY"))
    modeller = app.Modeller(topology, positions * unit.nanometer)
    modeller.delete(list(topology.residues())[1:3])
    path = tmp_path / "gap.pdb"
    with path.open("w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file, keepIds=True)
    message = (
        r"chain A of .*gap\.pdb has a gap: C of GLY 1 and N of VAL 4 are \d\.\d\d nm apart, "
        r"without residues 2 to 3; build the missing residues \(PDBFixer"
    )
    with pytest.raises(ValueError, match=message):
        from_pdb(path)


def test_missing_heavy_atoms_are_named(tmp_path: Path) -> None:
    lines = PENTAPEPTIDE.read_text().splitlines()
    path = tmp_path / "my.pdb"
    for residue, names, words in (
        ("GLU", ("CD", "OE1"), r"GLU 3 of chain A lacks CD, OE1: add the heavy atoms \(PDBFixer"),
        ("ARG", ("OXT",), "ARG 5 of chain A lacks OXT: add the heavy atoms"),
    ):
        kept = [x for x in lines if not (x[17:20] == residue and x[12:16].strip() in names)]
        path.write_text("\n".join(x for x in kept if not x.startswith("CONECT")) + "\n")
        for add_hydrogens in (False, True):
            with pytest.raises(ValueError, match=words):
                from_pdb(path, add_hydrogens=add_hydrogens)
    # A free end without its hydrogens
    kept = [x for x in lines if x[12:16].strip() not in ("H2", "H3") and x[:6] != "CONECT"]
    path.write_text("\n".join(kept) + "\n")
    with pytest.raises(ValueError, match="hydrogens of a free end with add_hydrogens=True"):
        from_pdb(path)


def test_files_of_more_than_a_molecule_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("large.pdb", "large.cif", "large.prmtop", "large.top", "large.xml"):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(b"ATOM")
            file.truncate(104_857_600)
        message = rf"{name} has 105 MB, files of one molecule at most 20 MB; gencg describes one"
        with monkeypatch.context() as patch:
            patch.delattr(Path, "read_bytes")
            with pytest.raises(ValueError, match=message):
                load(str(path))
        path.unlink()

    line = "ATOM      1  C   LIG A   1       0.000   0.000   0.000  1.00  0.00           C  \n"
    (tmp_path / "many.pdb").write_text(line * (MAX_ATOMS + 1))
    with pytest.raises(ValueError, match=r"many\.pdb holds 2,001 atoms; gencg describes one mol"):
        from_pdb(tmp_path / "many.pdb")
    tags = "".join(f"_atom_site.{tag}\n" for tag in ("group_PDB", "id", "pdbx_PDB_model_num"))
    rows = "".join(f"ATOM {i} {1 + i // (MAX_ATOMS + 5)}\n" for i in range(2 * MAX_ATOMS + 10))
    (tmp_path / "many.cif").write_text(f"data_x\nloop_\n{tags}{rows}")
    with pytest.raises(ValueError, match=r"many\.cif holds 2,005 atoms"):
        from_pdb(tmp_path / "many.cif")
    # Many models of a small molecule are none too many
    rows = "".join(f"ATOM {i} {1 + i // 5}\n" for i in range(2 * MAX_ATOMS))
    assert _cif_atoms(f"data_x\nloop_\n{tags}{rows}") == 5


def test_missing_wrong_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no structure file at .*absent\.pdb; give the"):
        from_pdb(tmp_path / "absent.pdb")
    with pytest.raises(FileNotFoundError, match="no structure file at"):
        load(str(tmp_path / "absent.pdb"))

    empty = tmp_path / "empty.pdb"
    empty.write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.pdb is empty; give a \.pdb or \.cif"):
        from_pdb(empty)

    wrong = tmp_path / "notes.pdb"
    wrong.write_text("Dear diary,\n")
    with pytest.raises(ValueError, match=r"notes\.pdb is not a PDB file: it has no ATOM"):
        from_pdb(wrong)
    wrong.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="is not a text file"):
        from_pdb(wrong)

    other = tmp_path / "notes.txt"
    other.write_text("hello")
    with pytest.raises(ValueError, match=r"must be a \.pdb or \.cif file, got .*notes\.txt"):
        from_pdb(other)
    with pytest.raises(ValueError, match=r"must be a \.pdb or \.cif file"):
        from_pdb(tmp_path)
    cif = tmp_path / "my.cif"
    cif.write_text("data_x\nloop_\n")
    with pytest.raises(ValueError, match=r"my\.cif is not an mmCIF file"):
        from_pdb(cif)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"'alanine_dipeptid'.*did you mean alanine-dipeptide"):
        load("alanine_dipeptid")
    with pytest.raises(ValueError, match="`forcefield` does not apply to the toy 'butane'"):
        load("butane", forcefield=["amber96.xml"])


def test_unknown_force_fields(tmp_path: Path) -> None:
    assert "implicit/obc1.xml" in force_field_names()
    with pytest.raises(FileNotFoundError, match=r"'amber97\.xml' is neither.*amber96\.xml"):
        from_pdb(PDB, forcefield=["amber97.xml"])
    with pytest.raises(FileNotFoundError, match=r"'obc1\.xml'.*similar: implicit/obc1\.xml"):
        from_pdb(PDB, forcefield=["amber96.xml", "obc1.xml"])
    with pytest.raises(FileNotFoundError, match=r"'qqqqqq'.*such as amber14-all\.xml"):
        from_pdb(PDB, forcefield="qqqqqq")
    with pytest.raises(ValueError, match="`forcefield` must name at least one file"):
        from_pdb(PDB, forcefield=[])
    with pytest.raises(ValueError, match=r"cannot be loaded: .*already exists"):
        from_pdb(PDB, forcefield=["amber14-all.xml", "amber96.xml"])
    own = tmp_path / "own.xml"
    own.write_text("<ForceField")
    with pytest.raises(ValueError, match=r"own\.xml cannot be loaded"):
        from_pdb(PDB, forcefield=[str(own)])
    with pytest.raises(ValueError, match=r"no residue templates.*Name a force field before the"):
        from_pdb(PDB, forcefield=["implicit/obc1.xml"])


def test_missing_atoms_are_named_with_their_residue(write) -> None:
    path = write(lambda line: None if named(line, "HA", "ALA") else line)
    message = r"my\.pdb: No template found for residue ALA 2 of chain A.*missing 1 H atom.*Add the"
    with pytest.raises(ValueError, match=message) as caught:
        from_pdb(path, forcefield=VACUUM)
    assert "\n" not in str(caught.value)

    path = write(lambda line: None if line[76:78].strip() == "H" else line)
    with pytest.raises(ValueError, match=r"residue ACE 1 of chain A.*missing 3 H atoms.*Add the"):
        from_pdb(path, forcefield=VACUUM)

    path = write(lambda line: None if named(line, "CB", "ALA") else line)
    with pytest.raises(ValueError, match="No template found for residue ALA 2"):
        from_pdb(path, forcefield=VACUUM)


def test_a_residue_and_an_element_that_the_force_field_lacks(write) -> None:
    path = write(lambda line: line.replace("ALA", "XYZ"))
    with pytest.raises(ValueError, match=r"No template found for residue XYZ 2.*name a force"):
        from_pdb(path, forcefield=VACUUM)
    path = write(lambda line: f"{line[:76]}SE" if named(line, "CB", "ALA") else line)
    with pytest.raises(ValueError, match=r"residue ALA 2 .*contains Se atoms, which are not supp"):
        from_pdb(path, forcefield=VACUUM)


def test_a_disconnected_molecule_names_its_parts(write) -> None:
    from openmm import Vec3, app

    pdb = app.PDBFile(str(PDB))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.add(pdb.topology, [p + Vec3(3, 0, 0) * p.unit for p in pdb.positions])
    path = write(lambda line: line, "two.pdb")
    with path.open("w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file)
    message = "2 disconnected parts, of 22 and 22 atoms, starting at .*give them separately"
    with pytest.raises(ValueError, match=message):
        from_pdb(path, forcefield=VACUUM)


def test_water_beside_the_molecule_is_refused(write) -> None:
    path = write(lambda line: line)
    water = "HETATM  999  O   HOH B   9      20.000  20.000  20.000  1.00  0.00           O  "
    path.write_text(path.read_text().replace("\nTER", f"\n{water}\nTER", 1))
    with pytest.raises(ValueError, match=r"holds 1 water molecules or ions;.*remove them"):
        from_pdb(path, forcefield=VACUUM)


def test_a_constrained_system_is_refused() -> None:
    from openmm import app

    topology, positions = read_structure(PDB)
    system = load_force_field(VACUUM).createSystem(topology, constraints=app.HBonds)
    with pytest.raises(ValueError, match=r"12 constrained bonds.*constraints=None"):
        from_system(system, topology, positions)


def test_coordinates_that_are_not_finite_name_the_atom(write) -> None:
    for word in ("nan", "inf", "xyz"):
        path = write(
            lambda line, w=word: (
                f"{line[:30]}{w:>8}{line[38:]}" if named(line, "CB", "ALA") else line
            )
        )
        with pytest.raises(ValueError, match=rf"got '{word}' for atom ALA2-CB in line \d+ of"):
            from_pdb(path, forcefield=VACUUM)

    topology, positions = read_structure(PDB)
    system = create_system(load_force_field(VACUUM), topology, source="test")
    positions[8] = math.nan
    with pytest.raises(ValueError, match=r"`positions` must be finite.*for atom ALA2-"):
        from_system(system, topology, positions)


@pytest.mark.parametrize("temperature", [-300.0, 0.0, math.nan, math.inf])
def test_temperatures_that_are_none(temperature: float) -> None:
    message = f"`temperature` must be positive and finite, in K, got {temperature}"
    for name in SYSTEMS:
        with pytest.raises(ValueError, match=message):
            load(name, temperature=temperature)


@pytest.mark.parametrize("target", STRUCTURES)
def test_ready_made_molecules_have_the_energy_of_openmm_term_by_term(target: str) -> None:
    found = structure_energy(target)
    assert found["total"] == pytest.approx(found["openmm"], abs=1e-6)
    assert sum(found["terms"].values()) == pytest.approx(found["total"], abs=1e-9)
    assert len(found["terms"]) > 3
