"""Committor between two states, by the Dirichlet form of overdamped dynamics."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencg.analysis.metastable import MetastableStates
from gencg.geometry import wrap
from gencg.importance import resample_indices
from gencg.objectives.dirichlet import Basis, SoftSamples

Region = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A set by its level: values ``(n,)``, at most 0 inside, and gradients ``(n, k)`` at s ``(n, k)``."""

FEW = 50.0
"""Effective transition samples below which a flux is not to be relied on."""


def ball(centre: Tensor, radius: float, *, periodic: bool) -> Region:
    """The ball of a radius around a point ``(k,)``, on the torus of angles if `periodic`."""

    def level(s: Tensor) -> tuple[Tensor, Tensor]:
        offset = wrap(s - centre) if periodic else s - centre
        distance = offset.norm(dim=1)
        return distance - radius, offset / distance.clamp_min(1e-12)[:, None]

    return level


def core(
    functions: nn.Module | Callable[[Tensor], Tensor],
    states: MetastableStates,
    state: int,
    *,
    membership: float = 0.8,
) -> Region:
    r"""Where the membership of a metastable state reaches a level, :math:`\chi_j(s) \ge c`.

    Args:
        functions: Slow functions of soft coordinates, ``(n, k)`` to ``(n, m)``, differentiable.
        states: The states.
        state: Which of them, 0 the most populated.
        membership: The level c.

    Raises:
        ValueError: If there is no such state, or the level is not above 1/2, where cores of two
            states would meet.
    """
    if not 0 <= state < states.n_states:
        raise ValueError(f"`state` must lie between 0 and {states.n_states - 1}, got {state}")
    if not 0.5 < membership < 1:
        raise ValueError(f"`membership` must lie in (0.5, 1), got {membership}")
    corners = torch.from_numpy(states.corners)
    rows = torch.linalg.inv(torch.cat([corners.new_ones(len(corners), 1), corners], 1).T)
    parameter = next(iter(_tensors(functions)), torch.zeros(0, dtype=torch.float64))

    def level(s: Tensor) -> tuple[Tensor, Tensor]:
        s = s.to(parameter.dtype).detach().requires_grad_()
        with torch.enable_grad():
            g = functions(s)[:, : corners.shape[1]].double()
            chi = g @ rows[:, 1:].T + rows[:, 0]
            # Filled from the rarest state on, as the memberships are
            left = torch.ones_like(chi[:, 0])
            for j in range(len(corners) - 1, state, -1):
                left = left - torch.minimum(chi[:, j].clamp_min(0.0), left)
            mine = left if state == 0 else torch.minimum(chi[:, state].clamp_min(0.0), left)
            (gradient,) = torch.autograd.grad(mine.sum(), s)
        return membership - mine.detach(), -gradient.double()

    return level


class MappedBasis(Basis):
    r"""Functions of collective variables as functions of the soft coordinates, :math:`f(\xi(s))`.

    Args:
        cv_map: Module whose first output is :math:`\xi` ``(n, n_cvs)`` of s ``(n, k)``.
        basis: Functions of :math:`\xi`.
    """

    def __init__(self, cv_map: nn.Module, basis: Basis) -> None:
        self.map, self.basis = cv_map, basis
        self._like = next(iter(_tensors(cv_map)), torch.zeros(0, dtype=torch.float64))

    def __call__(self, s: Tensor) -> tuple[Tensor, Tensor]:
        s = s.to(self._like.dtype).detach().requires_grad_()
        with torch.enable_grad():
            xi = self.map(s)[0]
            rows = [
                torch.autograd.grad(xi[:, i].sum(), s, retain_graph=True)[0]
                for i in range(xi.shape[1])
            ]
        values, gradients = self.basis(xi.detach().double())
        return values, gradients @ torch.stack(rows, 1).double()


