"""Placement: from bond lengths, angles and torsions to positions, a level of the tree at a time."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from gencg.coordinates.symmetry import Rotor, handed_atoms, signed_volumes
from gencg.coordinates.zmatrix import ZMatrix
from gencg.geometry import dihedrals, wrap
from gencg.molecule import Molecule


class Tables(NamedTuple):
    """Index and constant tensors of a Z-matrix on one device.

    Torsion rows follow ``zmatrix.torsion_atoms``. Their dihedral angle is ``middle`` + d and
    their coordinate ``offset`` + d, with d in [-pi, pi); a leading row of a rotor has the middle
    t0, the offset 0 and carries n times the mean angle instead of d.
    """

    bonds: Tensor  # [n-1, 2]
    angles: Tensor  # [n-2, 3]
    quads: Tensor  # [n-3, 4]
    middle: Tensor
    offset: Tensor
    fold: Tensor
    rotors: Tensor  # leading rows of the rotors
    siblings: Tensor  # rows of the other atoms of rotors
    owners: Tensor  # and the leading row of each
    own: Tensor  # row of each placed atom, or n-3, a row of zeros
    first: Tensor  # row that its torsion is relative to, or n-3
    levels: tuple[Tensor, ...]  # place of each parent in the level before
    parents: Tensor  # place of each leaf's parent among the atoms with children
    undo: Tensor  # from order of placement to order of atoms
    root: Tensor  # frames of A and B: [3, (position, e, m, n), (A, B), 1]
    shift: Tensor  # one where the length A - B enters
    centres: Tensor  # atoms whose volume has a hand, [n_centres, 4]
    hands: Tensor
    stiff: Tensor  # leading rows of stiff acyclic axes

    def on(self, like: Tensor) -> "Tables":
        """The same tables with the dtype and device of `like`."""

        def move(value: Tensor) -> Tensor:
            return value.to(like.device, like.dtype if value.is_floating_point() else None)

        levels = tuple(map(move, self.levels))
        others = {k: move(v) for k, v in self._asdict().items() if k != "levels"}
        return self._replace(levels=levels, **others)


def absolute_torsions(torsion: Tensor, t: Tables) -> Tensor:
    """Torsion of every placed atom from the torsion rows, [n-3, batch] to [n-2, batch]."""
    d = torsion - t.offset[:, None]
    if len(t.rotors):
        d = d.index_add(0, t.owners, -d.index_select(0, t.siblings)) / t.fold[:, None]
    rows = torch.cat([t.middle[:, None] + d, torsion.new_zeros(1, torsion.shape[1])])
    return rows.index_select(0, t.own) + rows.index_select(0, t.first)


def place(r: Tensor, sine: Tensor, cosine: Tensor, torsion: Tensor, t: Tables) -> Tensor:
    r"""Positions [3, n_atoms, batch] from lengths, angles (sine, cosine) and absolute torsions.

    Every atom carries the frame of the bond to its parent: e along the bond, m towards the side
    of the grandparent, n = e x m. Turning the parent's frame by the torsion about e and by the
    angle about n gives the child's,

    .. math::
        s &= \cos\phi \, m + \sin\phi \, n & e' &= \sin\theta \, s - \cos\theta \, e \\
        n' &= \cos\phi \, n - \sin\phi \, m & m' &= -\cos\theta \, s - \sin\theta \, e

    with nothing to normalise, so that gradients stay finite and float32 keeps its precision. All
    atoms of a level go in one block, the atoms without children in a last one.
    """
    sin_t, cos_t, r_placed = torch.sin(torsion), torch.cos(torsion), r[1:]
    frames = [t.root + t.shift * r[0]]
    begin = 0
    for parents in t.levels:
        rows = slice(begin, begin + len(parents))
        begin = rows.stop
        x, e, m, n = frames[-1].index_select(2, parents).unbind(1)
        side = cos_t[rows] * m + sin_t[rows] * n
        e_new = sine[rows] * side - cosine[rows] * e
        m_new = -cosine[rows] * side - sine[rows] * e
        n_new = cos_t[rows] * n - sin_t[rows] * m
        frames.append(torch.stack([x + r_placed[rows] * e_new, e_new, m_new, n_new], 1))
    inner = torch.cat(frames, 2)
    x, e, m, n = inner.index_select(2, t.parents).unbind(1)
    side = cos_t[begin:] * m + sin_t[begin:] * n
    leaves = x + r_placed[begin:] * (sine[begin:] * side - cosine[begin:] * e)
    return torch.cat([inner[:, 0], leaves], 1).index_select(1, t.undo)


def build_tables(
    molecule: Molecule,
    zmatrix: ZMatrix,
    rotors: tuple[Rotor, ...],
    *,
    soft: Tensor,
    fold: Tensor,
) -> Tables:
    """Tables of a Z-matrix, given which torsion rows are soft and their order as rotors."""
    z, n, x = zmatrix, molecule.n_atoms, torch.as_tensor(molecule.positions)
    placed = z.atoms[2:]
    row = {k: i for i, k in enumerate(z.torsion_atoms)}
    quads = _index((z.quad(k) for k in row), 4)
    leading = _index(row[rotor.atoms[0]] for rotor in rotors)
    siblings = _index(row[k] for rotor in rotors for k in rotor.atoms[1:])
    owners = _index(row[rotor.atoms[0]] for rotor in rotors for _ in rotor.atoms[1:])
    torsion = dihedrals(x, quads)
    middle = torch.where(soft, 0.0, torsion)
    turns = [2 * math.pi * j / rotor.n for rotor in rotors for j in range(1, rotor.n)]
    middle[siblings] = wrap(torch.tensor(turns, dtype=torch.float64))
    deviation = wrap(torsion - middle)[siblings] / fold[owners]
    middle[leading] = torsion.index_add(0, owners, deviation)[leading]
    acyclic = {tuple(bond) for bond in molecule.bonds[~molecule.ring_bonds].tolist()}
    place_of = {k: i for i, k in enumerate(z.atoms)}
    before = (z.atoms[:2], *z.levels)
    root = torch.zeros(3, 4, 2, 1, dtype=torch.float64)
    root[:, 1:, 0, 0] = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    root[:, 1:, 1, 0] = torch.eye(3, dtype=torch.float64)
    shift = torch.zeros_like(root)
    shift[0, 0, 1, 0] = 1.0
    centres = _index(handed_atoms(molecule), 4)
    return Tables(
        bonds=_index(((k, z.parent[k]) for k in z.atoms[1:]), 2),
        angles=_index(((k, z.parent[k], z.grandparent[k]) for k in placed), 3),
        quads=quads,
        middle=middle,
        offset=middle.index_fill(0, leading, 0.0),
        fold=fold.to(torch.float64),
        rotors=leading,
        siblings=siblings,
        owners=owners,
        own=_index(row.get(k, n - 3) for k in placed),
        first=_index(n - 3 if z.first[k] == k else row.get(z.first[k], n - 3) for k in placed),
        levels=tuple(
            _index(last.index(z.parent[k]) for k in level)
            for last, level in zip(before, z.levels, strict=False)
        ),
        parents=_index(place_of[z.parent[k]] for k in z.leaves),
        undo=_index(place_of[k] for k in range(n)),
        root=root,
        shift=shift,
        centres=centres,
        hands=signed_volumes(x, centres).sign(),
        stiff=_index(row[k] for k in z.leading if not soft[row[k]] and z.axis(k) in acyclic),
    )


def _index(values: Iterable[object], *shape: int) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long).reshape(-1, *shape)
