"""The Dirichlet form of overdamped dynamics, and its lowest functions in a linear basis."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

GAP = 3.0
"""Ratio of eigenvalues that counts as a gap."""
HINDERED = 0.5
"""Share of the free rate below which a motion is hindered."""
MIN_CARRIED = 50.0
"""Effective samples that a kernel needs under it."""
RESAMPLED = 100
"""Lowest functions that a resampling may mix, or four for each wanted one."""
DEGENERATE = 1.3
"""Ratio of eigenvalues below which neighbouring functions count as one group: any rotation of
them is as good."""
WIDEST = 1.5
"""Largest ratio of eigenvalues within a group: functions farther apart are told apart, however
many lie between them."""


@dataclass(frozen=True)
class SoftSamples:
    """Weighted samples as the Dirichlet form needs them.

    Args:
        s: Soft coordinates, ``(n, k)``.
        metric: Their mass metric, ``(n, k, k)``; see `mass_metric`.
        log_weights: Log importance weights, ``(n,)``.
        periodic: Whether the coordinates are angles.
        distances: Distances between atoms beside them in nm, ``(n, d)``, where they are wanted.
        joint_metric: The mass metric of coordinates and distances, ``(n, k + d, k + d)``.
    """

    s: Tensor
    metric: Tensor
    log_weights: Tensor
    periodic: bool
    distances: Tensor | None = None
    joint_metric: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """Normalised weights."""
        return torch.softmax(self.log_weights, 0)

    @property
    def n_soft(self) -> int:
        """Number of soft coordinates."""
        return self.s.shape[1]

    def project(self, index: Sequence[int]) -> "SoftSamples":
        """The same samples in some of the coordinates, without distances."""
        i = torch.as_tensor(list(index))
        metric = self.metric[:, i][:, :, i]
        return SoftSamples(self.s[:, i], metric, self.log_weights, self.periodic)

    def take(self, index: Tensor) -> "SoftSamples":
        """Samples at `index`."""
        return SoftSamples(
            self.s[index],
            self.metric[index],
            self.log_weights[index],
            self.periodic,
            None if self.distances is None else self.distances[index],
            None if self.joint_metric is None else self.joint_metric[index],
        )

    @classmethod
    def join(cls, parts: Sequence["SoftSamples"], log_weights: Tensor) -> "SoftSamples":
        """Samples one after the other, with new weights."""
        distances = [part.distances for part in parts if part.distances is not None]
        joint = [part.joint_metric for part in parts if part.joint_metric is not None]
        return cls(
            torch.cat([part.s for part in parts]),
            torch.cat([part.metric for part in parts]),
            log_weights,
            parts[0].periodic,
            torch.cat(distances) if distances else None,
            torch.cat(joint) if joint else None,
        )

    def with_distances(self) -> "SoftSamples":
        """The distances as further coordinates, behind the others.

        Raises:
            ValueError: If there are none.
        """
        if self.distances is None or self.joint_metric is None:
            raise ValueError("`samples` must have distances to be described by them, got none")
        s = torch.cat([self.s, self.distances.to(self.s)], dim=1)
        return SoftSamples(s, self.joint_metric, self.log_weights, self.periodic)


class Basis(ABC):
    """Functions of soft coordinates with their gradients."""

    @abstractmethod
    def __call__(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(n, n_functions)`` and gradients ``(n, n_functions, k)`` at s ``(n, k)``."""


