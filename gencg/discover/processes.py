"""The slow processes of a molecule in functions of all its soft angles."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gencg.objectives.dirichlet import (
    FourierBasis,
    SoftSamples,
    Spectrum,
    spectral_gap,
    spectrum,
)
from gencg.objectives.pair_basis import PairBasis
from gencg.objectives.products import own_processes

MIN_TRANSITION = 100.0
"""Effective samples that must carry each slow process."""
ORDERS = {1: (12, 8, 4), 2: (8, 7, 6, 5, 4)}
"""Highest harmonics by number of angles, from the finest."""
HORIZON = 20.0
"""Functions faster than this times the second slowest are nobody's collective variable."""
MAX_PROCESSES = 15
"""Most slow processes that are counted."""
COUPLED = 0.1
"""Relative fall of slow eigenvalues at which products of two angles are worth having."""
NOISE = 2.0
"""A fall must exceed this over the root of the samples that carry the function."""
INDEPENDENT = 0.8
"""Eigenvalues above this share of the sum of those of two angles are products of functions."""
MAX_PAIRS = 12
"""Most pairs in the basis."""
MAX_FUNCTIONS, LEAST_ORDER = 1000, 3
"""Most products of pairs in the basis, and the order down to which they are told coarser."""
TRIED = 20_000
"""Samples by which pairs are compared."""


@dataclass(frozen=True)
class Processes:
    r"""Slow functions of all soft angles, those of independent angles counted once.

    Args:
        spectrum: Functions, eigenvalues and errors in `basis`.
        basis: The functions they are combined of.
        wanted: Which of them are processes: not rarer than asked, and no product of slower ones,
            ``(m,)`` bool.
        n: Number of slow processes before the gap.
        gap: Ratio of the eigenvalues across it; see `as_processes`.
        support: Share of resamplings that have the gap at the same place.
        shares: Share of each angle in the Dirichlet form of each function, ``(m, k)``:

            .. math:: D_{ki} = E[\partial_i f_k\, (G \nabla f_k)_i] / \lambda_k,
                      \qquad \sum_i D_{ki} = 1
    """

    spectrum: Spectrum
    basis: PairBasis
    wanted: Tensor
    n: int
    gap: float
    support: float
    shares: Tensor

    @property
    def slow(self) -> Tensor:
        """Indices of the slow processes in the spectrum, ``(n,)``."""
        return self.wanted.nonzero()[: self.n, 0]

    @property
    def eigenvalues(self) -> Tensor:
        """Of the slow processes, ``(n,)``."""
        return self.spectrum.eigenvalues[self.slow]


@dataclass(frozen=True)
class Coupling:
    """Two angles and how much slower functions of both are than functions of each.

    Args:
        pair: The angles, by index.
        gain: Largest relative fall of a slow eigenvalue.
        slowest: Lowest eigenvalue of functions of both.
    """

    pair: tuple[int, int]
    gain: float
    slowest: float


def couplings(samples: SoftSamples, min_population: float) -> tuple[list[Coupling], list[float]]:
    """Pairs of soft angles whose products make slow functions slower, strongest first.

    For independent angles the functions of both are those of each and their products, whose
    eigenvalues are the sums; only what lies below counts.

    Args:
        samples: Weighted samples of angles.
        min_population: Processes that move less are not looked at.

    Returns:
        Coupled pairs, and the lowest eigenvalue of functions of each angle alone, ``(k,)``.
    """
    fewer = samples.take(torch.arange(min(TRIED, len(samples.s))))

    def lowest(index: Sequence[int]) -> tuple[list[float], list[float]]:
        basis = FourierBasis(torch.eye(len(index)), order=4)
        found = spectrum(fewer.project(index), basis, n_modes=6, n_bootstraps=0)
        wanted = found.populations >= min_population
        values: list[float] = found.eigenvalues[wanted].tolist()
        return values or [math.inf], found.n_transition[wanted].tolist() or [1.0]

    k = samples.n_soft
    alone = [lowest([i])[0] for i in range(k)]
    found = {pair: lowest(pair) for pair in itertools.combinations(range(k), 2)}
    every = sorted(v for values in (*alone, *(v for v, _ in found.values())) for v in values[:2])
    horizon = HORIZON * every[min(1, len(every) - 1)]
    out = []
    for (i, j), (together, carried) in found.items():
        apart = sorted(alone[i] + alone[j])
        limit = min(horizon, INDEPENDENT * (alone[i][0] + alone[j][0]))
        # With few samples on the barrier more functions are slower whatever they are of
        fall = [
            1 - a / b
            for a, b, n in zip(together, apart, carried, strict=False)
            if a < limit and 1 - a / b > NOISE / math.sqrt(n)
        ]
        gain = max(fall, default=0.0)
        if gain >= COUPLED:
            out.append(Coupling((i, j), gain, together[0]))
    out.sort(key=lambda c: c.slowest / c.gain)
    return out[:MAX_PAIRS], [values[0] for values in alone]


