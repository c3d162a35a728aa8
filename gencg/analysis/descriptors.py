"""Quantities with a chemical name: torsions and their wells, distances, hydrogen bonds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gencg.analysis.basins import cell_basins
from gencg.analysis.histogram import Array, to_array, weighted_histogram, wrap
from gencg.analysis.smooth_density import smooth_density
from gencg.analysis.torsions import torsion_angles
from gencg.coordinates.internal import InternalCoordinates
from gencg.coordinates.pairs import FARTHEST, bonds_between, far_pairs
from gencg.geometry import distances
from gencg.molecule import Molecule

IntArray = NDArray[np.int64]
Pair = tuple[int, int]

EDGE = float(np.radians(5.0))
"""Width in rad of the edges of a well."""
HYDROGEN_BOND = 0.25
"""Distance in nm from hydrogen to acceptor at which a hydrogen bond counts one half."""


@dataclass(frozen=True)
class Term:
    """A quantity with a chemical name.

    Attributes:
        name: Such as "sin phi(ALA2)".
        kind: The family it belongs to, such as "torsion".
        torsions: Names of the torsions in it.
        bonds: The bonds about which these turn.
        pairs: Atoms whose distance is in it.
        atoms: All atoms that define it; none for the radius of gyration.
        unit: Of its value; empty for a number.
    """

    name: str
    kind: str
    torsions: tuple[str, ...] = ()
    bonds: tuple[Pair, ...] = ()
    pairs: tuple[Pair, ...] = ()
    atoms: tuple[int, ...] = ()
    unit: str = ""

    def times(self, other: "Term") -> "Term":
        """The product of two terms of different torsions."""
        return Term(
            f"{self.name} {other.name}",
            "product",
            self.torsions + other.torsions,
            self.bonds + other.bonds,
            atoms=tuple(dict.fromkeys(self.atoms + other.atoms)),
        )

    def same_wells(self, other: "Term") -> bool:
        """Whether both are wells, or products of wells, of the same torsions."""
        wells = self.name.startswith("[") and other.name.startswith("[")
        return wells and self.torsions == other.torsions


@dataclass(frozen=True)
class Torsion:
    """A soft torsion of weighted samples.

    Attributes:
        name: Its name.
        bond: The bond it turns about.
        atoms: The four atoms.
        angle: Its values in rad, ``(n,)``; the phase of a rotor.
        rotor: Whether it is that of equivalent groups.
    """

    name: str
    bond: Pair
    atoms: tuple[int, ...]
    angle: Array
    rotor: bool

    def harmonics(self, order: int) -> list[tuple[Term, Array]]:
        r"""sin and cos of :math:`k\theta` for k up to `order`."""
        found = []
        for k in range(1, order + 1):
            for name, function in (("sin", np.sin), ("cos", np.cos)):
                label = f"{name} {self.name}" if k == 1 else f"{name} {k} {self.name}"
                found.append((self.term(label, "torsion"), function(k * self.angle)))
        return found

    def wells(self, w: Array) -> list[tuple[Term, Array]]:
        """Its wells, none where there is but one."""
        found = []
        for low, high in wells(self.angle, w):
            label = f"[{np.degrees(low):.0f}° < {self.name} < {np.degrees(high):.0f}°]"
            found.append((self.term(label, "well"), inside(self.angle, low, high)))
        return found

    def term(self, name: str, kind: str) -> Term:
        """A term of this torsion."""
        return Term(name, kind, (self.name,), (self.bond,), atoms=self.atoms)


def soft_torsions(x: Tensor, coordinates: InternalCoordinates) -> list[Torsion]:
    """The soft torsions of configurations ``(n, n_atoms, 3)``.

    Named as the coordinates are, but where a bond has a torsion with a chemical name (chi1) it is
    that one, whatever atoms the coordinate goes by.
    """
    z = coordinates.zmatrix
    begin = coordinates.dim - len(z.torsion_atoms)
    soft = [i for i in coordinates.soft.nonzero()[:, 0].tolist() if i >= begin]
    known = {_sorted(q[1], q[2]): (name, q) for name, q in coordinates.molecule.named_torsions()}
    rotors = [int(coordinates.fold[i]) > 1 for i in soft]
    named: list[tuple[str, tuple[int, ...]]] = []
    for i, rotor in zip(soft, rotors, strict=True):
        quad = z.quad(z.torsion_atoms[i - begin])
        own = (coordinates.names[i], quad)
        improper = not own[0].startswith("torsion(")
        named.append(own if rotor or improper else known.get(_sorted(quad[1], quad[2]), own))
    angles = torsion_angles(x, [quad for _, quad in named])
    if any(rotors):
        # A rotor's phase is the same however its equal atoms are labelled
        phases = to_array(coordinates.forward(x)[0][:, soft])
        angles = np.where(rotors, wrap(phases), angles)
    found = [
        Torsion(name, _sorted(quad[1], quad[2]), quad, angles[:, k], rotors[k])
        for k, (name, quad) in enumerate(named)
    ]
    # Along the chain, rotors last
    return sorted(found, key=lambda torsion: (torsion.rotor, torsion.bond))


def wells(angle: Array, w: Array, *, bins: int = 72) -> list[tuple[float, float]]:
    """Wells of an angle as arcs (low, high) in rad with their middle on [-pi, pi).

    The arcs lie between the minima of the smoothed density, as `find_basins` cuts it: wells of at
    least 1 kT depth with a population of 1e-3 or more, and those of 3 kT that hold several.

    Args:
        angle: Angles in rad, ``(n,)``.
        w: Weights, ``(n,)``, summing to one.
        bins: Cells of the circle.

    Returns:
        The arcs, none where there is one well alone: it says nothing.
    """
    log_w = np.log(w)
    density = smooth_density(angle, log_w, periodic=True, bins=bins)
    populations = weighted_histogram(angle, log_w, bins=bins).probabilities
    found: dict[tuple[float, float], None] = {}
    for depth in (1.0, 3.0):
        cells = cell_basins(density, populations, min_barrier=depth, min_population=1e-3)
        lows = density.edges[0][:-1][cells != np.roll(cells, 1)]
        for low, high in zip(lows, np.roll(lows, -1), strict=True):
            high = high if high > low else high + 2 * np.pi
            turn = 2 * np.pi * np.floor((0.5 * (low + high) + np.pi) / (2 * np.pi))
            found[(float(low - turn), float(high - turn))] = None
    return list(found)


def inside(angle: Array, low: float, high: float) -> Array:
    """One within an arc, zero outside, with soft edges, ``(n,)``."""
    offset = np.abs(wrap(angle - 0.5 * (low + high))) - 0.5 * (high - low)
    return to_array(1 / (1 + np.exp(offset / EDGE)))


def heavy_distances(x: Tensor, coordinates: InternalCoordinates) -> tuple[list[Term], Array]:
    """Distances of heavy atoms four bonds apart or more, in nm, ``(n, n_terms)``.

    Atoms that trade places with equal ones (the two O of a carboxylate) are left out.
    """
    molecule = coordinates.molecule
    pairs = far_pairs(coordinates)
    terms = [
        Term(f"d({_names(molecule, pair)})", "distance", pairs=(pair,), atoms=pair, unit="nm")
        for pair in pairs
    ]
    index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return terms, to_array(distances(x, index))


def hydrogen_bonds(x: Tensor, coordinates: InternalCoordinates) -> tuple[list[Term], Array]:
    r"""Hydrogen bonds from N and O to N and O as numbers of bonds formed, ``(n, n_terms)``.

    .. math:: \sum_{H, A} \frac{1 - (r/r_0)^6}{1 - (r/r_0)^{12}}, \qquad r_0 = 0.25\ \mathrm{nm}

    over all hydrogens of the donor and all atoms equal to the acceptor, four bonds apart or more.
    """
    molecule = coordinates.molecule
    steps = bonds_between(molecule)
    terms, values = [], []
    for donor, hydrogens in _donors(molecule):
        for acceptors in _acceptors(coordinates):
            pairs = [(h, a) for h in hydrogens for a in acceptors if steps[h, a] >= FARTHEST]
            if not pairs or donor in acceptors:
                continue
            name = f"hbond({molecule.names[donor]}, {_names(molecule, acceptors, '/')})"
            ends = tuple((donor, a) for a in acceptors)
            atoms = tuple(dict.fromkeys((donor, *(k for pair in pairs for k in pair))))
            terms.append(Term(name, "hydrogen bond", pairs=ends, atoms=atoms))
            r = distances(x, torch.tensor(pairs)) / HYDROGEN_BOND
            values.append(to_array((1 / (1 + r**6)).sum(-1)))
    return terms, np.stack(values, 1) if values else np.zeros((len(x), 0))


def radius_of_gyration(x: Tensor, molecule: Molecule) -> tuple[list[Term], Array]:
    """Mass-weighted radius of gyration in nm, ``(n, 1)``."""
    m = torch.as_tensor(molecule.masses)
    m = m / m.sum()
    centred = x - (m[:, None] * x).sum(1, keepdim=True)
    squares = (m * centred.square().sum(-1)).sum(-1)
    term = Term("radius of gyration", "gyration", unit="nm")
    return [term], to_array(squares.sqrt()[:, None])


def _donors(molecule: Molecule) -> list[tuple[int, list[int]]]:
    found = []
    for k, element in enumerate(molecule.elements):
        hydrogens = [j for j in molecule.neighbours[k] if molecule.elements[j] == "H"]
        if element in ("N", "O") and hydrogens:
            found.append((k, hydrogens))
    return found


def _acceptors(coordinates: InternalCoordinates) -> list[tuple[int, ...]]:
    """Oxygens, and nitrogens with at most two neighbours; equal ones together."""
    molecule = coordinates.molecule
    orbit_of = {k: orbit for r in coordinates.rotors for orbit in r.orbits for k in orbit}
    found = []
    for k, element in enumerate(molecule.elements):
        free = element == "O" or (element == "N" and len(molecule.neighbours[k]) < 3)
        if free:
            found.append(tuple(sorted(orbit_of.get(k, (k,)))))
    return list(dict.fromkeys(found))


def _names(molecule: Molecule, atoms: Sequence[int], between: str = ", ") -> str:
    return between.join(molecule.names[k] for k in atoms)


def _sorted(i: int, j: int) -> Pair:
    return (min(i, j), max(i, j))
