"""Internal coordinates: bond lengths, angles and torsions of any connected molecule."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.coordinates.symmetry import (
    Rotor,
    find_rotors,
    four_coordinated,
    planar_bonds,
    relabelled,
    signed_volumes,
)
from gencg.coordinates.zmatrix import ZMatrix, build_zmatrix
from gencg.geometry import angles, dihedrals, distances, wrap
from gencg.molecule import Molecule

Bond = tuple[int, int]

BOND_SCALE, ANGLE_SCALE, STIFF_SCALE = 0.0035, 0.06, 0.12
"""Thermal spread at 300 K of a bond length (nm), an angle and a stiff torsion (rad)."""
SOFT_SCALE = math.pi / math.sqrt(3)
"""Standard deviation of the uniform distribution on the circle (rad)."""


class InternalCoordinates(CoordinateMap):
    r"""The n-1 bond lengths, n-2 angles and n-3 torsions of a Z-matrix, 3n-6 in all.

    One-to-one with the configurations up to rigid motion. The volume element is

    .. math::
        \log|\det \partial x / \partial y|
        = 2 \sum_{\text{bonds}} \log r + \sum_{\text{angles}} \log \sin\theta

    with lengths in nm and angles in rad; translations and rotations, a constant factor
    :math:`8 \pi^2 V`, are divided out.

    **Torsions.** One torsion of each axis is an absolute dihedral angle and turns all that hangs
    on the axis; its siblings are measured relative to it. It is *soft* (periodic, on
    :math:`[-\pi, \pi)`) where the bond is rotatable and not stiff. Everything else is narrow and
    lies on the interval of one turn around the reference structure.

    **Rotors.** Where the atoms on one end of a soft axis are n equivalent terminal atoms, their
    rotor angle is the mean :math:`t = t_1 + \frac1n \sum_k d_k`, where :math:`t_k = t_1 + s_k +
    d_k` are their torsions and :math:`s_k = 2\pi k/n`. Relabelling the atoms cyclically shifts t
    by :math:`2\pi/n` exactly, so one n-th of the circle around the reference :math:`t_0` holds
    everything. The coordinate is the phase :math:`p = n (t - t_0) \in [-\pi, \pi)`, and `forward`
    relabels the atoms first. With f the integrand over all else,

    .. math:: \int_{-\pi}^{\pi} f\, dt = n \int_{t_0 - \pi/n}^{t_0 + \pi/n} f\, dt
              = \int_{-\pi}^{\pi} f\, dp,

    the n equal copies cancel the stretch :math:`dt/dp = 1/n`: a rotor contributes nothing to
    log_det, and :math:`\int e^{-\beta U} |\det \partial x/\partial y|\, dy` is the partition
    function of the unfolded molecule. `random_copies` undoes the folding for output. The other
    coordinates of the rotor's atoms trade places where p wraps, so a decoder which conditions
    them on p should see p/n (``fold`` holds n), not only p.

    **Rings.** The tree leaves one bond of each ring out; its length is a consequence of the other
    coordinates, which are exact but strongly coupled.

    Args:
        molecule: Bonds and reference structure.
        stiff_bonds: Rotatable bonds (i, j) to hold as stiff, such as amides; a force field with
            barriers knows them. None reads them from the geometry (`planar_bonds`).
        soft_bonds: Exactly these bonds are soft instead.
        fold_rotors: Fold symmetric rotors as above; else they are plain soft torsions.

    Attributes:
        rotors: The folded rotors, as atoms in cyclic order and axis.
        fold: Order n of the rotor at each coordinate, 1 elsewhere, ``(dim,)`` int.
        zmatrix: The order of placement.

    Raises:
        ValueError: If the molecule has fewer than three atoms or a linear angle, or a given bond
            does not exist or cannot turn.
    """

    def __init__(
        self,
        molecule: Molecule,
        *,
        stiff_bonds: Iterable[Bond] | None = None,
        soft_bonds: Iterable[Bond] | None = None,
        fold_rotors: bool = True,
    ) -> None:
        self.molecule = molecule
        self.zmatrix = z = build_zmatrix(molecule)
        soft = _soft_bonds(molecule, stiff_bonds, soft_bonds)
        self.rotors = find_rotors(molecule, z, soft) if fold_rotors else ()
        n = molecule.n_atoms
        self.event_shape, self.dim = (n, 3), 3 * n - 6
        self._torsion_atoms = [k for k in z.atoms[2:] if k != z.third]
        row = {k: i for i, k in enumerate(self._torsion_atoms)}
        leading = [k for k in self._torsion_atoms if z.first[k] == k]
        soft_rows = [row[k] for k in leading if _pair(z.parent[k], z.grandparent[k]) in soft]

        self.soft = torch.zeros(self.dim, dtype=torch.bool)
        self.soft[[2 * n - 3 + i for i in soft_rows]] = True
        self.periodic = self.soft.clone()
        self.fold = torch.ones(self.dim, dtype=torch.long)
        self.fold[[2 * n - 3 + row[rotor.atoms[0]] for rotor in self.rotors]] = torch.tensor(
            [rotor.n for rotor in self.rotors], dtype=torch.long
        )
        self._tables = _tables(self, row)
        self._cache: dict[tuple[torch.dtype, torch.device], _Tables] = {}
        self.centre, _ = self.forward(torch.as_tensor(molecule.positions))
        scales = torch.tensor([BOND_SCALE, ANGLE_SCALE, STIFF_SCALE], dtype=torch.float64)
        self.scale = scales.repeat_interleave(torch.tensor([n - 1, n - 2, n - 3]))
        self.scale[self.soft] = SOFT_SCALE
        self.names = coordinate_names(molecule, z, self.rotors)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates ``(*batch, dim)`` of ``x`` and log|det dy/dx|, rotors folded first."""
        t = self._on(x)
        phase = self._phases(x, t)
        if self.rotors:
            turns = torch.round(phase[..., t.rotors] / (2 * math.pi)).long()
            x = relabelled(x, -turns, self.rotors)
            phase = self._phases(x, t)
        r, theta = distances(x, t.bonds), angles(x, t.angles)
        y = torch.cat([r, theta, t.offset + wrap(phase)], -1)
        return y, -_log_volume(r, torch.sin(theta), -1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Configurations ``(*batch, n_atoms, 3)`` of ``y`` and log|det dx/dy|.

        The first atom of the Z-matrix lies at the origin, the second on the x axis, the third in
        the xy plane. The result is a view of memory laid out as (3, n_atoms, batch).
        """
        if y.shape[-1:] != (self.dim,):
            raise ValueError(f"`y` must have shape (*batch, {self.dim}), got {tuple(y.shape)}")
        t = self._on(y)
        n, batch = self.event_shape[0], y.shape[:-1]
        rows = y.reshape(-1, self.dim).T.contiguous()  # [dim, batch]
        r, theta, torsion = rows.split([n - 1, n - 2, n - 3])
        sine = torch.sin(theta)
        x = _place(r, sine, torch.cos(theta), _absolute(torsion, t), t)
        log_det = _log_volume(r, sine, 0)
        return x.permute(2, 1, 0).reshape(*batch, n, 3), log_det.reshape(batch)

    def relabel(self, x: Tensor, copies: Tensor) -> Tensor:
        """Turn the rotors of ``x`` by 2 pi/n times `copies`, ``(*batch, n_rotors)``, by label."""
        return relabelled(x, copies, self.rotors)

    def random_copies(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One of the n equivalent labellings of every rotor of ``x``, drawn uniformly.

        Energy and log_det stay as they are; torsions of the rotors then cover the whole circle.
        """
        order = torch.tensor([rotor.n for rotor in self.rotors], device=x.device)
        shape = (*x.shape[:-2], len(self.rotors))
        uniform = torch.rand(shape, generator=generator, device=x.device, dtype=torch.float64)
        return self.relabel(x, (uniform * order).long())

    def inverted(self, x: Tensor) -> Tensor:
        """Which have a four-coordinated atom of the wrong hand, ``(*batch,)`` bool."""
        t = self._on(x)
        return (signed_volumes(x, t.centres) * t.hands <= 0).any(-1)

    def flipped(self, x: Tensor) -> Tensor:
        """Which have a stiff acyclic axis turned by over 90 degrees, ``(*batch,)`` bool."""
        t = self._on(x)
        turned = wrap(dihedrals(x, t.quads[t.stiff]) - t.middle[t.stiff])
        return (turned.abs() > math.pi / 2).any(-1)

    def valid(self, x: Tensor) -> Tensor:
        """Finite, with the handedness and the double bonds of the reference, ``(*batch,)`` bool."""
        return super().valid(x) & ~self.inverted(x) & ~self.flipped(x)

    def _phases(self, x: Tensor, t: "_Tables") -> Tensor:
        """Torsions from their middle; for a rotor n times its mean angle, not wrapped."""
        turned = wrap(dihedrals(x, t.quads) - t.middle)
        return (turned * t.fold).index_add(-1, t.owners, turned[..., t.siblings])

    def _on(self, like: Tensor) -> "_Tables":
        key = (like.dtype, like.device)
        if key not in self._cache:
            self._cache[key] = self._tables.on(like)
        return self._cache[key]


class _Tables(NamedTuple):
    """Index and constant tensors on one device; rows count torsions, in order of placement.

    Torsion rows: y - offset is the deviation d from the middle; a rotor's leading row has
    middle t0, offset 0 and fold n, its siblings (``siblings``, led by ``owners``) middle s_k.
    """

    bonds: Tensor  # [n-1, 2]
    angles: Tensor  # [n-2, 3]
    quads: Tensor  # [n-3, 4]
    middle: Tensor
    offset: Tensor
    fold: Tensor
    rotors: Tensor
    siblings: Tensor
    owners: Tensor
    own: Tensor  # row of each placed atom; n-3 is a row of zeros
    first: Tensor  # row its torsion is relative to
    levels: tuple[Tensor, ...]  # place of each parent among the level before
    parents: Tensor  # of the leaves, among all atoms with children
    undo: Tensor  # from order of placement to order of atoms
    root: Tensor  # [3, (position, e, m, n), (A, B), 1]
    shift: Tensor
    centres: Tensor
    hands: Tensor
    stiff: Tensor

    def on(self, like: Tensor) -> "_Tables":
        def move(value: Tensor) -> Tensor:
            return value.to(like.device, like.dtype if value.is_floating_point() else None)

        moved = [tuple(map(move, v)) if isinstance(v, tuple) else move(v) for v in self]
        return _Tables(*moved)


def _absolute(torsion: Tensor, t: _Tables) -> Tensor:
    """Absolute torsion of every placed atom from the rows of y, [n-3, batch] to [n-2, batch]."""
    d = torsion - t.offset[:, None]
    if len(t.owners):
        d = d.index_add(0, t.owners, -d.index_select(0, t.siblings)) / t.fold[:, None]
    rows = torch.cat([t.middle[:, None] + d, torsion.new_zeros(1, torsion.shape[1])])
    return rows.index_select(0, t.own) + rows.index_select(0, t.first)


def _place(r: Tensor, sine: Tensor, cosine: Tensor, torsion: Tensor, t: _Tables) -> Tensor:
    r"""Positions [3, n_atoms, batch], one level of the tree at a time.

    Every atom carries the frame of the bond to its parent: e along the bond, m towards the side
    of the grandparent, n = e x m. Turning the parent's frame by the torsion about e and by the
    angle about n gives the child's, with nothing to normalise.
    """
    sin_t, cos_t = torch.sin(torsion), torch.cos(torsion)
    frames = [t.root + t.shift * r[0]]
    begin = 0
    for parents in t.levels:
        rows = slice(begin, begin + len(parents))
        begin = rows.stop
        x, e, m, n = frames[-1].index_select(2, parents).unbind(1)
        side = cos_t[rows] * m + sin_t[rows] * n
        d = sine[rows] * side - cosine[rows] * e
        m_new = -cosine[rows] * side - sine[rows] * e
        n_new = cos_t[rows] * n - sin_t[rows] * m
        frames.append(torch.stack([x + r[1:][rows] * d, d, m_new, n_new], 1))
    inner = torch.cat(frames, 2)
    x, e, m, n = inner.index_select(2, t.parents).unbind(1)
    side = cos_t[begin:] * m + sin_t[begin:] * n
    leaves = x + r[1:][begin:] * (sine[begin:] * side - cosine[begin:] * e)
    return torch.cat([inner[:, 0], leaves], 1).index_select(1, t.undo)


def _log_volume(r: Tensor, sine: Tensor, dim: int) -> Tensor:
    return 2 * r.abs().log().sum(dim) + sine.abs().log().sum(dim)


def _tables(coordinates: InternalCoordinates, row: dict[int, int]) -> _Tables:
    molecule, z = coordinates.molecule, coordinates.zmatrix
    n, x = molecule.n_atoms, torch.as_tensor(molecule.positions)
    placed, rotors = z.atoms[2:], coordinates.rotors

    def index(values: Iterable[object], *shape: int) -> Tensor:
        return torch.tensor(list(values), dtype=torch.long).reshape(-1, *shape)

    def follows(k: int) -> bool:
        return z.first[k] != k

    quads = index(
        [
            (k, z.parent[k], z.grandparent[k], z.first[k] if follows(k) else z.reference[k])
            for k in row
        ],
        4,
    )
    fold = coordinates.fold[2 * n - 3 :].to(torch.float64)
    soft = coordinates.soft[2 * n - 3 :]
    leading = index(row[rotor.atoms[0]] for rotor in rotors)
    siblings = index(row[k] for rotor in rotors for k in rotor.atoms[1:])
    owners = index(row[rotor.atoms[0]] for rotor in rotors for _ in rotor.atoms[1:])
    torsion = dihedrals(x, quads)
    middle = torch.where(soft, 0.0, torsion)
    turns = [j / rotor.n for rotor in rotors for j in range(1, rotor.n)]
    middle[siblings] = wrap(2 * math.pi * torch.tensor(turns, dtype=torch.float64))
    mean = torsion.index_add(0, owners, wrap(torsion - middle)[siblings] / fold[owners])
    middle[leading] = mean[leading]
    offset = middle.index_fill(0, leading, 0.0)

    acyclic = {tuple(b) for b in molecule.bonds[~molecule.ring_bonds].tolist()}
    stiff = [
        row[k]
        for k in row
        if not follows(k) and not soft[row[k]] and _pair(z.parent[k], z.grandparent[k]) in acyclic
    ]
    place = {k: i for i, k in enumerate(z.atoms)}
    levels, before = [], list(z.atoms[:2])
    for level in z.levels:
        levels.append(index(before.index(z.parent[k]) for k in level))
        before = list(level)
    root = torch.zeros(3, 4, 2, 1, dtype=torch.float64)
    root[:, 1:, 0, 0] = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    root[:, 1:, 1, 0] = torch.eye(3, dtype=torch.float64)
    shift = torch.zeros_like(root)
    shift[0, 0, 1, 0] = 1.0
    centres = index(four_coordinated(molecule), 4)
    return _Tables(
        bonds=index([(k, z.parent[k]) for k in z.atoms[1:]], 2),
        angles=index([(k, z.parent[k], z.grandparent[k]) for k in placed], 3),
        quads=quads,
        middle=middle,
        offset=offset,
        fold=fold,
        rotors=leading,
        siblings=siblings,
        owners=owners,
        own=index(row.get(k, n - 3) for k in placed),
        first=index(row.get(z.first[k], n - 3) if follows(k) else n - 3 for k in placed),
        levels=tuple(levels),
        parents=index(place[z.parent[k]] for k in z.leaves),
        undo=index(place[k] for k in range(n)),
        root=root,
        shift=shift,
        centres=centres,
        hands=signed_volumes(x, centres).sign(),
        stiff=index(stiff),
    )


def coordinate_names(
    molecule: Molecule, zmatrix: ZMatrix, rotors: tuple[Rotor, ...]
) -> tuple[str, ...]:
    """Names of bonds, angles and torsions, the chemical ones (phi, psi, chi1) where they exist.

    A torsion relative to a sibling is an improper one: (atom, parent, grandparent, sibling).
    """
    z, label = zmatrix, molecule.names
    known = {q: name for name, quad in molecule.named_torsions() for q in (quad, quad[::-1])}
    rotor_of = {rotor.atoms[0]: rotor for rotor in rotors}

    def call(kind: str, *atoms: int) -> str:
        return f"{kind}({', '.join(label[i] for i in atoms)})"

    names = [call("r", z.parent[k], k) for k in z.atoms[1:]]
    names += [call("angle", k, z.parent[k], z.grandparent[k]) for k in z.atoms[2:]]
    for k in z.atoms[2:]:
        quad = (k, z.parent[k], z.grandparent[k], z.reference[k])
        if k == z.third:
            continue
        if k in rotor_of:
            names.append(call("rotor", z.parent[k]))
        elif z.first[k] != k:
            names.append(call("improper", *quad[:3], z.first[k]))
        else:
            names.append(known.get(quad) or call("torsion", *quad))
    return tuple(names)


def _soft_bonds(
    molecule: Molecule, stiff: Iterable[Bond] | None, soft: Iterable[Bond] | None
) -> set[Bond]:
    rotatable = set(molecule.rotatable_bonds())
    bonds = {tuple(bond) for bond in molecule.bonds.tolist()}
    acyclic = {tuple(bond) for bond in molecule.bonds[~molecule.ring_bonds].tolist()}
    turning = {bond for bond in acyclic if min(len(molecule.neighbours[i]) for i in bond) > 1}

    def checked(name: str, given: Iterable[Bond], allowed: set[Bond], rule: str) -> set[Bond]:
        pairs = {_pair(*bond) for bond in given}
        for bond in sorted(pairs - allowed):
            raise ValueError(f"`{name}` must hold {rule}, got {bond}")
        return pairs

    if soft is not None:
        rule = "bonds outside rings between atoms with further neighbours"
        chosen = checked("soft_bonds", soft, turning, rule)
        both = chosen & checked("stiff_bonds", stiff or (), bonds, "bonds of the molecule")
        if both:
            raise ValueError(
                f"a bond is either in `soft_bonds` or in `stiff_bonds`, got {min(both)} in both"
            )
        return chosen
    if stiff is None:
        return rotatable - set(planar_bonds(molecule))
    return rotatable - checked("stiff_bonds", stiff, bonds, "bonds of the molecule")


def _pair(i: int, j: int) -> Bond:
    return (int(i), int(j)) if i < j else (int(j), int(i))
