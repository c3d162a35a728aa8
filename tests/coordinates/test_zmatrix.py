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
        assert reference in molecule.neighbours[g] or z.parent[reference] == p
        assert len({k, p, g, reference}) == 4
        assert place[g] < place[k]
        # Siblings follow one of them
        assert z.parent[z.first[k]] == p

    # Atoms of a level have their parents in the level before
    for before, level in zip((z.atoms[:2], *z.levels), z.levels, strict=False):
        assert {z.parent[k] for k in level} <= set(before)


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
