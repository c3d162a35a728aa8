"""The fewest coordinates that carry the slow processes."""

import itertools
import math
from collections.abc import Callable, Sequence
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
STRAIGHT = 1.5
"""The same on the line before the directions are bent: what is beyond takes one direction more."""
COARSE = 4
"""Highest harmonic by which sets of angles are compared."""
COMPETING = 3
"""Angles that are tried at each step, those with the largest share in what is not reached."""
RESAMPLES = 4
"""Disjoint parts of the samples in each of which the angles are chosen again."""
TURNS = (tuple(15.0 * k for k in range(1, 12)), (7.5, -7.5), (3.75, -3.75))
"""Turns in degrees that are tried of each direction on the line, each row from the best before."""


@dataclass(frozen=True)
class Choice:
    """A straight CV map before it is solved.

    Args:
        matrix: Rows that combine the soft coordinates, the CVs first.
        n_cvs: Number of CVs.
        n_processes: Number of slow processes before the gap.
        gap: Ratio of the eigenvalues across the gap.
        rate: Eigenvalue of the fastest of the slow processes in all soft coordinates.
        basis: Functions of the CVs that their samples determine; None where the heads choose.
        processes: Slow functions of all soft angles; None on the line.
        frequency: In how many of `RESAMPLES` parts of the samples each CV is chosen again, as a
            share, ``(n_cvs,)``; empty on the line.
    """

    matrix: Tensor
    n_cvs: int
    n_processes: int
    gap: float
    rate: float
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
        float(processes.eigenvalues.max()),
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


def _missed(values: Tensor, reference: Tensor, same: float = SAME) -> Tensor:
    """Processes that functions with these eigenvalues do not reach."""
    padded = reference.new_full((len(reference),), torch.inf)
    padded[: len(values)] = values[: len(reference)]
    missed: Tensor = (padded > same * reference).nonzero()[:, 0]
    return missed


def choose_on_line(samples: SoftSamples, n_cvs: int | str, min_population: float) -> Choice:
    """Choose the directions whose functions are slowest.

    They begin where the slow functions of a kernel basis change most, and are turned (`TURNS`)
    where that makes functions of them slower: two processes as fast as each other, along different
    directions, change most between the two, where no function is slow.

    Args:
        samples: Weighted samples in random sequence.
        n_cvs: Number of directions; "auto" takes one, and more while functions of all that are
            taken are faster than a slow process by more than `STRAIGHT`.
        min_population: Processes that move less are not counted.
    """
    found = spectrum(samples, KernelBasis.around(samples), n_bootstraps=0)
    n_processes, gap = spectral_gap(
        found.eigenvalues, found.populations, min_population=min_population
    )
    counted = found.populations >= min_population
    slow = (counted if bool(counted.any()) else ~counted).nonzero()[:n_processes, 0]
    # Directions along which the slow functions change, most first
    weights = samples.weights[:, None, None, None].double()
    slopes = found.slopes[:, slow]
    scatter = (weights * slopes[..., :, None] * slopes[..., None, :]).sum(0)
    scatter = (scatter / found.eigenvalues[slow, None, None]).sum(0)
    directions = torch.linalg.eigh(scatter)[1].flip(-1).T.contiguous()
    fewer = samples.take(torch.arange(min(TRIED, len(samples.s))))

    def slowest(rows: Tensor) -> Tensor:
        """Eigenvalues of the slow processes among functions of some directions."""
        along = rows.to(fewer.metric)
        inner = SoftSamples(
            fewer.s.to(along) @ along.T, along @ fewer.metric @ along.T, fewer.log_weights, False
        )
        n_centres = 60 if len(rows) == 1 else 120
        values = spectrum(inner, KernelBasis.around(inner, n_centres=n_centres), n_bootstraps=0)
        return values.eigenvalues[values.populations >= min_population][:n_processes]

    reference = found.eigenvalues[slow]
    for d in range(1, samples.n_soft + 1) if n_cvs == "auto" else [int(n_cvs)]:
        directions = _turned(directions, d, slowest)
        if d == MAX_CVS or not len(_missed(slowest(directions[:d]), reference, STRAIGHT)):
            break
    return Choice(directions, d, n_processes, gap, float(reference.max()))


def _turned(rows: Tensor, d: int, slowest: Callable[[Tensor], Tensor]) -> Tensor:
    """Orthogonal rows of which the first `d` are turned towards others while these are slower."""

    def value(rows: Tensor) -> float:
        return float((1 / slowest(rows[:d]).clamp_min(1e-12)).sum())

    best = value(rows) if d < len(rows) else math.nan
    pairs = [(i, j) for i in range(d) for j in range(d, min(d + COMPETING, len(rows)))]
    for (i, j), turns in itertools.product(pairs, TURNS):
        tried = [_rotated(rows, i, j, turn) for turn in turns]
        values = [value(other) for other in tried]
        if max(values) > best:
            best = max(values)
            rows = tried[values.index(best)]
    return rows


def _rotated(rows: Tensor, i: int, j: int, turn: float) -> Tensor:
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    out = rows.clone()
    out[i], out[j] = c * rows[i] + s * rows[j], c * rows[j] - s * rows[i]
    return out
