"""Placement: from bond lengths, angles and torsions to positions, a block of the tree at a time."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gencg.coordinates.symmetry import Rotor, handed_atoms, signed_volumes
from gencg.coordinates.zmatrix import ZMatrix
from gencg.geometry import dihedrals, wrap
from gencg.molecule import Molecule

NEAREST = 0.005
"""Distance in nm from the line between its ring neighbours below which an atom closes no ring."""
_FARTHEST = 0.5


class Block(NamedTuple):
    """Atoms of one kind that are placed in one go.

    Frames are kept in the order in which they are made, positions in the order of placement.
    """

    kind: int  # 0 by angle and torsion, 1 closing a ring, 2 linear
    begin: int  # rows among the placed atoms
    end: int
    recent: bool  # whether `source` counts in the frames of the block before alone
    source: Tensor  # frame of each parent; for a ring (a, b, c) in order of placement, [3, m]
    turned: Tensor  # frames made next: (origin, from, towards) in order of placement, [3, m]


class Tables(NamedTuple):
    """Index and constant tensors of a Z-matrix on one device.

    Torsion rows follow ``zmatrix.torsion_atoms``. Their dihedral angle is ``middle`` + d and
    their coordinate ``offset`` + d, with d in [-pi, pi); a leading row of a rotor has the middle
    t0, the offset 0 and carries n times the mean angle instead of d, one of a ring the middle of
    its window, the offset 0 and d times its stretch. The row of a linear atom is its second bend.
    """

    bonds: Tensor  # [n-1, 2]
    angles: Tensor  # [n-2, 3]
    quads: Tensor  # [n-3, 4]
    middle: Tensor
    offset: Tensor
    stretch: Tensor
    rotors: Tensor  # leading rows of the rotors
    siblings: Tensor  # rows of the other atoms of rotors
    owners: Tensor  # and the leading row of each
    own: Tensor  # row of each placed atom, or n-3, a row of zeros
    first: Tensor  # row that its torsion is relative to, or n-3
    blocks: tuple[Block, ...]
    parents: Tensor  # frame of each leaf's parent
    undo: Tensor  # from order of placement to order of atoms
    root: Tensor  # frames of A and B: [3, (position, e, m, n), (A, B), 1]
    shift: Tensor  # one where the length A - B enters
    centres: Tensor  # atoms whose volume has a hand, [n_centres, 4]
    hands: Tensor
    stiff: Tensor  # leading rows of stiff acyclic axes
    held: Tensor  # torsions along large rings about bonds that do not turn, [n_held, 4]
    held_at: Tensor  # and their values in the reference
    closing: Tensor  # which placed atoms close a ring
    ring: Tensor  # they and their two ring neighbours, [n_closing, 3]
    linear: Tensor  # which placed atoms are linear
    bent: Tensor  # they, parent, grandparent and where the first bend goes, [n_linear, 4]
    bends: Tensor  # rows of their second bends
    flat: Tensor  # place of C if it closes a ring with A

    def on(self, like: Tensor) -> "Tables":
        """The same tables with the dtype and device of `like`."""

        def move(value: Tensor) -> Tensor:
            return value.to(like.device, like.dtype if value.is_floating_point() else None)

        blocks = tuple(
            block._replace(source=move(block.source), turned=move(block.turned))
            for block in self.blocks
        )
        others = {k: move(v) for k, v in self._asdict().items() if k != "blocks"}
        return self._replace(blocks=blocks, **others)


def absolute_torsions(torsion: Tensor, t: Tables) -> Tensor:
    """Torsion of every placed atom from the torsion rows, [n-3, batch] to [n-2, batch]."""
    d = torsion - t.offset[:, None]
    if len(t.rotors):
        d = d.index_add(0, t.owners, -d.index_select(0, t.siblings))
    d = d / t.stretch[:, None]
    rows = torch.cat([t.middle[:, None] + d, torsion.new_zeros(1, torsion.shape[1])])
    return rows.index_select(0, t.own) + rows.index_select(0, t.first)


def place(r: Tensor, theta: Tensor, torsion: Tensor, t: Tables) -> tuple[Tensor, Tensor]:
    r"""Positions [3, n_atoms, batch] from lengths, angles and absolute torsions.

    Every atom carries the frame of the bond to its parent: e along the bond, m towards the side
    of the grandparent, n = e x m. Turning the parent's frame by the torsion about e and by the
    angle about n gives the child's,

    .. math::
        s &= \cos\phi \, m + \sin\phi \, n & e' &= \sin\theta \, s - \cos\theta \, e \\
        n' &= \cos\phi \, n - \sin\phi \, m & m' &= -\cos\theta \, s - \sin\theta \, e

    with nothing to normalise, so that gradients stay finite and float32 keeps its precision. All
    atoms of a block go in one piece, the atoms that no other is placed from in a last one.

    An atom that closes a ring between a and b, at a distance d from each other, lies at lengths
    :math:`r_1, r_2` from them, with the frame of the line from b to a and m on the side of c:

    .. math:: x = a - h\, e + \rho\, (\cos\omega\, m + \sin\omega\, n), \qquad
              h = (r_1^2 + d^2 - r_2^2) / 2d, \quad \rho^2 = r_1^2 - h^2

    Where the lengths do not reach, :math:`\rho` is `NEAREST`, and its bonds are too long. A
    linear atom with bends :math:`b_1, b_2` goes along :math:`\cos\alpha\, e +
    (b_1 m + b_2 n) \sin\alpha / \alpha` with :math:`\alpha^2 = b_1^2 + b_2^2`.

    Returns:
        Positions, and of each placed atom what its volume element has in place of the sine
        of an angle, [n-2, batch]: that, :math:`r_2 / r_1 d` or :math:`\sin\alpha / \alpha`.
    """
    sine, cosine, r_placed = torch.sin(theta), torch.cos(theta), r[1:]
    volume = sine
    if len(t.flat):
        short, end = r_placed[t.flat], theta[t.flat]
        ratio = ((short**2 + r[0] ** 2 - end**2) / (2 * short * r[0])).clamp(-0.9999, 0.9999)
        cosine = cosine.index_copy(0, t.flat, ratio)
        sine = sine.index_copy(0, t.flat, torch.sqrt(1 - ratio**2))
        volume = volume.index_copy(0, t.flat, end / (short * r[0]))
    sin_t, cos_t = torch.sin(torsion), torch.cos(torsion)
    frames = [t.root + t.shift * r[0]]
    placed = [frames[0][:, 0]]
    for block in t.blocks:
        rows = slice(block.begin, block.end)
        if block.kind == 1:
            x, of_ring = _closed(torch.cat(placed, 1), r_placed, theta, cos_t, sin_t, block)
            volume = _replaced(volume, rows, of_ring)
        else:
            known = frames[-1] if block.recent else torch.cat(frames, 2)
            x, e, m, n = known.index_select(2, block.source).unbind(1)
            if block.kind == 2:
                first, second = theta[rows], torsion[rows]
                angle = torch.sqrt(first**2 + second**2 + 1e-12)
                shrink = torch.sin(angle) / angle
                x = x + r_placed[rows] * (torch.cos(angle) * e + shrink * (first * m + second * n))
                volume = _replaced(volume, rows, shrink)
            else:
                side = cos_t[rows] * m + sin_t[rows] * n
                e_new = sine[rows] * side - cosine[rows] * e
                m_new = -cosine[rows] * side - sine[rows] * e
                n_new = cos_t[rows] * n - sin_t[rows] * m
                x = x + r_placed[rows] * e_new
                frames.append(torch.stack([x, e_new, m_new, n_new], 1))
        placed.append(x)
        if block.kind:
            points = torch.cat(placed, 1)
            frames.append(frame_of(*(points.index_select(1, i) for i in block.turned)))
    begin = t.blocks[-1].end if t.blocks else 0
    x, e, m, n = torch.cat(frames, 2).index_select(2, t.parents).unbind(1)
    side = cos_t[begin:] * m + sin_t[begin:] * n
    leaves = x + r_placed[begin:] * (sine[begin:] * side - cosine[begin:] * e)
    return torch.cat([*placed, leaves], 1).index_select(1, t.undo), volume


def bends_of(x: Tensor, t: Tables) -> tuple[Tensor, Tensor]:
    r"""Bends of the linear atoms of positions ``(*batch, n_atoms, 3)``.

    Returns:
        :math:`(b_1, b_2)`, ``(*batch, n_linear, 2)``, and :math:`\sin\alpha / \alpha`.
    """
    k, p, g, towards = (x[..., i, :].movedim(-1, 0) for i in t.bent.unbind(1))
    _, e, m, n = frame_of(p, g, towards).unbind(1)
    bond = k - p
    along, first, second = ((bond * axis).sum(0) for axis in (e, m, n))
    across = torch.sqrt(first**2 + second**2 + 1e-16)
    angle = torch.atan2(across, along)
    stretch = angle / across
    bends = torch.stack([first * stretch, second * stretch], -1)
    return bends, torch.sin(angle) / angle


def _closed(
    points: Tensor, r: Tensor, theta: Tensor, cos_t: Tensor, sin_t: Tensor, block: Block
) -> tuple[Tensor, Tensor]:
    """Positions of atoms that close a ring, and r2 / (r1 d) of each."""
    rows = slice(block.begin, block.end)
    a, b, c = (points.index_select(1, i) for i in block.source)
    short, end = r[rows], theta[rows]
    d = (a - b).square().sum(0).clamp(min=NEAREST**2).sqrt()
    along = ((short**2 + d**2 - end**2) / (2 * d)).clamp(-_FARTHEST, _FARTHEST)
    off = (short**2 - along**2).clamp(min=NEAREST**2).sqrt()
    _, e, m, n = frame_of(a, b, c).unbind(1)
    return a - along * e + off * (cos_t[rows] * m + sin_t[rows] * n), end / (short * d)


def _replaced(value: Tensor, rows: slice, new: Tensor) -> Tensor:
    return torch.cat([value[: rows.start], new, value[rows.stop :]])


def frame_of(origin: Tensor, before: Tensor, towards: Tensor) -> Tensor:
    """Frames [3, (position, e, m, n), ...] at `origin`: e from `before`, m to where `towards` is.

    All of shape [3, ...].
    """
    e = _unit(origin - before)
    arm = towards - origin
    m = _unit(arm - (arm * e).sum(0) * e)
    return torch.stack([origin, e, m, torch.linalg.cross(e, m, dim=0)], 1)


def _unit(v: Tensor) -> Tensor:
    return v / torch.sqrt(v.square().sum(0) + 1e-16)


def build_tables(
    molecule: Molecule,
    zmatrix: ZMatrix,
    rotors: tuple[Rotor, ...],
    *,
    soft: Tensor,
    stretch: Tensor,
    windows: Mapping[int, float],
    held: Sequence[tuple[int, int, int, int]] = (),
) -> Tables:
    """Tables of a Z-matrix.

    Args:
        molecule: Gives the reference structure.
        zmatrix: The order of placement.
        rotors: The folded rotors.
        soft: Which torsion rows are soft, ``(n-3,)`` bool.
        stretch: How far a row's coordinate goes as its torsion does, ``(n-3,)``: the order of a
            rotor, half a turn over half the window of a ring.
        windows: The middle of each row that stays in a window.
        held: Torsions along large rings that keep the side of the reference.
    """
    z, n, x = zmatrix, molecule.n_atoms, torch.as_tensor(molecule.positions)
    placed = z.atoms[2:]
    row = {k: i for i, k in enumerate(z.torsion_atoms)}
    quads = _index((z.quad(k) for k in row), 4)
    leading = _index(row[rotor.atoms[0]] for rotor in rotors)
    siblings = _index(row[k] for rotor in rotors for k in rotor.atoms[1:])
    owners = _index(row[rotor.atoms[0]] for rotor in rotors for _ in rotor.atoms[1:])
    torsion = dihedrals(x, quads)
    bends = _index(row[k] for k in row if z.linear[k])
    middle = torch.where(soft, 0.0, torsion).index_fill(0, bends, 0.0)
    turns = [2 * math.pi * j / rotor.n for rotor in rotors for j in range(1, rotor.n)]
    middle[siblings] = wrap(torch.tensor(turns, dtype=torch.float64))
    deviation = wrap(torsion - middle)[siblings] / stretch[owners]
    middle[leading] = torsion.index_add(0, owners, deviation)[leading]
    middle[list(windows)] = torch.tensor(list(windows.values()), dtype=torch.float64)
    acyclic = {tuple(bond) for bond in molecule.bonds[~molecule.ring_bonds].tolist()}
    place_of = {k: i for i, k in enumerate(z.atoms)}
    root = torch.zeros(3, 4, 2, 1, dtype=torch.float64)
    root[:, 1:, 0, 0] = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    root[:, 1:, 1, 0] = torch.eye(3, dtype=torch.float64)
    shift = torch.zeros_like(root)
    shift[0, 0, 1, 0] = 1.0
    centres = _index(handed_atoms(molecule), 4)
    blocks, leaves = _blocks(z)
    return Tables(
        bonds=_index(((k, z.parent[k]) for k in z.atoms[1:]), 2),
        angles=_index(((k, z.parent[k], z.grandparent[k]) for k in placed), 3),
        quads=quads,
        middle=middle,
        offset=middle.index_fill(0, torch.cat([leading, _index(windows)]), 0.0),
        stretch=stretch.to(torch.float64),
        rotors=leading,
        siblings=siblings,
        owners=owners,
        own=_index(row.get(k, n - 3) for k in placed),
        first=_index(
            n - 3 if z.first[k] in (k, z.reference[k]) else row.get(z.first[k], n - 3)
            for k in placed
        ),
        blocks=blocks,
        parents=leaves,
        undo=_index(place_of[k] for k in range(n)),
        root=root,
        shift=shift,
        centres=centres,
        hands=signed_volumes(x, centres).sign(),
        stiff=_index(row[k] for k in z.leading if not soft[row[k]] and z.axis(k) in acyclic),
        held=_index(held, 4),
        held_at=dihedrals(x, _index(held, 4)),
        closing=_index(i for i, k in enumerate(placed) if z.closes[k] >= 0),
        ring=_index(((k, z.parent[k], z.closes[k]) for k in placed if z.closes[k] >= 0), 3),
        linear=_index(i for i, k in enumerate(placed) if z.linear[k]),
        bent=_index(((*z.quad(k)[:3], z.reference[k]) for k in placed if z.linear[k]), 4),
        bends=bends,
        flat=_index(i for i, k in enumerate(placed) if k == z.third and z.closes[k] >= 0),
    )


def _blocks(z: ZMatrix) -> tuple[tuple[Block, ...], Tensor]:
    """Blocks of a Z-matrix, and the frame of each leaf's parent."""
    place_of = {k: i for i, k in enumerate(z.atoms)}
    third, root = z.third, z.atoms[:2]

    def key(k: int) -> tuple[int, int]:
        """Atom whose frame places `k`, and where it lies towards if that is in a ring."""
        p = z.parent[k]
        of_ring = z.first[k] == z.reference[k] >= 0 and not (p in root and z.first[k] == third)
        return p, z.first[k] if of_ring else -1

    entry: dict[tuple[int, int], int] = {(root[0], -1): 0, (root[1], -1): 1}
    wanted = {key(k) for k in z.atoms[2:] if z.closes[k] < 0}
    blocks, n_before, begin = [], 0, 0
    for atoms in z.blocks:
        kind = z.kind(atoms[0])
        n_frames = len(entry)
        if kind == 1:
            sources = [(z.parent[k], z.closes[k], z.reference[k]) for k in atoms]
            source = _index([[place_of[i] for i in triple] for triple in sources], 3).T
            turned = [
                (p, way, q)
                for k in atoms
                for p, way, q in (
                    (k, z.parent[k], z.closes[k]),
                    (z.parent[k], _up(z, z.parent[k]), k),
                    (z.closes[k], _up(z, z.closes[k]), k),
                )
                if (p, q) in wanted and (p, q) not in entry
            ]
        else:
            where = [entry[key(k)] for k in atoms]
            turned = [(k, z.parent[k], z.reference[k]) for k in atoms] if kind == 2 else []
            source = _index(where)
        recent = kind != 1 and min(where) >= n_before
        if recent:
            source = source - n_before
        if kind:
            entry |= {
                (p, q if kind == 1 else -1): n_frames + i for i, (p, _, q) in enumerate(turned)
            }
        else:
            entry |= {(k, -1): n_frames + i for i, k in enumerate(atoms)}
        points = _index([[place_of[i] for i in triple] for triple in turned], 3).T
        blocks.append(Block(kind, begin, begin + len(atoms), recent, source, points))
        n_before, begin = n_frames, begin + len(atoms)
    return tuple(blocks), _index(entry[key(k)] for k in z.leaves)


def _up(z: ZMatrix, atom: int) -> int:
    """The tree neighbour of an atom on the way to the root; A and B are each other's."""
    return z.atoms[1] if atom == z.atoms[0] else z.parent[atom]


def _index(values: Iterable[object], *shape: int) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long).reshape(-1, *shape)