@dataclass(frozen=True, eq=False, repr=False)
class Committor:
    r"""Probability q(s) to reach B before A, and the flux of the transitions between them.

    Times are overdamped and relative: fluxes and rates are in units of the metric, 1/(amu nm²)
    for angles, up to the factor :math:`k_B T / \gamma`, as the eigenvalues of the slow functions.

    Attributes:
        flux: Reactive flux :math:`E_p[\nabla q^T G\, \nabla q]`, the least on these samples.
        error: Its standard error, by bootstrap over blocks of samples.
        held_out: The same form on samples that its coefficients were not solved on: above `flux`
            by what was overfitted.
        mean: :math:`E_p[q]`, the share of time in which B was visited last.
        n_transition: Effective number of samples that carry the flux.
        values: q at the samples, ``(n,)``, in [0, 1].
        density: Share of each sample in the flux, ``(n,)``, summing to one: the reactive
            trajectories cross where it is large.
    """

    flux: float
    error: float
    held_out: float
    mean: float
    n_transition: float
    values: Tensor
    density: Tensor
    basis: Basis
    a: Region
    b: Region
    coefficients: Tensor

    @property
    def rate_ab(self) -> float:
        r"""Relative rate from A to B, :math:`J / E_p[1 - q]`."""
        return self.flux / max(1 - self.mean, 1e-300)

    @property
    def rate_ba(self) -> float:
        r"""Relative rate from B to A, :math:`J / E_p[q]`."""
        return self.flux / max(self.mean, 1e-300)

    def __call__(self, s: Tensor) -> Tensor:
        """Committor ``(n,)`` at soft coordinates ``(n, k)``, in [0, 1]."""
        parts = [self._at(part) for part in s.split(4000)]  # type: ignore[no-untyped-call]
        return torch.cat(parts)

    def _at(self, s: Tensor) -> Tensor:
        q0, _, h, _ = _trial(s, self.basis, self.a, self.b)
        return (q0 + h @ self.coefficients).clamp(0, 1)

    def __repr__(self) -> str:
        doubt = "" if self.n_transition >= FEW else "; too few, do not rely on it"
        return (
            f"Committor(flux={self.flux:.3g} ± {self.error:.1g}, held out {self.held_out:.3g}, "
            f"{self.n_transition:.0f} transition samples{doubt})"
        )


def committor(
    samples: SoftSamples,
    basis: Basis,
    a: Region,
    b: Region,
    *,
    n_blocks: int = 40,
    n_bootstraps: int = 100,
    seed: int = 0,
) -> Committor:
    r"""The committor as the function of least Dirichlet form between two sets.

    .. math:: J = \min_q E_p[\nabla q^T G\, \nabla q] \quad\text{with}\quad q|_A = 0,\; q|_B = 1

    Averages are static: weighted samples of p that cover the way between A and B are enough. The
    boundary values hold exactly, since the trial functions are

    .. math:: q = q_0 + q_0 (1 - q_0) \sum_k c_k \varphi_k, \qquad
              q_0 = \frac{a_+}{a_+ + b_+}

    with the levels a and b of the sets. The minimum over c is a linear system, and lies above the
    true flux by the variational principle.

    Args:
        samples: Weighted samples, with their metric G.
        basis: The functions :math:`\varphi_k`; a constant is added.
        a: Where q is 0, by its level; see `ball` and `core`.
        b: Where q is 1.
        n_blocks: Blocks of samples for bootstrap and held-out samples.
        n_bootstraps: Resamplings of the blocks.
        seed: Seed of the resampling.

    Raises:
        ValueError: If the sets overlap, one of them holds no weight, or no sample lies between.

    References:
        | Towards a theory of transition paths (E, Vanden-Eijnden, 2006),
          https://doi.org/10.1007/s10955-005-9003-9
    """
    _check_regions(samples, a, b)
    blocks = [_moments(samples, i, basis, a, b) for i in _blocks(len(samples.s), n_blocks)]
    first, cross, form, mass, mean0, means = (
        torch.stack(part) for part in zip(*blocks, strict=True)
    )

    def solve(counts: Tensor) -> tuple[Tensor, float]:
        total = (counts * mass).sum()
        parts = [
            torch.tensordot(counts, part, dims=1) / total  # type: ignore[no-untyped-call]
            for part in (first, cross, form)
        ]
        c = _least(parts[2], parts[1])
        return c, float(_value(*parts, c))

    every = torch.ones(len(blocks), dtype=torch.float64)
    c, flux = solve(every)
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(n_bootstraps):
        drawn = torch.randint(len(blocks), (len(blocks),), generator=generator)
        draws.append(solve(torch.bincount(drawn, minlength=len(blocks)).double())[1])
    values, carried = _evaluate(samples, basis, a, b, c)
    total = mass.sum()
    return Committor(
        flux=flux,
        error=float(torch.tensor(draws).std()) if len(draws) > 1 else math.nan,
        held_out=_held_out(first, cross, form, mass, solve),
        mean=float((mean0.sum() + means.sum(0) @ c) / total),
        n_transition=float(carried.sum() ** 2 / carried.square().sum().clamp_min(1e-300)),
        values=values.clamp(0, 1),
        density=carried / carried.sum().clamp_min(1e-300),
        basis=basis,
        a=a,
        b=b,
        coefficients=c,
    )