class FourierBasis(Basis):
    r"""Products :math:`\prod_j e_{a_j}(u_j)` of sines and cosines of combined angles.

    Args:
        combinations: Integer rows c that define the angles :math:`u_j = \sum_i c_{ji} s_i`.
        order: Highest harmonic of each.
    """

    def __init__(self, combinations: Tensor, *, order: int = 5) -> None:
        self.combinations, self.order = combinations.double(), order

    def __call__(self, s: Tensor) -> tuple[Tensor, Tensor]:
        u = s.double() @ self.combinations.T
        values, gradients = None, None
        for j in range(u.shape[1]):
            one, slope = self._harmonics(u[:, j])
            chained = slope[:, :, None] * self.combinations[j]
            if values is None or gradients is None:
                values, gradients = one, chained
                continue
            gradients = (
                gradients[:, :, None] * one[:, None, :, None]
                + values[:, :, None, None] * chained[:, None]
            ).flatten(1, 2)
            values = (values[:, :, None] * one[:, None]).flatten(1)
        if values is None or gradients is None:
            raise ValueError("`combinations` must have at least one row")
        return values[:, 1:], gradients[:, 1:]  # the first function is the constant

    def _harmonics(self, u: Tensor) -> tuple[Tensor, Tensor]:
        n = torch.arange(1, self.order + 1, dtype=u.dtype)
        cos, sin = (n * u[:, None]).cos(), (n * u[:, None]).sin()
        one, zero = torch.ones_like(u)[:, None], torch.zeros_like(u)[:, None]
        return torch.cat([one, cos, sin], 1), torch.cat([zero, -n * sin, n * cos], 1)


class KernelBasis(Basis):
    r"""Normalised Gaussian kernels, for coordinates on a line.

    .. math:: \varphi_c(s) = \frac{e^{-|s - c|^2 / 2 h^2}}{\sum_b e^{-|s - b|^2 / 2 h^2}},
              \qquad \nabla \varphi_c = \varphi_c\, \frac{c - \bar c(s)}{h^2},
              \quad \bar c = \sum_b \varphi_b\, b

    They sum to one, so that a function can stay flat where a well runs out of samples. Bare
    Gaussians fall to zero there, and every well pays for its rim: the slowest eigenvalue of
    Müller-Brown, from 20,000 Boltzmann samples, came out at 1.8 times the exact one.

    Args:
        centres: Centres c, ``(n_functions, k)``.
        width: Width h.

    References:
        | Fast learning in networks of locally-tuned processing units (Moody, Darken, 1989)
        | https://doi.org/10.1162/neco.1989.1.2.281
    """

    def __init__(self, centres: Tensor, *, width: float) -> None:
        self.centres, self.width = centres.double(), width

    @classmethod
    def around(cls, samples: SoftSamples, *, n_centres: int = 120) -> "KernelBasis":
        """Centres spread over the samples that carry weight, each the farthest from the others.

        A kernel on a lone sample would be a function without slope; those that fewer than
        `MIN_CARRIED` effective samples carry are left out, and their neighbours reach further.
        """
        likely = samples.log_weights > samples.log_weights.max() - 14.0
        s = samples.s[likely].double()[:4000]
        chosen = [0]
        distance = (s - s[0]).square().sum(-1)
        for _ in range(min(n_centres, len(s)) - 1):
            chosen.append(int(distance.argmax()))
            distance = torch.minimum(distance, (s - s[chosen[-1]]).square().sum(-1))
        basis = cls(s[chosen], width=1.5 * math.sqrt(float(distance.max())))
        few = samples.take(torch.arange(min(len(samples.s), 20_000)))
        mass = few.weights.double()[:, None] * basis(few.s)[0]
        carried = mass.sum(0).square() / mass.square().sum(0).clamp_min(1e-300)
        # A weak generator carries few kernels well: the ten best stay in any case
        least = min(MIN_CARRIED, float(carried.sort(descending=True).values[:10][-1]))
        return cls(basis.centres[carried >= least], width=basis.width)

    def __call__(self, s: Tensor) -> tuple[Tensor, Tensor]:
        square = (s.double()[:, None] - self.centres).square().sum(-1)
        values = torch.softmax(-0.5 * square / self.width**2, dim=-1)
        offset = self.centres - (values @ self.centres)[:, None]
        return values, values[..., None] * offset / self.width**2


