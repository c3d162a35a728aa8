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
        spectrum: The spectrum that showed the gap.
    """

    matrix: Tensor
    n_cvs: int
    n_processes: int
    gap: float
    spectrum: Spectrum


def choose_on_torus(samples: SoftSamples, n_cvs: int | str, min_population: float) -> Choice:
    """Choose soft angles as CVs.

    The pair of angles with the slowest functions shows the gap; then the smallest set of angles
    (up to `MAX_CVS`, or `n_cvs` of them) whose functions reach the processes before it.
    """
    k = samples.n_soft
    rows = torch.eye(k)
    sets = {d: list(itertools.combinations(range(k), d)) for d in (1, 2)}
    fewer = _thin(samples, 20_000)

    def solve(index: Sequence[int], of: SoftSamples, order: int = 5) -> Spectrum:
        order = order if len(index) < 3 else 2
        return spectrum(of, FourierBasis(rows[list(index)], order=order), n_bootstraps=0)

    pairs = {index: solve(index, fewer, 4) for index in sets[min(2, k)]}
    first = max(pairs, key=lambda index: _score(pairs[index], 4))
    full = spectrum(samples, FourierBasis(rows[list(first)], order=5))
    n_processes, gap = spectral_gap(
        full.eigenvalues, full.populations, min_population=min_population
    )
    wanted = 1 if n_cvs == "auto" else int(n_cvs)
    best = max(sets[1], key=lambda index: _score(solve(index, fewer), n_processes))
    while True:
        if len(best) == wanted and n_cvs != "auto":
            break
        if len(best) >= min(k, MAX_CVS if n_cvs == "auto" else wanted):
            break
        larger = _grow(best, k, pairs if len(best) == 1 else None)
        found = {index: pairs.get(index) or solve(index, fewer) for index in larger}
        better = max(found, key=lambda index: _score(found[index], n_processes))
        now = solve(best, fewer, 4 if len(best) < 3 else 2).eigenvalues[:n_processes]
        then = found[better].eigenvalues[:n_processes]
        short = len(now) < len(then)
        if n_cvs == "auto" and not short and float((now / then).max()) < SAME:
            break
        best = better
    chosen = spectrum(samples, FourierBasis(rows[list(best)], order=5 if len(best) < 3 else 2))
    reported = full if len(best) <= 2 and set(best) <= set(first) else chosen
    order = [*best, *(i for i in range(k) if i not in best)]
    return Choice(rows[order], len(best), n_processes, gap, reported)


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
    found = spectrum(samples, basis)
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
    return Choice(directions, d, n_processes, gap, found)


def _thin(samples: SoftSamples, n: int) -> SoftSamples:
    return samples.take(torch.arange(min(n, len(samples.s))))


def _score(found: Spectrum, n: int) -> float:
    """Sum of the timescales of the first n processes."""
    return float((1 / found.eigenvalues[:n].clamp_min(1e-12)).sum())