def find_processes(
    samples: SoftSamples,
    min_population: float,
    *,
    n_modes: int | None = None,
    n_bootstraps: int = 100,
) -> Processes:
    """The slow functions of all soft angles, and how many stand out.

    Args:
        samples: Weighted samples of angles that also cover barriers.
        min_population: Processes that move less are not counted.
        n_modes: Number of functions looked at; by default 16, or four for each angle: rare ones and
            products lie among the slow ones.
        n_bootstraps: Resamplings for errors.
    """
    pairs, alone = couplings(samples, min_population)
    coupled = [c.pair for c in pairs]
    basis = _basis(samples, coupled, alone, min_population)
    n_modes = n_modes or max(16, 4 * samples.n_soft)
    found = spectrum(samples, basis, n_modes=n_modes, n_bootstraps=n_bootstraps)
    return as_processes(samples, basis, found, min_population)


def as_processes(
    samples: SoftSamples, basis: PairBasis, found: Spectrum, min_population: float
) -> Processes:
    r"""Count the processes of a spectrum; see `Processes`.

    The gap follows on a process that barriers hinder: slower than half the rate at which the angles
    that carry it would turn if the energy were flat, :math:`\sum_i D_{ki}\, E[G_{ii}]`.
    """
    wanted = own_processes(found, samples, min_population)
    if not bool(wanted.any()):
        wanted[0] = True
    shares = angle_shares(found, samples)
    weights, metric = samples.weights.double(), samples.metric.double()
    free = shares @ torch.einsum("n,nii->i", weights, metric)
    count = partial(spectral_gap, n_max=MAX_PROCESSES, min_population=0.0)
    own = found.eigenvalues[wanted]
    n, gap = count(own, own, free=free[wanted])
    columns = wanted.nonzero()[:, 0]
    columns = columns[columns < found.resampled.shape[1]]
    same = [
        count(draw[columns], draw[columns], free=free[columns])[0] == n for draw in found.resampled
    ]
    support = sum(same) / len(same) if same else math.nan
    return Processes(found, basis, wanted, n, gap, support, shares)


def angle_shares(found: Spectrum, samples: SoftSamples) -> Tensor:
    """Share of each angle in the Dirichlet form of each function, ``(m, k)``; see `Processes`."""
    weights, metric = samples.weights.double(), samples.metric.double()
    slopes = found.slopes
    flow = torch.einsum("nij,nmj->nmi", metric, slopes)
    parts = torch.einsum("n,nmi,nmi->mi", weights, slopes, flow)
    return parts / parts.sum(1, keepdim=True).clamp_min(1e-300)


def torus_order(
    samples: SoftSamples, index: Sequence[int], min_population: float
) -> tuple[int, Spectrum]:
    """Highest harmonic that the samples determine, and the spectrum with it.

    A step between two states needs high harmonics, and each of them lowers the eigenvalue a
    little more (it is variational); but a step narrower than the distance between samples on the
    barrier costs nothing and means nothing. The order is the highest of `ORDERS` at which every
    slow process is carried by `MIN_TRANSITION` effective samples.

    Args:
        samples: Weighted samples.
        index: One or two angles.
        min_population: Processes that move less are not looked at.
    """
    inner = samples.project(index)
    found: Spectrum | None = None
    orders = ORDERS[len(index)]
    for order in orders:
        basis = FourierBasis(torch.eye(len(index)), order=order)
        found = spectrum(inner, basis, n_bootstraps=0)
        wanted = found.populations >= min_population
        n, _ = spectral_gap(found.eigenvalues, found.populations, min_population=min_population)
        carried = found.n_transition[wanted][:n]
        if len(carried) and bool((carried >= MIN_TRANSITION).all()):
            break
    assert found is not None
    return order, found


def _basis(
    samples: SoftSamples,
    pairs: Sequence[tuple[int, int]],
    alone: Sequence[float],
    min_population: float,
) -> PairBasis:
    """Harmonics as high as the samples determine; angles without a slow function are left out."""
    pairs = list(pairs)
    pair_orders = [torus_order(samples, pair, min_population)[0] for pair in pairs]
    # Too many functions for memory: the weakest couplings, which come last, are told coarser
    while 4 * sum(n * n for n in pair_orders) > MAX_FUNCTIONS:
        fine = [k for k, n in enumerate(pair_orders) if n > LEAST_ORDER]
        if fine:
            pair_orders[fine[-1]] -= 1
        else:
            pairs, pair_orders = pairs[:-1], pair_orders[:-1]
    horizon = HORIZON * sorted(alone)[min(1, len(alone) - 1)]
    orders = []
    for i, slowest in enumerate(alone):
        of_pairs = [n for n, pair in zip(pair_orders, pairs, strict=True) if i in pair]
        if of_pairs:
            orders.append(max(of_pairs))
        elif slowest <= horizon:
            orders.append(torus_order(samples, [i], min_population)[0])
        else:
            orders.append(0)
    return PairBasis(orders, pairs, pair_orders)
