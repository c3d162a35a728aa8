"""The Z-matrix of every molecule is a tree over its bonds.

Cannot detect: a tree that is valid but deeper than it could be.
"""

import pytest
from molecules import MOLECULES, alkane, dipeptide

from gencg.coordinates.zmatrix import build_zmatrix


@pytest.mark.parametrize("name", MOLECULES)
def test_every_zmatrix(name: str) -> None:
    molecule = MOLECULES[name]()
    z = build_zmatrix(molecule)
    place = {k: i for i, k in enumerate(z.atoms)}

    # Every atom once; three atoms without a torsion
    assert sorted(z.atoms) == list(range(molecule.n_atoms))
    assert len(z.torsion_atoms) == molecule.n_atoms - 3
    assert z.third not in z.torsion_atoms

    for k in z.atoms[1:]:
        # Bonds are bonds, and parents come first
        assert z.parent[k] in molecule.neighbours[k]
        assert place[z.parent[k]] < place[k]
    for k in z.torsion_atoms:
        p, g, reference = z.parent[k], z.grandparent[k], z.reference[k]
        assert g in molecule.neighbours[p]
        assert len(set(z.quad(k))) == 4
        assert place[g] < place[k]
        # Siblings follow one of them, or an atom of a ring that is there before
        assert z.parent[z.first[k]] == p or (
            z.first[k] == reference in molecule.neighbours[p] and place[reference] < place[k]
        )

    # Every bond is a length: in the tree, or one that closes a ring
    ends = [(k, z.parent[k]) for k in z.atoms[1:]]
    ends += [(k, end) for k, end in enumerate(z.closes) if end >= 0]
    assert sorted(sorted(pair) for pair in ends) == molecule.bonds.tolist()

    # What a block is placed from is there before
    before = set(z.atoms[:2])
    for block in (*z.blocks, z.leaves):
        for k in block:
            assert z.parent[k] in before
            if z.closes[k] >= 0:
                assert {z.closes[k], z.reference[k]} - {-1} <= before
        before |= set(block)


def test_the_root_lies_in_the_middle_and_torsions_follow_the_chain() -> None:
    z = build_zmatrix(alkane(12))
    assert sorted(z.atoms[:2]) == [5, 6]
    carbons = [z.quad(k) for k in z.leading if max(z.quad(k)) < 12]
    assert sorted(sorted(quad) for quad in carbons) == [[i, i + 1, i + 2, i + 3] for i in range(9)]

    molecule = dipeptide()
    z = build_zmatrix(molecule)
    assert [molecule.names[i] for i in z.atoms[:2]] == ["ALA2-N", "ALA2-CA"]
    quads = {z.quad(k) for k in z.leading}
    for _, quad in molecule.phi_psi():
        assert quad in quads or quad[::-1] in quads
