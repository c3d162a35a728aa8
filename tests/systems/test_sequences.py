"""Peptides from sequences: the right atoms, hands and torsions, and one line for what is none.

Cannot detect: whether a rotamer is the best one, or whether hydrogens of a CH2 carry the labels
that IUPAC gives them; coordinates match labels where it matters.
"""

import io

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gencg.coordinates.clashes import clashes, distant_pairs
from gencg.energies.descent import descend
from gencg.energies.forcefield import ForceField
from gencg.energies.openmm import OpenMMEnergy, energy_from_system
from gencg.geometry import dihedrals
from gencg.molecule import Molecule
from gencg.systems import alanine_dipeptide, from_sequence, load
from gencg.systems.peptide import STRAND, build_peptide
from gencg.systems.residues import DEXTRO, LETTERS, PROTONATION, parse_sequence
from gencg.systems.sequence import read_sequence

TWENTY = sorted(LETTERS.values())
ALL = [*TWENTY, *PROTONATION]
VACUUM = ("amber14-all.xml",)


def molecule_of(topology, positions) -> Molecule:
    import mdtraj

    return Molecule(mdtraj.Topology.from_openmm(topology), positions)


def build(text: str, phi_psi=None) -> Molecule:
    return molecule_of(*build_peptide(parse_sequence(text), phi_psi=phi_psi))


def hand(molecule: Molecule, x, residue: int, names: tuple[str, ...]) -> float:
    """Sign of the volume that the last three of four atoms span about the first."""
    atoms = {a.name: a.index for a in molecule.topology.residue(residue).atoms}
    centre, *others = (np.asarray(x)[atoms[name]] for name in names)
    return float(np.sign(np.linalg.det(np.array(others) - centre)))


def angles_of(molecule: Molecule, x) -> dict[str, float]:
    """Backbone torsions in degrees by name."""
    named = dict(n for n in molecule.named_torsions() if n[0].startswith(("phi", "psi", "omega")))
    found = dihedrals(torch.as_tensor(np.asarray(x)), torch.tensor(list(named.values())))
    return dict(zip(named, torch.rad2deg(found).tolist(), strict=True))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("prefix", ["", "D-"], ids=["L", "D"])