@dataclass(frozen=True, eq=False)
class TransitionStates:
    """Samples at the top of the way between two states, where the committor is 1/2.

    Attributes:
        index: The samples, ``(n,)`` int.
        log_weights: Their log weights, ``(n,)``.
        n_effective: Their effective number.
    """

    index: Tensor
    log_weights: Tensor
    n_effective: float

    def draw(self, n: int, *, seed: int = 0) -> Tensor:
        """Indices ``(n,)`` of samples of equal weight."""
        return self.index[resample_indices(self.log_weights, n, seed)]


def transition_states(
    q: Tensor, log_weights: Tensor, *, half_width: float = 0.1
) -> TransitionStates:
    r"""The transition-state ensemble: p restricted to :math:`|q - 1/2| \le` `half_width`.

    Args:
        q: Committor at the samples, ``(n,)``.
        log_weights: Log weights, ``(n,)``.
        half_width: Half of the width of the window.

    Raises:
        ValueError: If the width is not in (0, 1/2), or no sample with weight lies in the window.
    """
    if not 0 < half_width < 0.5:
        raise ValueError(f"`half_width` must lie in (0, 0.5), got {half_width}")
    inside = ((q - 0.5).abs() <= half_width) & torch.isfinite(log_weights)
    index = inside.nonzero()[:, 0]
    if not len(index):
        raise ValueError(
            f"no sample has a committor within {half_width:g} of 1/2; take covering samples "
            "(`gencg.discover.covering_samples`), or a larger `half_width`"
        )
    w = torch.softmax(log_weights[index].double(), 0)
    return TransitionStates(index, log_weights[index], float(1 / w.square().sum()))


def _check_regions(samples: SoftSamples, a: Region, b: Region) -> None:
    in_a, in_b = (
        torch.cat([region(samples.s[i])[0] <= 0 for i in _blocks(len(samples.s), 20)])
        for region in (a, b)
    )
    alive = samples.weights > 0
    if bool((in_a & in_b & alive).any()):
        raise ValueError(
            f"`a` and `b` overlap in {int((in_a & in_b & alive).sum())} samples: a configuration "
            "cannot be in both; make them smaller"
        )
    for name, inside in (("a", in_a), ("b", in_b)):
        if not bool((inside & alive).any()):
            raise ValueError(f"`{name}` holds no sample with weight: move or enlarge it")
    if not bool((~in_a & ~in_b & alive).any()):
        raise ValueError(
            "no sample lies between `a` and `b`: the flux rests on them; draw covering samples "
            "(`gencg.discover.covering_samples`) or make the sets smaller"
        )