@dataclass(frozen=True)
class Spectrum:
    r"""The slowest functions in a basis, slowest first; the constant is left out.

    Eigenvalues :math:`\lambda` are in units of the metric, 1/(amu nm²) for angles: overdamped
    rates up to the factor :math:`k_B T/\gamma`. They order the motions and are not physical
    rates.

    Args:
        eigenvalues: :math:`\lambda`, ``(m,)``.
        errors: Their standard errors by bootstrap over blocks of samples, ``(m,)``.
        functions: Values at the samples, of mean 0 and variance 1, ``(n, m)``.
        populations: Probability p that each process moves, ``(m,)``: that of the smaller of two
            states whose indicator has the same kurtosis, :math:`p(1-p) = 1/(E[f^4] + 3)`.
        n_transition: Effective number of samples that carry each eigenvalue, ``(m,)``.
        slopes: Gradients of the functions at the samples, ``(n, m, k)``.
        vectors: Coefficients in the basis, ``(n_functions, m)``.
        centre: Mean of the basis functions, ``(n_functions,)``.
        resampled: Eigenvalues of every resampling, ``(n_bootstraps, m)``; none without.
        agreement: Correlation of each function with itself in a resampling, once the functions of
            nearly the same eigenvalue are rotated onto each other: mean over resamplings,
            ``(m,)``; see `aligned_correlation`.
    """

    eigenvalues: Tensor
    errors: Tensor
    functions: Tensor
    populations: Tensor
    n_transition: Tensor
    slopes: Tensor
    vectors: Tensor
    centre: Tensor
    resampled: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    agreement: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))


def spectrum(
    samples: SoftSamples,
    basis: Basis,
    *,
    n_modes: int = 8,
    n_blocks: int = 40,
    n_bootstraps: int = 100,
    seed: int = 0,
) -> Spectrum:
    r"""Lowest functions of the Dirichlet form in a linear basis.

    .. math:: \min_f\; E_p[\nabla f^T G\, \nabla f] \quad \text{subject to}\quad
              E_p[f] = 0,\; E_p[f_i f_j] = \delta_{ij}

    a generalised eigenproblem whose averages are static: weighted samples of p are enough. It is
    variational: every eigenvalue lies above the true one.

    Args:
        samples: Weighted samples.
        basis: Functions without the constant.
        n_modes: How many eigenfunctions.
        n_blocks: Blocks of samples for the bootstrap.
        n_bootstraps: Resamplings of the blocks.
        seed: Seed of the resampling.

    References:
        | A variational approach to modeling slow processes in stochastic dynamical systems
          (Noé, Nüske, 2013), https://arxiv.org/abs/1211.7103
        | Markov models of molecular kinetics (Prinz et al., 2011),
          https://doi.org/10.1063/1.3565032
    """
    weights = samples.weights.double()
    blocks = [_moments(samples.take(i), weights[i], basis) for i in _blocks(len(weights), n_blocks)]
    mass, mean, second, stiff = (torch.stack(part) for part in zip(*blocks, strict=True))
    total = torch.ones(len(blocks), dtype=torch.float64)
    eigenvalues, vectors, centre = _solve(total, mass, mean, second, stiff)
    n_modes = min(n_modes, len(eigenvalues))
    # Resampled within the span of the lowest functions: as good to first order, and quick
    span = vectors[:, : max(RESAMPLED, 4 * n_modes)]
    inner = (mass, mean @ span, span.T @ second @ span, span.T @ stiff @ span)
    eigenvalues, vectors = eigenvalues[:n_modes], vectors[:, :n_modes]
    generator = torch.Generator().manual_seed(seed)
    draws, overlaps = [], []
    for _ in range(n_bootstraps):
        counts = torch.bincount(
            torch.randint(len(blocks), (len(blocks),), generator=generator), minlength=len(blocks)
        )
        values, rotated, _ = _solve(counts.double(), *inner)
        draws.append(values[:n_modes])
        # In the span the covariance of all samples is the identity, and so is the full solution
        overlaps.append(torch.linalg.qr(rotated[:, :n_modes])[0][:n_modes])
    width = min(len(d) for d in draws) if draws else n_modes
    functions, slopes = [], []
    for index in _blocks(len(weights), n_blocks):
        values, gradients = basis(samples.s[index])
        functions.append((values - centre) @ vectors)
        slopes.append(torch.einsum("nbk,bm->nmk", gradients, vectors))
    f, slope = torch.cat(functions), torch.cat(slopes)
    errors = torch.full((n_modes,), math.nan, dtype=torch.float64)
    if draws:
        errors[:width] = torch.stack([d[:width] for d in draws]).std(0)
        agreement = torch.stack([aligned_correlation(o, eigenvalues) for o in overlaps]).mean(0)
    else:
        agreement = errors.clone()
    weighted = samples.weights.double()[:, None]
    skewness = (weighted * f**3).sum(0)
    sign = torch.where(skewness < 0, -1.0, 1.0)  # the rarer side is the positive one
    carried = weighted * carre_du_champ(slope, samples.metric)
    return Spectrum(
        eigenvalues=eigenvalues,
        errors=errors,
        functions=f * sign,
        populations=moved_population((weighted * f**4).sum(0)),
        n_transition=carried.sum(0).square() / carried.square().sum(0).clamp_min(1e-300),
        slopes=slope * sign[:, None],
        vectors=vectors * sign,
        centre=centre,
        resampled=torch.stack([d[:width] for d in draws]) if draws else torch.zeros(0, n_modes),
        agreement=agreement,
    )


