"""Systems from SMILES and SDF: the molecule that is meant, and one line for all that is none.

Cannot detect: whether MMFF is right; it has tests of its own. Whether 20 conformers hold the
lowest minimum: the reference is a minimum, not the global one.
"""

import logging
import math
import pickle
import re
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from torch.testing import assert_close

import gencg
from gencg.coordinates.symmetry import relabelled
from gencg.energies.mmff import MMFF
from gencg.systems import default_force_field, from_sdf, from_smiles, load
from gencg.systems.conformers import embedded
from gencg.systems.energies import structure_energy
from gencg.systems.inputs import input_files
from gencg.systems.smiles import parse_smiles
from gencg.target import BoltzmannTarget
from gencg.testing import check_coordinate_map

pytest.importorskip("rdkit")

from rdkit import Chem
from rdkit.Chem import AllChem

MOLECULES = {
    "water": "O",
    "methanol": "CO",
    "butane": "CCCC",
    "N-methylacetamide": "CC(=O)NC",
    "glycine zwitterion": "[NH3+]CC(=O)[O-]",
    "(Z)-2-butene": r"C/C=C\C",
    "methylcyclohexane": "CC1CCCCC1",
    "sulfonamide": "CS(=O)(=O)Nc1ccccc1",
    "trifluoroethanol": "OCC(F)(F)F",
    "nitrobenzene": "[O-][N+](=O)c1ccccc1",
    "methyl phosphate": "COP(=O)([O-])[O-]",
    "proline": "O=C(O)[C@@H]1CCCN1",
}


def soft_names(system: gencg.System) -> list[str]:
    coordinates = system.coordinates
    return [n for n, s in zip(coordinates.names, coordinates.soft, strict=True) if s]


@pytest.fixture
def write():
    """Write a molecule as MOL text: in space or as a drawing, with or without hydrogens."""

    def write(
        smiles: str, *, drawing: bool = False, hydrogens: bool = True, title: str = "", v3=False
    ) -> str:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        if drawing:
            mol = Chem.RemoveHs(mol)
            AllChem.Compute2DCoords(mol)
        else:
            AllChem.EmbedMolecule(mol, randomSeed=3)
        if not hydrogens:
            mol = Chem.RemoveHs(mol)
        mol.SetProp("_Name", title)
        return Chem.MolToMolBlock(mol, forceV3000=v3)

    return write


@pytest.fixture
def save(tmp_path: Path):
    """Save text as an SDF file."""

    def save(*texts: str, name: str = "my.sdf") -> Path:
        path = tmp_path / name
        path.write_text("$$$$\n".join(texts))
        return path

    return save


# --- What is built --------------------------------------------------------------------------------


@pytest.mark.parametrize("smiles", MOLECULES.values(), ids=MOLECULES.keys())
def test_every_molecule_is_a_minimum_in_valid_coordinates(smiles) -> None:
    system = from_smiles(smiles)
    assert system.molecule is not None
    assert isinstance(system.energy, MMFF)
    assert system.name == smiles
    assert system.description.endswith(", MMFF94 in vacuum")
    x = torch.tensor(system.molecule.positions).requires_grad_()
    system.energy(x).backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1.0
    # Around it the map is one-to-one, and the energy does not see the labels of a rotor
    noisy = x.detach() + 0.003 * torch.randn(3, *x.shape)
    check_coordinate_map(system.coordinates, noisy, n_jacobians=0)
    rotors = system.coordinates.rotors
    turned = relabelled(noisy, torch.ones(3, len(rotors), dtype=torch.long), rotors)
    assert_close(system.energy(turned), system.energy(noisy), atol=1e-9, rtol=1e-9)
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    assert target.log_density(system.coordinates.centre).isfinite()


def test_the_topology_has_unique_names_one_residue_and_bond_orders() -> None:
    molecule = from_smiles("O=C(Nc1ccccc1Cl)/C=C/C").molecule
    assert molecule is not None
    names = [atom.name for atom in molecule.topology.atoms]
    assert len(set(names)) == molecule.n_atoms == 23
    assert names[:4] == ["O1", "C1", "N1", "C2"]
    assert max(map(len, names)) <= 4
    assert [residue.name for residue in molecule.topology.residues] == ["MOL"]
    kinds = [str(bond.type) for bond in molecule.topology.bonds]
    assert (kinds.count("Double"), kinds.count("Aromatic")) == (2, 6)
    # The double bond does not turn, whatever the force field thinks; the amide could
    bonds = {frozenset((names[i], names[j])) for i, j in molecule.rotatable_bonds()}
    assert bonds == {
        frozenset(pair) for pair in (("C1", "N1"), ("N1", "C2"), ("C1", "C8"), ("C9", "C10"))
    }