def test_every_residue_has_its_hand_before_and_after_minimising(name: str, prefix: str) -> None:
    parts = read_sequence(f"ACE-{prefix}{name}-NME", forcefield=VACUUM)
    given = molecule_of(parts.topology, parts.positions)
    energy = energy_from_system(parts.system)
    assert isinstance(energy, ForceField)
    minimum = descend(energy, parts.positions)
    is_dextro = prefix == "D-" and name != "GLY"
    sign = -1.0 if is_dextro else 1.0
    for x in (parts.positions, minimum):
        if name != "GLY":
            # Seen from HA: CO, R, N clockwise
            assert hand(given, x, 1, ("CA", "N", "C", "CB")) == sign
        if name in ("ILE", "THR"):
            second = {"ILE": ("CG1", "CG2"), "THR": ("OG1", "CG2")}[name]
            assert hand(given, x, 1, ("CB", "CA", *second)) == sign
        # Nothing sits on anything, no amide is cis
        assert not bool(clashes(torch.tensor(x)[None], distant_pairs(given)))
        omegas = [v for k, v in angles_of(given, x).items() if k.startswith("omega")]
        assert min(map(abs, omegas)) > 150
    assert len(given.stereocentres()) == {"GLY": 0, "ILE": 2, "THR": 2}.get(name, 1)
    assert given.topology.residue(1).name == (
        DEXTRO[PROTONATION.get(name, (name,))[0]]
        if is_dextro
        else PROTONATION.get(name, (name,))[0]
    )
    x = torch.tensor(parts.positions)
    assert_close(energy(x), OpenMMEnergy(parts.system)(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("phi_psi", [None, [(-60.0, -45.0)], [(-75.0, 145.0)]])
def test_large_side_chains_have_room(phi_psi) -> None:
    for text in ("FGIFHWIYLA", "wkrmefyhwq"):
        turned = phi_psi and [(-a, -b) if text.islower() else (a, b) for a, b in phi_psi]
        parts = read_sequence(text, forcefield=VACUUM, phi_psi=turned)
        # Its own checks find no bent ring and no long bond
        molecule = molecule_of(parts.topology, parts.positions)
        x = torch.tensor(parts.positions)[None]
        assert not bool(clashes(x, distant_pairs(molecule)))


def test_handedness_is_what_rdkit_calls_it() -> None:
    pytest.importorskip("rdkit")
    from openmm import app, unit
    from rdkit import Chem
    from rdkit.Chem import rdCIPLabeler

    for prefix in ("", "D-"):
        residues = parse_sequence("-".join(["ACE", *(prefix + name for name in TWENTY), "NME"]))
        topology, positions = build_peptide(residues)
        for ours, residue in zip(topology.residues(), residues, strict=True):
            ours.name = residue.name  # bond orders are known of L residues
        text = io.StringIO()
        app.PDBFile.writeFile(topology, positions * unit.nanometer, text)
        molecule = Chem.MolFromPDBBlock(text.getvalue(), removeHs=False)
        Chem.AssignStereochemistryFrom3D(molecule)
        rdCIPLabeler.AssignCIPLabels(molecule)
        found = {}
        for atom in molecule.GetAtoms():
            if atom.HasProp("_CIPCode"):
                info = atom.GetPDBResidueInfo()
                label = f"{info.GetResidueName().strip()}-{info.GetName().strip()}"
                found[label] = atom.GetProp("_CIPCode")
        expected = {f"{name}-CA": "S" for name in TWENTY if name != "GLY"}
        expected |= {"CYS-CA": "R", "ILE-CB": "S", "THR-CB": "R"}
        if prefix:
            expected = {k: "R" if v == "S" else "S" for k, v in expected.items()}
        assert found == expected


@pytest.mark.parametrize(
    "text, phi_psi",
    [
        ("ACE-ALA-LYS-TRP-NME", [(-60.0, -45.0)]),
        ("ACE-ALA-LYS-TRP-NME", [(-60.0, -45.0), (60.0, 45.0), (-75.0, 145.0)]),
        ("ACE-D-ALA-D-PRO-GLY-NME", [(60.0, 45.0), (65.0, -140.0), (180.0, 180.0)]),
        ("ACE-PRO-ALA-NME", None),
        ("VLK", [(-120.0, 120.0)]),
    ],
)
def test_backbone_torsions_are_the_ones_asked_for(text: str, phi_psi) -> None:
    molecule = build(text, phi_psi)
    found = angles_of(molecule, molecule.positions)
    amino_acids = [r for r in parse_sequence(text) if not r.is_cap]
    pairs = (phi_psi or [(-65.0, 140.0), STRAND]) * (len(amino_acids) // len(phi_psi or "12") or 1)
    number = {r.resSeq: r.name for r in molecule.topology.residues}
    first = 2 if text.startswith("ACE") else 1
    for i, (phi, psi) in enumerate(pairs, first):
        for kind, value in (("phi", phi), ("psi", psi)):
            label = f"{kind}({number[i]}{i})"
            if label in found:  # a free end lacks one
                turned = (found.pop(label) - value + 180.0) % 360.0 - 180.0
                assert turned == pytest.approx(0.0, abs=1e-4)
    assert all(name.startswith("omega") for name in found)
    assert {round(abs(value)) for value in found.values()} == {180}


def test_mirrored_molecules_have_equal_energies() -> None:
    # Correction maps of ff19SB are of L residues; mirrored ones are of D residues
    words = ["LYS", "ILE", "THR", "PRO", "TRP", "ASN", "HIP"]
    for field in (("amber14-all.xml",), ("amber19-all.xml",)):
        left = read_sequence("-".join(["ACE", *words, "NME"]), forcefield=field)
        right = read_sequence(
            "-".join(["ACE", *(f"D-{w}" for w in words), "NME"]), forcefield=field
        )
        assert [a.name for a in left.topology.atoms()] == [a.name for a in right.topology.atoms()]
        x = torch.tensor(left.positions)
        assert_close(energy_from_system(left.system)(x), energy_from_system(right.system)(-x))
        assert_close(OpenMMEnergy(right.system)(-x), energy_from_system(right.system)(-x))


def test_a_sequence_is_the_molecule_of_a_structure_file() -> None:
    known = alanine_dipeptide()
    assert known.molecule is not None
    mine = from_sequence("ACE-ALA-NME", forcefield=("amber96.xml", "implicit/obc1.xml"))
    assert mine.molecule is not None
    assert mine.name == "ACE-ALA-NME"
    assert mine.description == "ACE-ALA-NME, amber96.xml + implicit/obc1.xml"
    x = mine.molecule.match(known.molecule.to_mdtraj())
    there = torch.tensor(known.molecule.to_mdtraj().xyz.astype(float))
    assert_close(mine.energy(torch.tensor(x)), known.energy(there), atol=1e-6, rtol=0)
    assert mine.coordinates.dim == known.coordinates.dim
    assert int(mine.coordinates.soft.sum()) == int(known.coordinates.soft.sum())
    assert bool(mine.coordinates.valid(torch.tensor(mine.molecule.positions)))


def test_ends_are_as_written() -> None:
    free, capped = build("AG"), build("ACE-ALA-GLY-NH2")
    names = {a.name for a in free.topology.atoms}
    assert {"H2", "H3", "OXT"} <= names
    assert [r.name for r in free.topology.residues] == ["ALA", "GLY"]
    assert [r.name for r in capped.topology.residues] == ["ACE", "ALA", "GLY", "NH2"]
    assert "OXT" not in {a.name for a in capped.topology.atoms}
    # One charge at each end, none with caps
    for text, n_atoms in (("AG", 20), ("ACE-ALA-GLY-NH2", 26)):
        system = load(f"sequence:{text}", forcefield=VACUUM)
        assert system.molecule is not None
        assert system.molecule.n_atoms == n_atoms


@pytest.mark.parametrize(
    "one, other",
    [
        ("AaG", "ALA-DAL-GLY"),
        ("ala-d-ala-gly", "ALA-DAL-GLY"),
        ("L-ALA-D-ALA-D-GLY", "AaG"),
        ("H-HIS-GLY", None),
        ("GG-", None),
        (" ACE-HIS-NMA ", "ACE-HIE-NME"),
        ("ACE-ALA-NHE", "ACE-ALA-NH2"),
    ],
)
def test_ways_to_write_a_sequence(one: str, other: str | None) -> None:
    if other is None:
        with pytest.raises(ValueError, match="no residue of a sequence"):
            parse_sequence(one)
    else:
        assert parse_sequence(one) == parse_sequence(other)


def test_caps_are_added_where_none_is_written() -> None:
    assert parse_sequence("AG", caps=True) == parse_sequence("ACE-ALA-GLY-NME")
    assert parse_sequence("ALA-NH2", caps=True) == parse_sequence("ACE-ALA-NH2")
    assert parse_sequence("A", caps=True) == parse_sequence("ACE-ALA-NME")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "`sequence` is empty"),
        ("AXA", r"'AXA' holds 'X', which is no one-letter code; known are ACDEFGHIKLMNPQRSTVWY"),
        ("ACE-ALX-NME", r"holds 'ALX', which is no residue of a sequence; known are ALA, ARG"),
        ("D-NME", "holds 'D-NME', which is no residue"),
        ("ALA-D", "ends with 'D'"),
        ("ALA", "the name of one residue; write ALA-LEU-ALA for three residues, or ACE-ALA-NME"),
        ("PRO", "the name of one residue; write ACE-PRO-NME"),
        ("A", "one residue with free ends.*ACE-ALA-NME"),
        ("ACE-", "no residue of a sequence"),
        ("ALA-ACE-ALA", "has the cap ACE inside; it stands at the start"),
        ("NME-ALA", "has the cap NME inside; it stands at the end"),
        ("ACE-CYX-NME", "CYX, half of a disulfide bond.*write CYS or CYM"),
    ],
)
def test_sequences_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        from_sequence(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, phi_psi, message",
    [
        ("AGA", [(-60, -45)] * 2, r"a pair for each of the 3 amino acids.*got shape \(2, 2\)"),
        ("AGA", [(-60,)] * 3, r"got shape \(3, 1\)"),
        ("AGA", [(-60, float("nan"))] * 3, "must be finite, in degrees"),
        ("APA", [(180, 180)] * 3, "phi of amino acid 2, PRO, between -100 and -35 degrees.*got"),
        ("AAp", [(-60, -45)] * 3, "phi of amino acid 3, DPR, between 35 and 100 degrees"),
        ("AAAAAA", [(0, 0)], "folds the chain onto itself: .* choose other angles"),
    ],
)
def test_angles_that_do_not_fit(text: str, phi_psi, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_sequence(text, phi_psi=phi_psi)


def test_what_a_force_field_lacks() -> None:
    with pytest.raises(
        ValueError, match=r"'ASH-ALA': No template.*ASP 1.*lacks this residue in its.*a cap or"
    ):
        from_sequence("ASH-ALA")
    with pytest.raises(ValueError, match="no residue templates"):
        from_sequence("ACE-ALA-NME", forcefield=["implicit/obc2.xml"])
    with pytest.raises(ValueError, match=r"`sequence` holds 3,001 atoms; gencg describes one mol"):
        from_sequence("G" * 750)


@pytest.mark.slow
def test_charmm_knows_all_residues_with_free_ends() -> None:
    # OpenMM's CHARMM36 has no caps but around a few single residues
    left, right = (
        read_sequence("-".join(["GLY", *(prefix + name for name in ALL), "GLY"]),
                      forcefield=("charmm36.xml",))
        for prefix in ("", "D-")
    )  # fmt: skip
    x = torch.tensor(left.positions)
    energy, mirrored = energy_from_system(left.system), energy_from_system(right.system)
    assert_close(energy(x), OpenMMEnergy(left.system)(x), atol=1e-5, rtol=0)
    # Some of its angles are written with few decimals
    assert_close(mirrored(-x), energy(x), atol=1e-4, rtol=0)


def test_the_same_sequence_gives_the_same_structure() -> None:
    import random

    first = build("ACE-SER-LYS-NME").positions
    random.seed(7)
    assert np.array_equal(build("ACE-SER-LYS-NME").positions, first)
    assert random.random() == random.Random(7).random()