def degenerate_groups(eigenvalues: Tensor) -> list[list[int]]:
    """Consecutive functions whose eigenvalues differ by less than `DEGENERATE` each.

    A group is no wider than `WIDEST`: one that is, is split where its neighbours are farthest
    apart.
    """
    values = eigenvalues.tolist()
    # Zero of a constant function is in no ratio
    ratios = [b / a if a > 0 else math.inf for a, b in pairwise(values)]

    def split(first: int, last: int) -> list[list[int]]:
        """Groups of the functions from `first` to before `last`."""
        inside = ratios[first : last - 1]
        if not inside:
            return [[first]]
        widest = max(inside)
        if widest < DEGENERATE and values[last - 1] <= WIDEST * values[first]:
            return [list(range(first, last))]
        at = first + inside.index(widest) + 1
        return split(first, at) + split(at, last)

    return split(0, len(values)) if values else []


def aligned_correlation(correlation: Tensor, eigenvalues: Tensor) -> Tensor:
    r"""Correlation of each function with those of another solution, rotated onto it.

    .. math:: c_k = \Big(\sum_{j \in \text{group}(k)} R_{kj}^2\Big)^{1/2}

    Sign and order within a group of nearly equal eigenvalues do not matter; 1 is the same
    function.

    Args:
        correlation: R, between the functions and those of the other solution, which are
            uncorrelated, ``(m, m')``.
        eigenvalues: Of the first solution, ``(m,)``.
    """
    out = correlation.new_zeros(len(eigenvalues))
    for group in degenerate_groups(eigenvalues):
        columns = [j for j in group if j < correlation.shape[1]]
        out[group] = correlation[group][:, columns].square().sum(1).sqrt()
    return out


def moved_population(kurtosis: Tensor) -> Tensor:
    r"""Probability of the smaller of two states whose indicator has this kurtosis.

    .. math:: E[f^4] = \frac{1}{p(1-p)} - 3 \quad\text{for a two-state } f
              \text{ of mean 0 and variance 1}
    """
    return 0.5 - (0.25 - 1 / (kurtosis + 3)).clamp_min(0).sqrt()


def carre_du_champ(slopes: Tensor, metric: Tensor) -> Tensor:
    r""":math:`\Gamma(f) = \nabla f^T G \nabla f`, ``(n, m, k)`` and ``(n, k, k)`` to ``(n, m)``."""
    return torch.einsum("nmi,nij,nmj->nm", slopes, metric.to(slopes), slopes)


