"""How many slow processes there are, and the fewest coordinates that carry them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gencg.objectives.dirichlet import (
    Basis,
    FourierBasis,
    KernelBasis,
    SoftSamples,
    Spectrum,
    spectral_gap,
    spectrum,
)

MAX_CVS = 3
"""The most collective variables that "auto" chooses."""
MIN_TRANSITION = 100.0
"""Effective samples that must carry each slow process."""
ORDERS = {1: (12, 8, 4), 2: (8, 7, 6, 5, 4)}
"""Highest harmonics by number of angles, from the finest."""
SAME = 1.15
"""A further coordinate is not worth having while no eigenvalue falls by this factor."""


@dataclass(frozen=True)
class Choice:
    """A straight CV map before it is solved.

    Args:
        matrix: Rows that combine the soft coordinates, the CVs first.
        n_cvs: Number of CVs.
        n_processes: Number of slow processes before the gap.
        gap: Ratio of the eigenvalues across the gap.
        order: Highest harmonic of each angle that the samples determine.
    """

    matrix: Tensor
    n_cvs: int
    n_processes: int
    gap: float
    order: int = 0


def choose_on_torus(samples: SoftSamples, n_cvs: int | str, min_population: float) -> Choice:
    """Choose soft angles as CVs.

    The pair of angles with the slowest functions shows the gap; then the smallest set of angles
    (up to `MAX_CVS`, or `n_cvs` of them) whose functions reach the processes before it.
    """
    k = samples.n_soft
    rows = torch.eye(k)
    sets = {d: list(itertools.combinations(range(k), d)) for d in (1, 2)}
    fewer = _thin(samples, 20_000)

    def solve(index: Sequence[int]) -> Spectrum:
        # Sets are compared at one order per number of angles, where all are well determined
        order = 4 if len(index) < 3 else 2
        return spectrum(fewer, FourierBasis(rows[list(index)], order=order), n_bootstraps=0)

    pairs = {index: solve(index) for index in sets[min(2, k)]}
    first = max(pairs, key=lambda index: _score(pairs[index], 4))
    order, full = torus_order(samples, rows[list(first)], min_population)
    n_processes, gap = spectral_gap(
        full.eigenvalues, full.populations, min_population=min_population
    )
    wanted = 1 if n_cvs == "auto" else int(n_cvs)
    best = max(sets[1], key=lambda index: _score(solve(index), n_processes))
    while True:
        if len(best) == wanted and n_cvs != "auto":
            break
        if len(best) >= min(k, MAX_CVS if n_cvs == "auto" else wanted):
            break
        larger = _grow(best, k, pairs if len(best) == 1 else None)
        found = {index: pairs.get(index) or solve(index) for index in larger}
        better = max(found, key=lambda index: _score(found[index], n_processes))
        now = solve(best).eigenvalues[:n_processes]
        then = found[better].eigenvalues[:n_processes]
        short = len(now) < len(then)
        if n_cvs == "auto" and not short and float((now / then).max()) < SAME:
            break
        best = better
    if set(best) != set(first):
        order, _ = torus_order(samples, rows[list(best)], min_population)
    sequence = [*best, *(i for i in range(k) if i not in best)]
    return Choice(rows[sequence], len(best), n_processes, gap, order)


def slowest_pair(samples: SoftSamples) -> Tensor:
    """Rows of the two soft angles with the slowest functions; one row where there is one angle."""
    rows = torch.eye(samples.n_soft)
    fewer = _thin(samples, 20_000)
    pairs = [list(p) for p in itertools.combinations(range(samples.n_soft), min(2, len(rows)))]

    def score(pair: list[int]) -> float:
        return _score(spectrum(fewer, FourierBasis(rows[pair], order=4), n_bootstraps=0), 4)

    return rows[max(pairs, key=score)]


def torus_order(samples: SoftSamples, rows: Tensor, min_population: float) -> tuple[int, Spectrum]:
    """Highest harmonic that the samples determine, and the spectrum with it.

    A step between two states needs high harmonics, and each of them lowers the eigenvalue a
    little more (it is variational); but a step narrower than the distance between samples on the
    barrier costs nothing and means nothing. The order is the highest of `ORDERS` at which every
    slow process is carried by `MIN_TRANSITION` effective samples.

    Args:
        samples: Weighted samples.
        rows: Combine the soft angles into those of the basis, ``(d, k)``.
        min_population: Processes that move less are not looked at.
    """
    found: Spectrum | None = None
    orders = ORDERS.get(len(rows), (2,))
    for order in orders:
        found = spectrum(samples, FourierBasis(rows, order=order), n_bootstraps=0)
        wanted = found.populations >= min_population
        n, _ = spectral_gap(found.eigenvalues, found.populations, min_population=min_population)
        carried = found.n_transition[wanted][:n]
        if len(carried) and bool((carried >= MIN_TRANSITION).all()):
            break
    assert found is not None
    return order, found


def _grow(
    best: tuple[int, ...], k: int, pairs: dict[tuple[int, ...], Spectrum] | None
) -> list[tuple[int, ...]]:
    """Sets with one more member; from one to two, all pairs may compete."""
    if pairs is not None:
        return list(pairs)
    return [tuple(sorted((*best, i))) for i in range(k) if i not in best]


def choose_on_line(samples: SoftSamples, n_cvs: int | str, min_population: float) -> Choice:
    """Choose the directions along which the slow functions of a kernel basis change most."""
    basis: Basis = KernelBasis.around(samples)
    found = spectrum(samples, basis, n_bootstraps=0)
    n_processes, gap = spectral_gap(
        found.eigenvalues, found.populations, min_population=min_population
    )
    d = 1 if n_cvs == "auto" else int(n_cvs)
    # Directions along which the slow functions change, most first
    weights = samples.weights[:, None, None, None].double()
    slopes = found.slopes[:, :n_processes]
    scatter = (weights * slopes[..., :, None] * slopes[..., None, :]).sum(0)
    scatter = (scatter / found.eigenvalues[:n_processes, None, None]).sum(0)
    directions = torch.linalg.eigh(scatter)[1].flip(-1).T.contiguous()
    return Choice(directions, d, n_processes, gap)


def _thin(samples: SoftSamples, n: int) -> SoftSamples:
    return samples.take(torch.arange(min(n, len(samples.s))))


def _score(found: Spectrum, n: int) -> float:
    """Sum of the timescales of the first n processes."""
    return float((1 / found.eigenvalues[:n].clamp_min(1e-12)).sum())
