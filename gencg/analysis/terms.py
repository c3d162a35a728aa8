"""Candidate terms: what a collective variable of a molecule may be written in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencg.analysis.descriptors import (
    IntArray,
    Term,
    Torsion,
    heavy_distances,
    hydrogen_bonds,
    radius_of_gyration,
    soft_torsions,
)
from gencg.analysis.histogram import Array, normalised_weights, to_array
from gencg.coordinates.internal import InternalCoordinates
from gencg.ensemble import Ensemble
from gencg.molecule import Molecule

KINDS = ("torsion", "well", "product", "distance", "hydrogen bond", "gyration")
"""Families of terms, those that read most easily first."""
MOVES = 0.05
"""Circular variance above which a torsion takes part in products."""
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Terms:
    """Candidate terms with their values for weighted samples.

    A product is kept as its two columns and multiplied when asked for: thousands take no room.

    Attributes:
        candidates: The terms.
        columns: Values they are made of, ``(n_columns, n)``.
        recipes: Columns whose product each term is, ``(n_terms, 2)``; the first one is all ones.
        weights: Weights of the samples, ``(n,)``, summing to one.
        rows: Number of each sample among all that were given, ``(n,)``.
        n_given: How many these were.
        molecule: What the atoms belong to; None for a toy.
    """

    candidates: tuple[Term, ...]
    columns: Array
    recipes: IntArray
    weights: Array
    rows: IntArray
    n_given: int
    molecule: Molecule | None = None

    def __len__(self) -> int:
        return len(self.candidates)

    def __repr__(self) -> str:
        kinds = [term.kind for term in self.candidates]
        found = ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds))
        return f"Terms(n={len(self.rows)}, n_effective={self.n_effective:.0f}; {found})"

    @cached_property
    def n_effective(self) -> float:
        """Effective number of samples (Kish)."""
        return 1 / float((self.weights**2).sum())

    def values(self, index: Sequence[int] | IntArray) -> Array:
        """Values of the terms at `index`, ``(n, len(index))``."""
        return _products(self.columns, self.recipes[np.asarray(index, dtype=np.int64)])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Values of all terms in turn, of some hundred at once."""
        for begin in range(0, len(self), _BLOCK):
            part = slice(begin, min(begin + _BLOCK, len(self)))
            yield part, _products(self.columns, self.recipes[part])

    def select(self, rows: IntArray) -> "Terms":
        """The same terms for some of the samples, by their place."""
        w = self.weights[rows]
        return replace(
            self, columns=self.columns[:, rows], weights=w / w.sum(), rows=self.rows[rows]
        )