def spectral_gap(
    eigenvalues: Tensor,
    populations: Tensor,
    *,
    min_population: float = 1e-3,
    n_max: int = 6,
    free: Tensor | None = None,
) -> tuple[int, float]:
    """Number of slow processes and the ratio of eigenvalues across the gap after them.

    Processes that move less than `min_population` are passed over: they are real, but nobody
    asked for them. The gap is the last ratio of at least `GAP` among the first `n_max`, so that
    one very slow process does not hide others that are slow, too; where no ratio is so large, it
    is the largest.

    Args:
        eigenvalues: Ascending, ``(m,)``.
        populations: What each process moves, ``(m,)``.
        min_population: See above.
        n_max: Most processes.
        free: Eigenvalue of each process if nothing hindered it, ``(m,)``. The gap then follows on
            a process that is slower than `HINDERED` times that, where there is one: gaps among
            motions that nothing hinders are of no interest.
    """
    kept = populations >= min_population
    wanted = eigenvalues[kept]
    if len(wanted) < 2:
        return max(len(wanted), 1), math.inf
    ratios = (wanted[1:] / wanted[:-1].clamp_min(1e-300))[:n_max]
    if free is not None:
        hindered = wanted[: len(ratios)] <= HINDERED * free[kept][: len(ratios)]
        if bool(hindered.any()):
            ratios = torch.where(hindered, ratios, 0.0)
    wide = (ratios >= GAP).nonzero()[:, 0]
    best = int(wide[-1]) if len(wide) else int(ratios.argmax())
    return best + 1, float(ratios[best])


def _blocks(n: int, n_blocks: int) -> list[Tensor]:
    return list(torch.arange(n).chunk(n_blocks))


def sum_moments(
    samples: SoftSamples, weights: Tensor, basis: Basis, blocks: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, weighted mean, second moment and Dirichlet form of a basis, summed over blocks."""
    first, *others = blocks
    total = _moments(samples.take(first), weights[first], basis)
    for index in others:
        part = _moments(samples.take(index), weights[index], basis)
        total = tuple(a + b for a, b in zip(total, part, strict=True))  # type: ignore[assignment]
    return total


def solve_moments(
    mass: Tensor, mean: Tensor, second: Tensor, stiff: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues, coefficients and centre of the slow functions with these moments."""
    one = torch.ones(1, dtype=torch.float64)
    return _solve(one, mass[None], mean[None], second[None], stiff[None])


def _moments(
    samples: SoftSamples, weights: Tensor, basis: Basis
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values, gradients = basis(samples.s)
    weighted = weights[:, None] * values
    flow = torch.einsum("nbi,nij->nbj", gradients, samples.metric.double())
    rows = (flow * weights[:, None, None]).permute(0, 2, 1).flatten(0, 1)
    stiff = rows.T @ gradients.permute(0, 2, 1).flatten(0, 1)
    return weights.sum(), weighted.sum(0), weighted.T @ values, stiff


def _solve(
    counts: Tensor, mass: Tensor, mean: Tensor, second: Tensor, stiff: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    total = (counts * mass).sum()
    centre = (counts[:, None] * mean).sum(0) / total
    covariance = torch.einsum("b,bij->ij", counts, second) / total - torch.outer(centre, centre)
    dirichlet = torch.einsum("b,bij->ij", counts, stiff) / total
    return *_lowest(0.5 * (dirichlet + dirichlet.T), covariance), centre


def _lowest(dirichlet: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    # Directions in which the basis hardly varies are left out: they are combinations that vanish
    scale = covariance.diagonal().clamp_min(1e-300).rsqrt()
    variances, directions = torch.linalg.eigh(scale[:, None] * covariance * scale)
    kept = variances > 1e-9 * variances[-1]
    whitening = scale[:, None] * directions[:, kept] * variances[kept].rsqrt()
    eigenvalues, vectors = torch.linalg.eigh(whitening.T @ dirichlet @ whitening)
    return eigenvalues, whitening @ vectors