def _trial(
    s: Tensor, basis: Basis, a: Region, b: Region
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The guess q0 ``(n,)``, its gradient, and functions that vanish on both sets, with theirs."""
    (u, du), (v, dv) = (_positive(*region(s)) for region in (a, b))
    total = (u + v).clamp_min(1e-12)
    q0 = u / total
    dq0 = (v[:, None] * du - u[:, None] * dv) / total[:, None].square()
    hat, dhat = 4 * q0 * (1 - q0), 4 * (1 - 2 * q0)[:, None] * dq0
    values, gradients = basis(s)
    values = torch.cat([torch.ones_like(values[:, :1]), values], 1)
    gradients = torch.cat([torch.zeros_like(gradients[:, :1]), gradients], 1)
    slopes = hat[:, None, None] * gradients + values[..., None] * dhat[:, None]
    return q0, dq0, hat[:, None] * values, slopes


def _positive(level: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    outside = level > 0
    return torch.where(outside, level, 0.0).double(), torch.where(
        outside[:, None], gradient, 0.0
    ).double()


def _moments(
    samples: SoftSamples, index: Tensor, basis: Basis, a: Region, b: Region
) -> tuple[Tensor, ...]:
    q0, dq0, h, dh = _trial(samples.s[index], basis, a, b)
    w, metric = samples.weights[index].double(), samples.metric[index].double()
    flow = torch.einsum("n,nij,nj->ni", w, metric, dq0)
    weighted = torch.einsum("n,nij,nfj->nfi", w, metric, dh)
    form = weighted.permute(0, 2, 1).flatten(0, 1).T @ dh.permute(0, 2, 1).flatten(0, 1)
    first, cross = (flow * dq0).sum(), torch.einsum("ni,nfi->f", flow, dh)
    return first, cross, form, w.sum(), w @ q0, w @ h


def _least(form: Tensor, cross: Tensor) -> Tensor:
    """Coefficients of least form; directions in which nothing varies are left out."""
    scale = form.diagonal().clamp_min(1e-300).rsqrt()
    scale = torch.where(form.diagonal() > 1e-300, scale, 0.0)
    values, directions = torch.linalg.eigh(scale[:, None] * form * scale)
    kept = values > 1e-9 * values[-1]
    projected = directions[:, kept].T @ (scale * cross)
    return -scale * (directions[:, kept] @ (projected / values[kept]))


def _value(first: Tensor, cross: Tensor, form: Tensor, c: Tensor) -> Tensor:
    return first + 2 * cross @ c + c @ form @ c


def _held_out(
    first: Tensor,
    cross: Tensor,
    form: Tensor,
    mass: Tensor,
    solve: Callable[[Tensor], tuple[Tensor, float]],
    n_folds: int = 4,
) -> float:
    """The form on each fold of the blocks with the coefficients of the other folds."""
    total = 0.0
    fold = torch.arange(len(mass)) % n_folds
    for k in range(n_folds):
        c, _ = solve((fold != k).double())
        mine = fold == k
        total += float(_value(first[mine].sum(), cross[mine].sum(0), form[mine].sum(0), c))
    return total / float(mass.sum())


def _evaluate(
    samples: SoftSamples, basis: Basis, a: Region, b: Region, c: Tensor
) -> tuple[Tensor, Tensor]:
    """q at the samples and each one's part in the form."""
    values, carried = [], []
    for index in _blocks(len(samples.s), 40):
        q0, dq0, h, dh = _trial(samples.s[index], basis, a, b)
        slope = dq0 + torch.einsum("nfi,f->ni", dh, c)
        values.append(q0 + h @ c)
        carried.append(
            samples.weights[index].double()
            * torch.einsum("ni,nij,nj->n", slope, samples.metric[index].double(), slope)
        )
    return torch.cat(values), torch.cat(carried)


def _blocks(n: int, n_blocks: int) -> list[Tensor]:
    return list(torch.arange(n).chunk(n_blocks))


def _tensors(module: object) -> Iterator[Tensor]:
    if isinstance(module, nn.Module):
        yield from module.parameters()
        yield from module.buffers()