def test_amides_are_stiff_and_single_bonds_are_soft() -> None:
    assert soft_names(from_smiles("CC(=O)NC")) == ["rotor(MOL1-C1)", "rotor(MOL1-C3)"]
    assert len(soft_names(from_smiles("CCCC"))) == 3
    assert len(soft_names(from_smiles("COC=C"))) == 2  # an enol ether turns
    assert len(soft_names(from_smiles("CC(=O)NC", max_barrier=math.inf))) == 3
    system = from_smiles("CCCC", soft_bonds=[(1, 2)], fold_rotors=False)
    assert soft_names(system) == ["torsion(MOL1-C1, MOL1-C2, MOL1-C3, MOL1-C4)"]


def test_the_seed_and_nothing_else_chooses_the_reference() -> None:
    one, same = (from_smiles("CCCCO", seed=5).molecule for _ in range(2))
    assert one is not None
    assert same is not None
    assert np.array_equal(one.positions, same.positions)
    # The lowest of 20: two seeds find it both
    energies = [
        float(system.energy(torch.tensor(system.molecule.positions)))
        for system in (from_smiles("CCCO", seed=seed) for seed in (5, 6))
        if system.molecule is not None
    ]
    assert energies[0] == pytest.approx(energies[1], abs=1e-3)


def test_the_variant_is_that_of_energy_and_reference() -> None:
    system = from_smiles("Nc1ccccc1", variant="MMFF94s")
    assert isinstance(system.energy, MMFF)
    assert system.energy.variant == "MMFF94s"
    assert system.description == "Nc1ccccc1, MMFF94s in vacuum"
    copied = pickle.loads(pickle.dumps(system))
    x = torch.tensor(system.molecule.positions)
    assert_close(copied.energy(x), system.energy(x))


@pytest.mark.parametrize(
    "smiles",
    [
        "C[C@H](O)C(=O)O",
        "C[C@@H](O)C(=O)O",
        "C[C@H](F)[C@@H](F)C",
        r"C/C=C\C",
        "C/C=C/C",
        "C/C=N/O",
        "C[S@](=O)CC",
        "C[C@H]1CC[C@@H](C)CC1",
    ],
)
def test_stereo_that_is_specified_is_kept(smiles, caplog) -> None:
    with caplog.at_level(logging.WARNING, "gencg"):
        system = from_smiles(smiles)
    assert not caplog.records
    canonical = Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    assert system.description.startswith(canonical)
    # Read from the structure alone, without the SMILES
    assert system.molecule is not None
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles, sanitize=True))
    Chem.RemoveStereochemistry(mol)
    conformer = Chem.Conformer(mol.GetNumAtoms())
    conformer.SetPositions(10 * system.molecule.positions)
    mol.AddConformer(conformer)
    Chem.AssignStereochemistryFrom3D(mol)
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == canonical


@pytest.mark.parametrize(
    "smiles, named",
    [
        ("CC(O)C(=O)O", r"C2 \([RS]\)"),
        ("CC=CC", r"C2=C3 \([EZ]\)"),
        ("C[C@H](F)C(F)C", r"C3 \([RS]\)"),
        ("CS(=O)CC", r"S1 \([RS]\)"),
    ],
)
def test_stereo_that_is_open_is_named(smiles, named, caplog) -> None:
    with caplog.at_level(logging.WARNING, "gencg"):
        system = from_smiles(smiles)
    (record,) = caplog.records
    pattern = rf"`smiles` '.*' leaves the stereo of {named} open; one isomer is sampled: "
    assert re.match(pattern, record.message)
    # The isomer that is told is the one that is sampled
    isomer = record.message.rsplit(": ")[-1]
    assert system.description.startswith(isomer)
    caplog.clear()
    from_smiles(isomer)
    assert not caplog.records


@pytest.mark.parametrize("smiles", ["CCN(C)CCC", "CN1CC1", "NC(N)=NC", "COP(=O)([O-])OP(=O)(O)O"])
def test_what_inverts_or_resonates_is_no_stereo_centre(smiles, caplog) -> None:
    with caplog.at_level(logging.WARNING, "gencg"):
        from_smiles(smiles)
    assert not caplog.records


