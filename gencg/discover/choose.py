"""The fewest coordinates that carry the slow processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gencg.discover.processes import TRIED, Processes, find_processes
from gencg.objectives.dirichlet import (
    Basis,
    KernelBasis,
    SoftSamples,
    spectral_gap,
    spectrum,
)
from gencg.objectives.products import REDUCIBLE, product_share
from gencg.objectives.subsets import Forms

MAX_CVS = 6
"""The most collective variables that "auto" chooses."""
SAME = 1.15
"""Processes within this factor of their eigenvalue in all soft angles are reached."""
COARSE = 4
"""Highest harmonic by which sets of angles are compared."""
COMPETING = 3
"""Angles that are tried at each step, those with the largest share in what is not reached."""
RESAMPLES = 4
"""Disjoint parts of the samples in each of which the angles are chosen again."""


@dataclass(frozen=True)
class Choice:
    """A straight CV map before it is solved.

    Args:
        matrix: Rows that combine the soft coordinates, the CVs first.
        n_cvs: Number of CVs.
        n_processes: Number of slow processes before the gap.
        gap: Ratio of the eigenvalues across the gap.
        basis: Functions of the CVs that their samples determine; None where the heads choose.
        processes: Slow functions of all soft angles; None on the line.
        frequency: In how many of `RESAMPLES` parts of the samples each CV is chosen again, as a
            share, ``(n_cvs,)``; empty on the line.
    """

    matrix: Tensor
    n_cvs: int
    n_processes: int
    gap: float
    basis: Basis | None = None
    processes: Processes | None = None
    frequency: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))


def choose_on_torus(samples: SoftSamples, n_cvs: int | str, min_population: float) -> Choice:
    """Choose soft angles as CVs: the fewest whose functions reach every slow process.

    The slow functions of all soft angles (`find_processes`) tell how many there are and which
    angles have a share in them. Angles are then added one by one, that first whose functions are
    slowest, until each process is within `SAME` of its eigenvalue.

    Args:
        samples: Weighted samples in random sequence.
        n_cvs: Number of angles, or "auto", `MAX_CVS` at most.
        min_population: Processes that move less are not counted.
    """
    processes = find_processes(samples, min_population)
    fewer = samples.take(torch.arange(min(TRIED, len(samples.s))))
    chosen = choose_angles(fewer, processes, n_cvs, min_population)
    again = [
        choose_angles(samples.take(part), processes, len(chosen), min_population)
        for part in torch.arange(len(samples.s)).chunk(RESAMPLES)
    ]
    frequency = [sum(i in other for other in again) / len(again) for i in chosen]
    k = samples.n_soft
    sequence = [*chosen, *(i for i in range(k) if i not in chosen)]
    return Choice(
        torch.eye(k)[sequence],
        len(chosen),
        processes.n,
        processes.gap,
        basis=processes.basis.restrict(chosen),
        processes=processes,
        frequency=torch.tensor(frequency, dtype=torch.float64),
    )


def choose_angles(
    samples: SoftSamples, processes: Processes, n_cvs: int | str, min_population: float
) -> list[int]:
    """Angles whose functions reach the slow processes, slowest first.

    Args:
        samples: Weighted samples to compare sets of angles by.
        processes: Slow functions of all soft angles.
        n_cvs: Number of angles, or "auto".
        min_population: Processes that move less are not looked at.
    """
    coarse = processes.basis.capped(COARSE).restrict(range(samples.n_soft))
    forms = Forms.of(samples, coarse)
    n = processes.n
    active = [i for i, order in enumerate(processes.basis.orders) if order]

    def slowest(index: Sequence[int]) -> Tensor:
        values, f, populations = forms.slowest(index, 3 * n + 10)
        # Products of slow functions are counted neither here nor among the processes
        own = (populations >= min_population) & (product_share(f, forms.weights) < REDUCIBLE)
        return values[own][:n] if bool(own.any()) else values[:1]

    reference = slowest(active)
    most = len(active) if n_cvs == "auto" else samples.n_soft
    wanted = min(most, MAX_CVS if n_cvs == "auto" else int(n_cvs))
    shares = processes.shares[processes.slow]
    chosen: list[int] = []
    values = reference.new_zeros(0)
    while len(chosen) < wanted:
        missed = _missed(values, reference)
        if n_cvs == "auto" and chosen and not len(missed):
            break
        missed = missed[missed < len(shares)]
        rank = (shares[missed] if len(missed) else shares).sum(0)
        rest = sorted(set(range(samples.n_soft)) - set(chosen), key=lambda i: -float(rank[i]))
        sets = [[*chosen, i] for i in rest[:COMPETING]]
        if len(chosen) + 2 <= wanted:
            # Two angles may be slow together only
            apart = [pair for pair in processes.basis.pairs if not set(pair) & set(chosen)]
            sets += [[*chosen, *pair] for pair in apart[:COMPETING]]
        tried = [slowest(index) for index in sets]
        best = max(range(len(sets)), key=lambda j: float((1 / tried[j].clamp_min(1e-12)).sum()))
        chosen, values = sets[best], tried[best]
    if n_cvs == "auto" and not len(_missed(values, reference)):
        # One that came as half of a pair may be needed no more
        for i in list(chosen):
            fewer = [j for j in chosen if j != i]
            if fewer and not len(_missed(slowest(fewer), reference)):
                chosen = fewer
    return chosen


def _missed(values: Tensor, reference: Tensor) -> Tensor:
    """Processes that functions with these eigenvalues do not reach."""
    padded = reference.new_full((len(reference),), torch.inf)
    padded[: len(values)] = values[: len(reference)]
    missed: Tensor = (padded > SAME * reference).nonzero()[:, 0]
    return missed


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
