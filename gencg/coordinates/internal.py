"""Internal coordinates: bond lengths, angles and torsions of any connected molecule."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.coordinates.placement import (
    NEAREST,
    Tables,
    absolute_torsions,
    bends_of,
    build_tables,
    place,
)
from gencg.coordinates.symmetry import (
    Rotor,
    disjoint,
    equivalent_pair,
    find_rotors,
    inverting_atoms,
    mirrored_atoms,
    planar_bonds,
    relabelled,
    shortest_ring,
    signed_volumes,
    swapped,
    turning_bonds,
)
from gencg.coordinates.zmatrix import Quad, ZMatrix, build_zmatrix
from gencg.geometry import angles, dihedrals, distances, wrap
from gencg.molecule import Molecule

Bond = tuple[int, int]

_WINDOWS = {4: 90.0, 5: 100.0, 6: 110.0, 7: 130.0}
"""How far in degrees the torsions of a ring of so many atoms go from those of the flat ring."""
_NEARLY_STRAIGHT = math.radians(165.0)
_MARGIN = math.radians(60.0)
"""How far a window reaches beyond the reference structure, at least."""
BOND_SCALE, ANGLE_SCALE, STIFF_SCALE = 0.0035, 0.06, 0.12
"""Thermal spread at 300 K of a bond length (nm), an angle and a stiff torsion (rad)."""
SOFT_SCALE = math.pi / math.sqrt(3)
"""Standard deviation of the uniform distribution on the circle (rad)."""
FENCE = 0.1
"""How far beyond its plane nitrogen with two equal ends may stray, in rad."""


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

    **Rotors.** Where the groups on one end of a soft axis are n equivalent atoms or branches, their
    rotor angle is the mean :math:`t = t_1 + \frac1n \sum_k d_k`, where :math:`t_k = t_1 + s_k +
    d_k` are their torsions and :math:`s_k = 2\pi k/n`. Relabelling the atoms cyclically shifts t
    by :math:`2\pi/n` exactly (as long as they keep their order around the axis), so one n-th of
    the circle around the reference :math:`t_0` holds everything. The coordinate is the phase
    :math:`p = n (t - t_0) \in [-\pi, \pi)`, and `forward` relabels the atoms first. With f(t) the
    integral of the Boltzmann factor over all else, which repeats n times,

    .. math:: \int_{-\pi}^{\pi} f\, dt = n \int_{t_0 - \pi/n}^{t_0 + \pi/n} f\, dt
              = \int_{-\pi}^{\pi} f\, dp,

    the n equal copies cancel the stretch :math:`dt/dp = 1/n`: a rotor contributes nothing to
    log_det, which is that of the formula above, and the integral of
    :math:`e^{-\beta U + \text{log\_det}}` over y is the partition function of the unfolded
    molecule. `random_copies` undoes the folding for output. The other coordinates of the rotor's
    atoms trade places where p wraps, so a decoder which conditions them on p should see p/n
    (``fold`` holds n), not only p.

    **Rings.** The tree leaves one bond of each ring out. The atom at its end is placed by both
    its bond lengths :math:`r_1, r_2` to ring neighbours at a distance d, and by the dihedral angle
    about the line between them: no angle, and no length that is a consequence. Its share of the
    volume element is

    .. math:: 2 \log r + \log \sin\theta \;\to\; \log r_1 + \log r_2 - \log d

    What hangs on the ring is measured from its atoms. A ring of n atoms then has n lengths, n - 3
    angles and, soft, n - 3 torsions that pucker it; in rings of up to seven atoms these stay in a
    window :math:`t_0 \pm w` around the flat ring, and the coordinate is :math:`\pi (t - t_0) / w`.
    The three angles at the end are consequences. Lengths that do not reach give no configuration:
    `inverse` places the atom as near as it can, with a gradient that brings the ends together,
    and `valid` (`closed`) tells. Cages have more bonds than this takes; the length of the rest is
    a consequence.

    **Straight angles** (nitriles, alkynes) have no torsion. An atom there has two bends
    :math:`b_1, b_2` of its bond against the one before, :math:`\alpha^2 = b_1^2 + b_2^2`, with
    :math:`\sin\alpha / \alpha` in place of :math:`\sin\theta`; torsions reach across.

    **Nitrogen that turns over.** A pyramidal nitrogen with three neighbours passes through its
    plane; the torsion of one substituent relative to the other is soft (`inverting_atoms`). Beyond
    the plane of an NH2 lies the same structure with its hydrogens swapped. Nothing in the energy
    keeps a hot generator from it, and the torsion, narrow on either side, would have to be in two
    places: a `fence` keeps it on one.

    Args:
        molecule: Bonds and reference structure.
        stiff_bonds: Bonds (i, j) of `turning_bonds` to hold as stiff, such as amides; a force
            field with barriers knows them. None reads them from the geometry (`planar_bonds`).
        soft_bonds: Exactly these bonds are soft instead.
        fold_rotors: Fold symmetric rotors as above; else they are plain soft torsions.
        invert: Let pyramidal nitrogen turn over.

    Attributes:
        rotors: The folded rotors, as atoms in cyclic order and axis.
        fold: Order n of the rotor at each coordinate, 1 elsewhere, ``(dim,)`` int.
        zmatrix: The order of placement.

    Raises:
        ValueError: If the molecule has fewer than three atoms or is straight, an atom with more
            than two bonds has a straight angle, or a given bond does not exist or cannot turn.
    """

    def __init__(
        self,
        molecule: Molecule,
        *,
        stiff_bonds: Iterable[Bond] | None = None,
        soft_bonds: Iterable[Bond] | None = None,
        fold_rotors: bool = True,
        invert: bool = True,
    ) -> None:
        self.molecule = molecule
        self.zmatrix = z = build_zmatrix(molecule)
        soft = _soft_bonds(molecule, stiff_bonds, soft_bonds)
        self.rotors = find_rotors(molecule, z, soft) if fold_rotors else ()
        self._groups = disjoint(self.rotors, [z.quad(rotor.atoms[0]) for rotor in self.rotors])
        n = molecule.n_atoms
        self.event_shape, self.dim = (n, 3), 3 * n - 6
        begin = 2 * n - 3  # of the torsions
        row = {k: i for i, k in enumerate(z.torsion_atoms)}
        turning = [k for k in z.leading if z.axis(k) in soft]
        turning += [k for k in z.closing if _puckers(molecule, z, k, soft)]
        owned = {k for rotor in self.rotors for k in rotor.atoms}
        inverting = set(inverting_atoms(molecule)) if invert else set()
        turning += [k for k in z.relative if z.parent[k] in inverting and k not in owned]
        self.soft = torch.zeros(self.dim, dtype=torch.bool)
        self.soft[[begin + row[k] for k in turning]] = True
        self.periodic = self.soft.clone()
        self.fold = torch.ones(self.dim, dtype=torch.long)
        for rotor in self.rotors:
            self.fold[begin + row[rotor.atoms[0]]] = rotor.n
        stretch = self.fold[begin:].double()
        windows = {row[k]: window for k in turning if (window := ring_window(molecule, z, k))}
        stretch[list(windows)] = stretch.new_tensor([math.pi / w for _, w in windows.values()])
        self._windows = torch.tensor(sorted(windows), dtype=torch.long)
        self._log_stretch = sum(math.log(math.pi / half) for _, half in windows.values())
        self._tables = build_tables(
            molecule,
            z,
            self.rotors,
            soft=self.soft[begin:],
            stretch=stretch,
            windows={i: middle for i, (middle, _) in windows.items()},
            held=_held_in_rings(molecule, soft),
        )
        stiff_quads = self._tables.quads[self._tables.stiff].tolist()
        ends = [[j for j in molecule.neighbours[p] if j != g] for _, p, g, _ in stiff_quads]
        pairs = [equivalent_pair(molecule, k) for k in (*self._tables.centres.tolist(), *ends)]
        self._swaps = torch.tensor([p for p in pairs if p], dtype=torch.long).reshape(-1, 2)
        self._swappable = torch.tensor([i for i, p in enumerate(pairs) if p], dtype=torch.long)
        self._cache: dict[tuple[torch.dtype, torch.device], Tables] = {}
        self.centre, _ = self.forward(torch.as_tensor(molecule.positions))
        scales = torch.tensor([BOND_SCALE, ANGLE_SCALE, STIFF_SCALE], dtype=torch.float64)
        self.scale = scales.repeat_interleave(torch.tensor([n - 1, n - 2, n - 3]))
        self.scale[n - 1 + self._tables.closing] = BOND_SCALE
        self.scale[self.soft] = SOFT_SCALE
        mirrored = set(mirrored_atoms(molecule))
        sided = [k for k in z.relative if z.parent[k] in mirrored and k not in owned]
        self._mirrored = torch.tensor([begin + row[k] for k in sided], dtype=torch.long)
        self._side = self.centre[self._mirrored].sign()
        twins = [equivalent_pair(molecule, molecule.neighbours[z.parent[k]]) for k in sided]
        self._twins = torch.tensor([p for p in twins if p], dtype=torch.long).reshape(-1, 2)
        self.names = coordinate_names(molecule, z, self.rotors)

    def __repr__(self) -> str:
        soft = [name for name, yes in zip(self.names, self.soft.tolist(), strict=True) if yes]
        return f"InternalCoordinates(dim={self.dim}, soft=[{', '.join(soft)}])"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates ``(*batch, dim)`` of ``x`` and log|det dy/dx|, rotors folded first."""
        t = self._on(x)
        phase = self._phases(x, t)
        for group in self._groups:
            turns = torch.round(phase[..., t.rotors[group]] / (2 * math.pi)).long()
            x = relabelled(x, -turns, tuple(self.rotors[n] for n in group))
            phase = self._phases(x, t)
        r, theta = distances(x, t.bonds), angles(x, t.angles)
        volume = torch.sin(theta)
        if len(t.closing):
            end, d = distances(x, t.ring[:, ::2]), distances(x, t.ring[:, 1:])
            theta = theta.index_copy(-1, t.closing, end)
            volume = volume.index_copy(-1, t.closing, end / (r[..., 1 + t.closing] * d))
        if len(t.linear):
            bends, shrink = bends_of(x, t)
            theta = theta.index_copy(-1, t.linear, bends[..., 0])
            volume = volume.index_copy(-1, t.linear, shrink)
        y = torch.cat([r, theta, t.offset + wrap(phase)], -1)
        return y, self._log_stretch - _log_volume(r, volume, -1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Configurations ``(*batch, n_atoms, 3)`` of ``y`` and log|det dx/dy|.

        The first atom of the Z-matrix lies at the origin, the second on the x axis, the third in
        the xy plane. Any finite y is placed; one with a length below zero, an angle outside
        (0, pi) or a narrow torsion over half a turn from its middle repeats another one. The
        result is a view of memory laid out as (3, n_atoms, batch).
        """
        if y.shape[-1:] != (self.dim,):
            raise ValueError(f"`y` must have shape (*batch, {self.dim}), got {tuple(y.shape)}")
        t = self._on(y)
        n, batch = self.event_shape[0], y.shape[:-1]
        rows = y.reshape(-1, self.dim).T.contiguous()  # [dim, batch]
        r, theta, torsion = torch.split(rows, [n - 1, n - 2, n - 3])
        x, volume = place(r, theta, absolute_torsions(torsion, t), t)
        log_det = _log_volume(r, volume, 0) - self._log_stretch
        return x.permute(2, 1, 0).reshape(*batch, n, 3), log_det.reshape(batch)

    def fence(self, y: Tensor) -> Tensor | None:
        r"""Half the square of how far nitrogen is beyond its plane, in units of `FENCE`.

        For nitrogen whose equivalent ends trade places there (`mirrored_atoms`), and on the other
        side beyond where the ends would fall together: of the two labellings one is inside, and it
        alone counts in weights and in log Z.
        """
        if not len(self._mirrored):
            return None
        inside = y[..., self._mirrored.to(y.device)] * self._side.to(y)
        beyond: Tensor = (inside - math.pi).clamp(min=0) + (-inside).clamp(min=0)
        return 0.5 * (beyond / FENCE).square().sum(-1)

    def relabel(self, x: Tensor, copies: Tensor) -> Tensor:
        """Turn the rotors of ``x`` by 2 pi/n times `copies`, ``(*batch, n_rotors)``, by label."""
        for group in self._groups:
            x = relabelled(x, copies[..., group], tuple(self.rotors[n] for n in group))
        return x

    def random_copies(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """One of the n equivalent labellings of every rotor of ``x``, drawn uniformly.

        Energy and log_det stay as they are; torsions of the rotors then cover the whole circle.
        """
        order = torch.tensor([rotor.n for rotor in self.rotors], device=x.device)
        shape = (*x.shape[:-2], len(self.rotors))
        device = x.device if generator is None else generator.device
        uniform = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        return self.relabel(x, (uniform.to(x.device) * order).long())

    def inverted(self, x: Tensor) -> Tensor:
        """Which have an atom of the wrong hand (`handed_atoms`), ``(*batch,)`` bool."""
        t = self._on(x)
        return (signed_volumes(x, t.centres) * t.hands <= 0).any(-1)

    def closed(self, x: Tensor) -> Tensor:
        """Which have no ring that its bonds could not close, ``(*batch,)`` bool."""
        k, a, b = (x[..., i, :] for i in self._tables.ring.to(x.device).unbind(1))
        area = torch.linalg.vector_norm(torch.linalg.cross(k - a, b - a), dim=-1)
        near: Tensor = area <= 1.5 * NEAREST * torch.linalg.vector_norm(b - a, dim=-1)
        return ~near.any(-1)

    def flipped(self, x: Tensor) -> Tensor:
        """Which have a stiff axis turned by over 90 degrees, ``(*batch,)`` bool.

        Acyclic ones, and those of rings of eight atoms and more, which can turn there.
        """
        t = self._on(x)
        turned = wrap(dihedrals(x, t.quads[t.stiff]) - t.middle[t.stiff])
        in_ring = wrap(dihedrals(x, t.held) - t.held_at)
        return (torch.cat([turned, in_ring], -1).abs() > math.pi / 2).any(-1)

    def valid(self, x: Tensor) -> Tensor:
        """Finite, rings closed, hands and double bonds of the reference, ``(*batch,)`` bool."""
        there = super().valid(x) & self.closed(x) & self.inside(x)
        return there & ~self.inverted(x) & ~self.flipped(x)

    def inside(self, x: Tensor) -> Tensor:
        """Which have all torsions of small rings in their windows, ``(*batch,)`` bool."""
        t = self._on(x)
        rows = self._windows.to(x.device)
        turned = wrap(dihedrals(x, t.quads[rows]) - t.middle[rows]) * t.stretch[rows]
        return (turned.abs() <= math.pi + 1e-4).all(-1)

    def match_labels(self, x: Tensor) -> Tensor:
        """Swap equivalent terminal atoms of ``x`` where that gives the reference's handedness.

        For configurations from elsewhere, whose two hydrogens of a CH2, CH3 or flat NH2 may be
        numbered the other way round. A stereocentre of the wrong hand stays wrong.
        """
        t = self._on(x)
        inverted = signed_volumes(x, t.centres) * t.hands <= 0
        turned = wrap(dihedrals(x, t.quads[t.stiff]) - t.middle[t.stiff])
        wrong = torch.cat([inverted, turned.abs() > math.pi / 2], -1)
        x = swapped(x, self._swaps, wrong[..., self._swappable.to(x.device)])
        if not len(self._mirrored):
            return x
        # Nitrogen beyond its plane: on this side with its two ends swapped
        y, _ = self.forward(x)
        inside = y[..., self._mirrored.to(y.device)] * self._side.to(y)
        return swapped(x, self._twins, (inside < 0) | (inside > math.pi))

    def torsion_terms(self, index: int) -> tuple[tuple[Quad, float, float], ...]:
        r"""What a soft coordinate is made of: (atoms, middle m, factor c) of dihedral angles.

        .. math:: y = \mathrm{wrap}\Bigl(\sum_k c_k \, \mathrm{wrap}(\phi_k - m_k)\Bigr)

        One angle of factor one for most; n times the first and once each of the others for a
        rotor, whatever the labels of its atoms; a stretched one for a torsion in a small ring.

        Raises:
            ValueError: If the coordinate is not soft.
        """
        if not bool(self.soft[index]):
            raise ValueError(f"`index` must be of a soft coordinate, got {self.names[index]}")
        t, row = self._tables, index - (2 * self.event_shape[0] - 3)
        rows = [row, *t.siblings[t.owners == row].tolist()]
        factors = [float(t.stretch[row])] + [1.0] * (len(rows) - 1)
        quads = [(i, j, k, last) for i, j, k, last in t.quads[rows].tolist()]
        return tuple(zip(quads, t.middle[rows].tolist(), factors, strict=True))

    def _phases(self, x: Tensor, t: Tables) -> Tensor:
        """Torsions from their middle; for a rotor n times its mean angle, not wrapped."""
        turned = wrap(dihedrals(x, t.quads) - t.middle)
        if len(t.linear):
            turned = turned.index_copy(-1, t.bends, bends_of(x, t)[0][..., 1])
        phases: Tensor = (turned * t.stretch).index_add(-1, t.owners, turned[..., t.siblings])
        return phases

    def _on(self, like: Tensor) -> Tables:
        key = (like.dtype, like.device)
        if key not in self._cache:
            self._cache[key] = self._tables.on(like)
        return self._cache[key]


def _log_volume(r: Tensor, sine: Tensor, dim: int) -> Tensor:
    return 2 * r.abs().log().sum(dim) + sine.abs().log().sum(dim)


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
    for k in z.atoms[2:]:
        kind = "r" if z.closes[k] >= 0 else "bend1" if z.linear[k] else "angle"
        names.append(call(kind, *z.angle(k)))
    for k in z.torsion_atoms:
        quad = z.quad(k)
        if k in rotor_of:
            names.append(call("rotor", z.parent[k]))
        elif z.linear[k]:
            names.append(call("bend2", *z.angle(k)))
        elif z.closes[k] >= 0:
            names.append(call("ring", *quad))
        elif z.first[k] != k:
            names.append(call("improper", *quad))
        else:
            names.append(known.get(quad) or call("torsion", *quad))
    return tuple(names)


def ring_window(molecule: Molecule, z: ZMatrix, atom: int) -> tuple[float, float] | None:
    """Middle and half width in rad of the torsion of an atom in a ring of up to seven atoms.

    The torsion along the ring, or that of the flap, stays that near to the flat ring; the middle
    is the torsion which the atom would have there. None outside small rings.
    """
    k, p, g, last = z.quad(atom)
    closes = z.closes[atom] >= 0
    if closes:
        ring = shortest_ring(molecule, p, atom, g)
    elif z.turns(atom):
        ring = shortest_ring(molecule, p, g)
    else:
        return None
    if len(ring) not in _WINDOWS or (closes and last not in ring):
        return None
    half, x = math.radians(_WINDOWS[len(ring)]), torch.as_tensor(molecule.positions)
    if closes:
        middle = math.pi
        (own,) = dihedrals(x, torch.tensor([(k, p, g, last)])).tolist()
    else:
        # The ring's own torsion about this axis, zero in the flat ring
        ends = [ring[(ring.index(i) + turn) % len(ring)] for i in (p, g) for turn in (1, -1)]
        before, after = (next(j for j in pair if j not in (p, g)) for pair in (ends[:2], ends[2:]))
        # What hangs on nitrogen that turns over is not where the reference has it
        turned = {n for n, end in ((p, k), (g, last)) if end not in (before, after)}
        if turned & set(inverting_atoms(molecule)):
            return None
        own, along = dihedrals(x, torch.tensor([(k, p, g, last), (before, p, g, after)])).tolist()
        middle = math.remainder(own - along, 2 * math.pi)
    # A bridge may hold a torsion farther out than a ring alone does
    half = max(half, abs(math.remainder(own - middle, 2 * math.pi)) + _MARGIN)
    return (middle, half) if half < 0.9 * math.pi else None


def _held_in_rings(molecule: Molecule, soft: set[Bond]) -> list[tuple[int, int, int, int]]:
    """Torsions along rings of eight atoms and more about the bonds that are not soft."""
    found = []
    for i, j in molecule.bonds[molecule.ring_bonds].tolist():
        ring = shortest_ring(molecule, i, j)
        if (i, j) in soft or len(ring) < 8:
            continue
        at = ring.index(i)
        step = 1 if ring[(at + 1) % len(ring)] == j else -1
        quad = tuple(ring[(at + k * step) % len(ring)] for k in (-1, 0, 1, 2))
        straight = (_angle(molecule, quad[n : n + 3]) > _NEARLY_STRAIGHT for n in (0, 1))
        if not any(straight):
            found.append((quad[0], quad[1], quad[2], quad[3]))
    return found


def _angle(molecule: Molecule, triple: tuple[int, ...]) -> float:
    return float(angles(torch.as_tensor(molecule.positions), torch.tensor([triple])))


def _puckers(molecule: Molecule, z: ZMatrix, k: int, soft: set[Bond]) -> bool:
    """Whether the ring that an atom closes, of four atoms or more, can turn about one bond."""
    ring = shortest_ring(molecule, z.parent[k], k, z.closes[k])
    bonds = zip(ring, ring[1:] + ring[:1], strict=True)
    return len(ring) > 3 and any((min(bond), max(bond)) in soft for bond in bonds)


def _soft_bonds(
    molecule: Molecule, stiff: Iterable[Bond] | None, soft: Iterable[Bond] | None
) -> set[Bond]:
    rotatable = set(turning_bonds(molecule))
    bonds: set[Bond] = {(i, j) for i, j in molecule.bonds.tolist()}
    turning = {bond for bond in bonds if min(len(molecule.neighbours[i]) for i in bond) > 1}

    def checked(name: str, given: Iterable[Bond], allowed: set[Bond], rule: str) -> set[Bond]:
        pairs = {(min(bond), max(bond)) for bond in given}
        for bond in sorted(pairs - allowed):
            raise ValueError(f"`{name}` must hold {rule}, got {bond}")
        return pairs

    if soft is not None:
        rule = "bonds between atoms with further neighbours"
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