@pytest.mark.parametrize("smiles", ["CCCC", "CC(=O)NC"])
def test_a_few_steps_of_fit(smiles) -> None:
    system = from_smiles(smiles)
    result = gencg.fit(system, energy_calls=600, batch_size=64, seed=0)
    ensemble = gencg.draw(result.model, result.target, n_samples=50, seed=0)
    assert np.isfinite(result.history[-1].loss)
    assert ensemble.x.shape == (50, system.molecule.n_atoms, 3)
    assert system.energy.n_energy_calls >= 600


def test_a_written_trajectory_matches_the_molecule(tmp_path) -> None:
    molecule = from_smiles("CC(=O)Nc1ccccc1Cl").molecule
    assert molecule is not None
    path = tmp_path / "molecule.pdb"
    molecule.to_mdtraj().save(str(path))
    found = molecule.match(mdtraj.load(str(path)))
    assert_close(found[0], molecule.positions, atol=1e-3, rtol=0)


# --- SDF ------------------------------------------------------------------------------------------


def test_coordinates_in_space_are_kept_and_minimised(save) -> None:
    # The cis amide, which is not the lowest minimum
    mol = Chem.AddHs(Chem.MolFromSmiles("CC(=O)NC"))
    AllChem.EmbedMolecule(mol, randomSeed=3)
    AllChem.SetDihedralDeg(mol.GetConformer(), 0, 1, 3, 4, 0.0)
    path = save(Chem.MolToMolBlock(mol))
    cis, trans = from_sdf(path), from_smiles("CC(=O)NC")
    assert cis.molecule is not None
    assert trans.molecule is not None
    given = 0.1 * mol.GetConformer().GetPositions()
    distance = [np.linalg.norm(x[4] - x[0]) for x in (given, cis.molecule.positions)]
    assert distance[0] == pytest.approx(distance[1], abs=0.03)
    energies = [float(s.energy(torch.tensor(s.molecule.positions))) for s in (cis, trans)]
    assert energies[0] > energies[1] + 3
    assert cis.name == "my"


@pytest.mark.parametrize("smiles", ["C[C@H](O)CC", "C[C@@H](O)CC", r"C/C=C\CO", "C/C=C/CO"])
def test_stereo_of_coordinates_and_wedges_is_kept(smiles, write, save, caplog) -> None:
    canonical = Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    texts = [
        write(smiles, title="space"),
        write(smiles, v3=True, title="v3000"),
        write(smiles, hydrogens=False, title="heavy"),
        write(smiles, drawing=True, title="drawing"),
    ]
    path = save(*texts)
    with caplog.at_level(logging.WARNING, "gencg"):
        found = [from_sdf(path, index=k).description for k in range(4)]
    assert found == [f"{canonical}, MMFF94 in vacuum"] * 4
    assert not caplog.records


def test_what_a_file_leaves_open_is_told(write, save, caplog) -> None:
    with caplog.at_level(logging.INFO, "gencg"):
        system = from_sdf(save(write("CC(O)CC", hydrogens=False, drawing=True, title="2-butanol")))
    assert system.name == "2-butanol"
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING"]
    assert "my.sdf lacks 10 hydrogens; they are added" in caplog.text
    assert "my.sdf has no coordinates in space; conformers are embedded" in caplog.text
    assert "my.sdf leaves the stereo of C2" in caplog.text


def test_one_of_several_by_number_or_title(write, save, caplog) -> None:
    path = save(write("CO", title="methanol"), write("CC", title="ethane"), write("CC"))
    with caplog.at_level(logging.WARNING, "gencg"):
        assert from_sdf(path).name == "methanol"
    assert "my.sdf holds 3 molecules, the first is used" in caplog.text
    assert from_sdf(path, index=1).name == from_sdf(path, index="ethane").name == "ethane"
    assert from_sdf(path, index=2).name == "my"
    assert from_sdf(path, index=1, name="C2H6").name == "C2H6"
    with pytest.raises(ValueError, match=r"`index` must be 0 to 2, of the molecules .*got 3"):
        from_sdf(path, index=3)
    with pytest.raises(ValueError, match=r"`index` must be .*got -1"):
        from_sdf(path, index=-1)
    message = r"title of one molecule, got 'propane', which 0 of 3 .*are methanol, ethane, \(no tit"
    with pytest.raises(ValueError, match=message):
        from_sdf(path, index="propane")