def candidate_terms(
    samples: Any,
    *,
    molecule: Molecule | None = None,
    log_weights: Any = None,
    coordinates: InternalCoordinates | None = None,
    kinds: Sequence[str] = KINDS,
    given: Mapping[str, Any] | None = None,
    max_samples: int = 50_000,
    max_distances: int = 300,
    seed: int = 0,
) -> Terms:
    r"""Terms that a collective variable may be written in, made from the structures alone.

    - *torsion*: sin and cos of each soft torsion :math:`\theta` and of :math:`2\theta`. A
      symmetric rotor (CH3) enters by its phase, which does not tell equal atoms apart.
    - *well*: whether a torsion is in one of its wells, the arcs between the minima of its own
      density (`descriptors.wells`), with edges of a few degrees. Slow functions are nearly
      constant within wells and step between them.

      .. math:: [a < \theta < b] = \Big(1 + \exp\frac{|\theta - c| - h}{5°}\Big)^{-1}, \qquad
                c = \tfrac{a + b}{2},\ h = \tfrac{b - a}{2}

    - *product*: products of sin and cos of two torsions, and of wells of two torsions.
    - *distance*: of heavy atoms four bonds apart or more, those that vary most.
    - *hydrogen bond*: how many there are between two groups (`descriptors.hydrogen_bonds`).
    - *gyration*: the mass-weighted radius of gyration.

    Args:
        samples: `Ensemble`, or positions ``(n, n_atoms, 3)`` in nm.
        molecule: What they are of; that of the ensemble.
        log_weights: Unnormalised log weights, ``(n,)``; those of the ensemble, or equal ones.
        coordinates: Names the soft torsions as a run does; by default those of the molecule.
        kinds: Families to take, among `KINDS`.
        given: Further terms of your own by name, ``(n,)`` each; a toy has no others.
        max_samples: Samples used at most, chosen at random whatever their weight.
        max_distances: Distances taken at most.
        seed: Seed of that choice.

    Raises:
        ValueError: If positions, weights or given terms have the wrong shape or are not finite, a
            family is unknown, or there is no term at all.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"`kinds` must be among {', '.join(KINDS)}, got {kind!r}")
    if isinstance(samples, Ensemble):
        molecule = samples.molecule if molecule is None else molecule
        log_weights = samples.log_weights if log_weights is None else log_weights
        samples = samples.x
    x = torch.as_tensor(samples).detach().double().cpu()
    weights = normalised_weights(log_weights, len(x))
    rows = np.flatnonzero(weights > 0)
    if len(rows) > max_samples:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_samples, replace=False))
    weights = weights[rows] / weights[rows].sum()
    found = _Collection(len(rows))
    for name, values in (given or {}).items():
        found.add([Term(name, "given")], _checked(name, values, len(x))[rows, None])
    if molecule is not None:
        kept = _configurations(x, molecule)[torch.from_numpy(rows)]
        if not bool(torch.isfinite(kept).all()):
            raise ValueError(
                "`samples` must be finite wherever they have weight; give the others a log weight "
                "of -inf"
            )
        coordinates = coordinates or InternalCoordinates(molecule)
        _add_torsions(found, soft_torsions(kept, coordinates), weights, kinds)
        if "distance" in kinds:
            terms, values = heavy_distances(kept, coordinates)
            most = np.sort(np.argsort(-_deviations(values, weights))[:max_distances])
            found.add([terms[k] for k in most], values[:, most])
        if "hydrogen bond" in kinds:
            found.add(*hydrogen_bonds(kept, coordinates))
        if "gyration" in kinds:
            found.add(*radius_of_gyration(kept, molecule))
    if not found.terms:
        raise ValueError(
            "`samples` have no terms to write a collective variable in; give a molecule, or terms "
            "of your own as `given`"
        )
    columns, recipes = found.arrays()
    return Terms(tuple(found.terms), columns, recipes, weights, rows, len(x), molecule)


class _Collection:
    """Terms that are being put together; column 0 is all ones."""

    def __init__(self, n: int) -> None:
        self.terms: list[Term] = []
        self.columns: list[Array] = [np.ones((1, n))]
        self.recipes: list[tuple[int, int]] = []
        self.n_columns = 1

    def add(self, terms: Sequence[Term], values: Array) -> list[int]:
        """Terms with columns of their own; returns the numbers of these."""
        index = [self.n_columns + k for k in range(len(terms))]
        self.terms += terms
        self.columns.append(np.ascontiguousarray(values.T))
        self.recipes += [(k, 0) for k in index]
        self.n_columns += len(terms)
        return index

    def arrays(self) -> tuple[Array, IntArray]:
        recipes = np.array(self.recipes, dtype=np.int64).reshape(-1, 2)
        return np.concatenate(self.columns), recipes


def _add_torsions(
    found: _Collection, torsions: Sequence[Torsion], w: Array, kinds: Sequence[str]
) -> None:
    """Harmonics and wells, then the products of two torsions that move."""
    factors: list[list[list[tuple[Term, int]]]] = []
    for torsion in torsions:
        moves = 1 - abs((w * np.exp(1j * torsion.angle)).sum()) > MOVES and not torsion.rotor
        harmonics = torsion.harmonics(1 if torsion.rotor else 2) if "torsion" in kinds else []
        wells = torsion.wells(w) if moves and "well" in kinds else []
        added = [_added(found, harmonics)[:2], _added(found, wells)]
        if moves:
            factors.append(added)
    if "product" not in kinds:
        return
    for one, other in combinations(factors, 2):
        for left, right in zip(one, other, strict=True):
            for (term, i), (factor, j) in product(left, right):
                found.terms.append(term.times(factor))
                found.recipes.append((i, j))


def _added(found: _Collection, pieces: Sequence[tuple[Term, Array]]) -> list[tuple[Term, int]]:
    """The pieces with the numbers of their columns."""
    if not pieces:
        return []
    terms, values = zip(*pieces, strict=True)
    return list(zip(terms, found.add(terms, np.stack(values, 1)), strict=True))


def _products(columns: Array, recipes: IntArray) -> Array:
    values = columns[recipes[:, 0]]
    two = recipes[:, 1] > 0
    if two.any():
        values[two] *= columns[recipes[two, 1]]
    return to_array(values.T)


def _deviations(values: Array, w: Array) -> Array:
    return to_array(np.sqrt(w @ (values - w @ values) ** 2))


def _configurations(x: Tensor, molecule: Molecule) -> Tensor:
    if x.ndim != 3 or x.shape[1:] != (molecule.n_atoms, 3):
        raise ValueError(
            f"`samples` must have shape (n, {molecule.n_atoms}, 3), one row per atom of the "
            f"molecule, got {tuple(x.shape)}"
        )
    return x


def _checked(name: str, values: Any, n: int) -> Array:
    array = to_array(values)
    if array.shape != (n,) or not np.isfinite(array).all():
        raise ValueError(
            f"`given` term {name!r} must hold {n} finite numbers, got shape {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} that are not finite"
        )
    return array
