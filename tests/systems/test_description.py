"""What is said of a molecule is what its coordinates do.

Cannot detect: a reason that is true and beside the point.
"""

import pytest

from gencg.coordinates.internal import InternalCoordinates
from gencg.systems import load
from gencg.systems.base import System
from gencg.systems.description import describe_system


def smiles(text: str) -> System:
    pytest.importorskip("rdkit")
    return load(f"smiles:{text}")


def test_the_dipeptide() -> None:
    system = load("alanine-dipeptide")
    description = describe_system(system)
    soft = [n for n, s in zip(system.coordinates.names, system.coordinates.soft, strict=True) if s]
    assert [row.name for row in description.sampled] == soft
    assert [row.kind for row in description.sampled] == ["torsion"] * 2 + ["rotor"] * 3
    held = {row.name: row for row in description.rows if not row.sampled}
    assert held["ACE1-C - ALA2-N"].reason.startswith("barrier of 9")
    assert held["ALA2-CA"].kind == "stereocentre"
    text = str(description)
    assert "22 atoms (10 heavy), 21 bonds, 0 rings; 60 coordinates, of which 5 are" in text
    assert "1  phi(ALA2)" in text
    # Every bond of a row is one
    bonds = {(i, j) for i, j in system.molecule.bonds.tolist()}
    assert {row.bond for row in description.rows if row.bond} <= bonds


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("C1CCCCC1", ["ring", "ring", "ring"]),
        ("CN1CCCC1", ["nitrogen", "ring", "ring", "rotor"]),
        ("CC(C)(C)CO", ["rotor"] * 4 + ["torsion"]),
        ("c1ccccc1C=C", ["multiple bond", "ring of 6", "torsion"]),
        ("CCC#N", ["rotor", "straight angle"]),
        ("C1CC1", ["ring of 3"]),
        ("C[C@H](O)C(=O)NC", ["rotor"] * 2 + ["stereocentre", "stiff bond"] + ["torsion"] * 2),
    ],
)
def test_every_kind(text: str, kinds: list[str]) -> None:
    description = describe_system(smiles(text))
    assert sorted(row.kind for row in description.rows) == sorted(kinds)


@pytest.mark.parametrize(
    ("text", "centres", "sides"),
    [
        ("C[C@H]1CC[C@H](C)CC1", 2, []),  # sides of a ring, without four different neighbours
        ("CC1CCCCC1", 0, []),
        ("CC(C)(C)CO", 0, []),
        ("C/C=C/C", 0, ["trans"]),
        ("C/C=C\\C", 0, ["cis"]),
        ("CC=C(C)C", 0, []),
        ("CC#CC", 0, []),
        ("CNC(C)=O", 0, ["cis"]),  # carbon on nitrogen, and oxygen
    ],
)
def test_the_stereo_that_is_held(text: str, centres: int, sides: list[str]) -> None:
    rows = describe_system(smiles(text)).rows
    assert sum(row.kind == "stereocentre" for row in rows) == centres
    assert [row.reason.split()[-1] for row in rows if " stay " in row.reason] == sides


def test_toys_and_lengths_of_a_cage() -> None:
    toy = describe_system(load("double-well"))
    assert [row.sampled for row in toy.rows] == [True, True]
    cubane = smiles("C12C3C4C1C5C2C3C45")
    coordinates = cubane.coordinates
    assert isinstance(coordinates, InternalCoordinates)
    n_closing = sum(end >= 0 for end in coordinates.zmatrix.closes)
    n_lengths = len([r for r in describe_system(cubane).rows if r.kind == "length"])
    # Twenty bonds, fifteen of them in the tree
    assert n_lengths == 20 - 15 - n_closing