def test_flat_coordinates_of_a_molecule_that_may_be_flat_are_used(save, caplog) -> None:
    # Hydrogen peroxide in the plane, a saddle between two minima
    mol = Chem.AddHs(Chem.MolFromSmiles("OO"))
    conformer = Chem.Conformer(4)
    conformer.SetPositions(np.array([[0, 0, 0], [1.4, 0, 0], [-0.3, 0.9, 0], [1.7, -0.9, 0.0]]))
    conformer.Set3D(True)
    mol.AddConformer(conformer)
    with caplog.at_level(logging.INFO, "gencg"):
        system = from_sdf(save(Chem.MolToMolBlock(mol)))
    assert not caplog.records
    assert system.molecule is not None
    turn = mdtraj.compute_dihedrals(system.molecule.to_mdtraj(), [[2, 0, 1, 3]])
    assert 90 < abs(math.degrees(turn[0, 0])) < 150


def test_no_coordinates_at_all_are_embedded(write, save) -> None:
    text = write("CC(=O)NC")
    lines = text.splitlines()
    lines[4:16] = [f"{0:10.4f}{0:10.4f}{0:10.4f}{line[30:]}" for line in lines[4:16]]
    system = from_sdf(save("\n".join(lines) + "\n"))
    assert system.molecule is not None
    assert np.ptp(system.molecule.positions, axis=0).min() > 0.1


def test_files_that_are_none(tmp_path, write, save) -> None:
    with pytest.raises(FileNotFoundError, match=r"no structure file at .*absent.sdf; give the"):
        from_sdf(tmp_path / "absent.sdf")
    for text in ("", "\n\n", "$$$$\n"):
        with pytest.raises(ValueError, match=r"my\.sdf holds no molecule; give an \.sdf"):
            from_sdf(save(text))
    binary = tmp_path / "binary.sdf"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="is not a text file"):
        from_sdf(binary)
    good = write("CCO")
    lines = good.splitlines()
    for text, message in (
        ("Dear diary,\n", r"my\.sdf is no MDL molecule: it has 1 lines, where the fourth"),
        ("a\nb\nc\nd\n", r"fourth line must have the numbers of atoms and bonds, got 'd'; repair"),
        ("\n".join(lines[:8]), r"must have 9 atoms and 8 bonds, and ends after 4 lines; repair"),
        (good.replace("  1  2  1", "  1 99  1"), "one of its 9 atom lines or 8 bond lines is brok"),
        (good.replace("V2000", "V3000"), "its V3000 part is broken"),
        ("\n  x\n\n  0  0  0  0  0  0            999 V2000\nM  END\n", r"my\.sdf holds no atoms"),
        (write("C[N+](C)(C)C").replace("M  CHG", "M  ZZZ"), r"no possible molecule: Explicit val"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            from_sdf(save(text))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^molecule 1 of .*my\.sdf is no MDL molecule"):
        from_sdf(save(good, "Dear diary,\n"), index=1)


# --- What cannot be built -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "smiles, message",
    [
        ("", "`smiles` must be a SMILES such as 'CC.*', got ''"),
        ("  ", "`smiles` must be a SMILES such as"),
        (5, "`smiles` must be a SMILES such as .*, got 5"),
        ("CC O", "must be one SMILES without spaces, got 'CC O'"),
        ("CC(C", r"`smiles` 'CC\(C' cannot be read: extra open parentheses$"),
        ("C1CC", "cannot be read: unclosed ring$"),
        ("CX", "cannot be read: syntax error$"),
        ("C(C)(C)(C)(C)C", "cannot be read: Explicit valence for atom # 0 C, 5, is greater than"),
        ("c1cccc1", "cannot be read: Can't kekulize mol"),
        ("CC(=O)[O-].[Na+]", r"holds 2 molecules, .* one at a time; give one of: CC\(=O\)\[O-\]$"),
        ("CC.O.O", "holds 3 molecules, .*; give one of: CC, O$"),
        ("[Na+].[Cl-]", "holds 2 molecules, .*; give a molecule$"),
        ("[Na+]", "must be a molecule of at least 3 atoms, got 1 with hydrogens"),
        ("[H][H]", "must be a molecule of at least 3 atoms, got 2"),
        ("CB(O)O", r"`smiles` 'CB\(O\)O': MMFF94 has no type for B \(atom 2\)"),
        ("C[Fe]C", r"MMFF94 has no type for Fe \(atom 2\)"),
        ("C[CH]C", r"got a radical at C \(atom 2\); MMFF94 describes closed shells"),
        ("C1C[C@@H]2CC[C@@H]1C2", "could not be embedded in space; are its rings.*an .sdf"),
    ],
)
def test_a_smiles_that_is_none(smiles, message, capfd) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_smiles(smiles)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "smiles, marked",
    [
        ("C1CC/C=C/CC1", r"C=C (atoms 4 and 5)"),
        ("CC=[C@]=CC", "C (atom 3)"),
        ("C/C=C/C", None),
        ("[H]/C(C)=C/C", None),
        ("C[C@H](O)CC", None),
    ],
)
def test_marks_that_mean_nothing_are_told(smiles, marked, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="gencg"):
        parse_smiles(smiles)
    assert ("marks stereo at" in caplog.text) == (marked is not None)
    assert marked is None or marked in caplog.text


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="`variant` must be one of MMFF94, MMFF94s, got 'mmff'"):
        from_smiles("CCCC", variant="mmff")
    for seed in (-1, 2**31, 0.5):
        with pytest.raises(ValueError, match=r"`seed` must be a whole number from 0"):
            from_smiles("CCCC", seed=seed)
    with pytest.raises(ValueError, match="`temperature` must be positive and finite"):
        from_smiles("CCCC", temperature=-1.0)
    with pytest.raises(ValueError, match="`max_barrier` must be positive"):
        from_smiles("CCCC", max_barrier=0.0)


def test_without_rdkit_the_extra_is_named(monkeypatch, write, save) -> None:
    path = save(write("CCO"))
    monkeypatch.setitem(sys.modules, "rdkit", None)
    for build in (lambda: from_smiles("CCO"), lambda: from_sdf(path)):
        with pytest.raises(ValueError, match=r"need RDKit, .*pip install 'gencg\[mol\]'"):
            build()


# --- Targets of the command line ------------------------------------------------------------------


def test_load_takes_smiles_and_sdf(write, save) -> None:
    system = load("smiles:CCO", forcefield=["MMFF94s"], temperature=310.0)
    assert (system.name, system.temperature) == ("CCO", 310.0)
    assert system.description == "CCO, MMFF94s in vacuum"
    path = save(write("CCO"), name="ethanol.mol")
    assert load(str(path)).name == "ethanol"
    # A molecule of many, and the copy that a run keeps of it
    many = str(save(write("CCO"), write("CO"), name="many.sdf"))
    second = load(f"{many}#1")
    assert (second.name, second.molecule.n_atoms) == ("many-1", 6)
    (kept,) = input_files(f"{many}#1", {})
    assert kept.content.count(b"$$$$") == 1
    copied = Path(many).parent / "copies" / kept.name
    copied.parent.mkdir()
    copied.write_bytes(kept.content)
    again = load(f"{many}#1", kept={f"{many}#1": copied})
    assert (again.name, again.molecule.n_atoms) == ("many-1", 6)
    assert_close(again.coordinates.centre, second.coordinates.centre)
    with pytest.raises(ValueError, match=r"implicit_solvent.* does not apply to the SMILES"):
        load("smiles:CCO", implicit_solvent="OBC2")
    assert default_force_field("smiles:CCO") == default_force_field("my.sdf") == ("MMFF94",)
    with pytest.raises(ValueError, match=r"`forcefield` must be MMFF94 or MMFF94s .*got amber"):
        load("smiles:CCO", forcefield=["amber96.xml"])
    with pytest.raises(FileNotFoundError, match=r"no structure file at absent\.sdf"):
        load("absent.sdf")


def test_the_energy_of_a_target_term_by_term() -> None:
    found = structure_energy("smiles:CC(=O)NC")
    assert sum(found["terms"].values()) == pytest.approx(found["total"], abs=1e-9)
    assert len(found["terms"]) == 7
    assert found["openmm"] is None


def test_conformers_differ_at_every_seed() -> None:
    for seed in (0, 1):
        mol = Chem.AddHs(Chem.MolFromSmiles("CCCCCCO"))
        found = embedded(mol, seed=seed, source="hexanol")
        heavy = [a.GetIdx() for a in found.GetAtoms() if a.GetAtomicNum() > 1]
        ends = {
            round(
                float(np.linalg.norm(c.GetPositions()[heavy[0]] - c.GetPositions()[heavy[-1]])), 2
            )
            for c in found.GetConformers()
        }
        assert len(ends) > 5
