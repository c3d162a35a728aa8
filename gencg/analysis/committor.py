"""Committor between two states, by the Dirichlet form of overdamped dynamics."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencg.analysis.metastable import MetastableStates
from gencg.geometry import wrap
from gencg.importance import resample_indices
from gencg.objectives.dirichlet import Basis, SoftSamples

Region = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A set by its level: values ``(n,)`` of s ``(n, k)``, at most 0 inside, and their gradients."""

FOLDS = 4
FEW = 50.0
"""Effective transition samples below which a flux is not to be relied on."""


def ball(centre: Tensor, radius: float, *, periodic: bool) -> Region:
    """The ball of a radius around a point.

    Args:
        centre: The point, ``(k,)``.
        radius: In the units of the coordinates, rad for angles.
        periodic: Whether they are angles, on the torus.
    """

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
        basis: Functions that q is made of, beside the levels of the sets.
        a: The set A.
        b: The set B.
        coefficients: Those of the functions, ``(k,)``.
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
        q0, dq0 = _guess(*self.a(s), *self.b(s))
        h, _ = _trial(q0.double(), dq0.double(), self.basis, s)
        return (q0 + h @ self.coefficients).clamp(0, 1)

    def __repr__(self) -> str:
        doubt = "" if self.n_transition >= FEW else "; too few, do not rely on it"
        return (
            f"Committor(flux={self.flux:.3g} ± {self.error:.1g}, held out {self.held_out:.3g}, "
            f"{self.n_transition:.0f} transition samples{doubt})"
        )


def committor(
    samples: SoftSamples,
    basis: Basis | Sequence[Basis],
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
        basis: The functions :math:`\varphi_k`; a constant is added. Of several bases the one of
            the lowest flux on held-out samples is taken.
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
    levels = [_levels(samples, region) for region in (a, b)]
    _check_regions(samples, *(level for level, _ in levels))
    guess = _guess(*levels[0], *levels[1])
    bases = [basis] if isinstance(basis, Basis) else list(basis)
    solved = [_solve(samples, guess, one, n_blocks) for one in bases]
    best = min(range(len(solved)), key=lambda k: solved[k].held_out)
    found, chosen = solved[best], bases[best]
    values, carried = _evaluate(samples, guess, chosen, found.coefficients)
    return Committor(
        flux=found.flux,
        error=_bootstrap(found, n_bootstraps, seed),
        held_out=found.held_out,
        mean=float(samples.weights.double() @ values),
        n_transition=float(carried.sum() ** 2 / carried.square().sum().clamp_min(1e-300)),
        values=values.clamp(0, 1),
        density=carried / carried.sum().clamp_min(1e-300),
        basis=chosen,
        a=a,
        b=b,
        coefficients=found.coefficients,
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


def _levels(samples: SoftSamples, region: Region) -> tuple[Tensor, Tensor]:
    parts = [region(samples.s[i]) for i in _blocks(len(samples.s), 20)]
    return torch.cat([v.double() for v, _ in parts]), torch.cat([g.double() for _, g in parts])


def _check_regions(samples: SoftSamples, level_a: Tensor, level_b: Tensor) -> None:
    in_a, in_b = level_a <= 0, level_b <= 0
    alive = samples.weights > 0
    both = int((in_a & in_b & alive).sum())
    if both:
        raise ValueError(
            f"`a` and `b` overlap in {both} samples: a configuration cannot be in both; make them "
            "smaller"
        )
    for name, inside in (("a", in_a), ("b", in_b)):
        if not bool((inside & alive).any()):
            raise ValueError(f"`{name}` holds no sample with weight: move or enlarge it")
    if not bool((~in_a & ~in_b & alive).any()):
        raise ValueError(
            "no sample lies between `a` and `b`: the flux rests on them; draw covering samples "
            "(`gencg.discover.covering_samples`) or make the sets smaller"
        )


def _guess(
    level_a: Tensor, slope_a: Tensor, level_b: Tensor, slope_b: Tensor
) -> tuple[Tensor, Tensor]:
    """The guess q0 ``(n,)`` and its gradient ``(n, k)``."""
    u, v = level_a.clamp_min(0), level_b.clamp_min(0)
    du, dv = ((level > 0)[:, None] * slope for level, slope in ((u, slope_a), (v, slope_b)))
    total = (u + v).clamp_min(1e-12)
    return u / total, (v[:, None] * du - u[:, None] * dv) / total[:, None].square()


def _trial(q0: Tensor, dq0: Tensor, basis: Basis, s: Tensor) -> tuple[Tensor, Tensor]:
    """Functions that vanish on both sets, ``(n, f)``, and their gradients ``(n, f, k)``."""
    hat, dhat = 4 * q0 * (1 - q0), 4 * (1 - 2 * q0)[:, None] * dq0
    values, gradients = basis(s)
    values = torch.cat([torch.ones_like(values[:, :1]), values], 1)
    gradients = torch.cat([torch.zeros_like(gradients[:, :1]), gradients], 1)
    slopes = hat[:, None, None] * gradients + values[..., None] * dhat[:, None]
    return hat[:, None] * values, slopes


@dataclass(frozen=True)
class _Solved:
    """Moments of blocks of samples, and the coefficients of the least form."""

    first: Tensor
    cross: Tensor
    form: Tensor
    mass: Tensor
    directions: Tensor
    coefficients: Tensor
    flux: float
    held_out: float


def _solve(
    samples: SoftSamples,
    guess: tuple[Tensor, Tensor],
    basis: Basis,
    n_blocks: int,
) -> _Solved:
    """The least form on all samples, and on each fold of the blocks with the others' solution."""
    weights = samples.weights.double()
    blocks = []
    for i in _blocks(len(weights), n_blocks):
        q0, dq0 = (part[i] for part in guess)
        _, dh = _trial(q0, dq0, basis, samples.s[i])
        weighted = weights[i, None, None] * samples.metric[i].double()
        flow = torch.einsum("nij,nj->ni", weighted, dq0)
        rows = dh.permute(0, 2, 1).flatten(0, 1)
        form = (dh @ weighted).permute(0, 2, 1).flatten(0, 1).T @ rows
        blocks.append(((flow * dq0).sum(), rows.T @ flow.flatten(), form, weights[i].sum()))
    first, cross, form, mass = (torch.stack(part) for part in zip(*blocks, strict=True))
    directions = _directions(form.sum(0))
    every = torch.ones_like(mass)
    c, flux = _least(first, cross, form, mass, every, directions)
    fold, total = torch.arange(len(mass)) % FOLDS, 0.0
    for k in range(FOLDS):
        other, mine = (fold != k).double(), fold == k
        held, _ = _least(first, cross, form, mass, other, directions)
        total += float(_value(first[mine].sum(), cross[mine].sum(0), form[mine].sum(0), held))
    return _Solved(first, cross, form, mass, directions, c, flux, total / float(mass.sum()))


def _directions(form: Tensor) -> Tensor:
    """Directions of form one; those in which nothing varies are left out."""
    diagonal = form.diagonal()
    scale = torch.where(diagonal > 1e-300, diagonal.clamp_min(1e-300).rsqrt(), 0.0)
    values, vectors = torch.linalg.eigh(scale[:, None] * form * scale)
    kept = values > 1e-9 * values[-1]
    directions: Tensor = scale[:, None] * vectors[:, kept] * values[kept].rsqrt()
    return directions


def _least(
    first: Tensor, cross: Tensor, form: Tensor, mass: Tensor, counts: Tensor, directions: Tensor
) -> tuple[Tensor, float]:
    """Coefficients of the least form on counted blocks, and its value; zeros where it is zero."""
    total = (counts * mass).sum().clamp_min(1e-300)
    at_first, at_cross = (counts * first).sum() / total, counts @ cross / total
    at_form = (counts @ form.flatten(1)).reshape(form.shape[1:]) / total
    inner = directions.T @ at_form @ directions
    # A resampling may hold no sample between the sets; weights sum to one, which sets the scale
    ridge = (1e-9 * inner.diagonal().mean()).clamp_min(1e-12) * torch.eye(len(inner))
    c = -directions @ torch.linalg.solve(inner + ridge.to(inner), directions.T @ at_cross)
    return c, float(_value(at_first, at_cross, at_form, c))


def _value(first: Tensor, cross: Tensor, form: Tensor, c: Tensor) -> Tensor:
    return first + 2 * cross @ c + c @ form @ c


def _bootstrap(found: _Solved, n_bootstraps: int, seed: int) -> float:
    """Standard error of the flux over resampled blocks; NaN for fewer than two."""
    generator = torch.Generator().manual_seed(seed)
    n, parts = len(found.mass), (found.first, found.cross, found.form, found.mass)
    draws = []
    for _ in range(n_bootstraps):
        drawn = torch.randint(n, (n,), generator=generator)
        counts = torch.bincount(drawn, minlength=n).double()
        draws.append(_least(*parts, counts, found.directions)[1])
    return float(torch.tensor(draws).std()) if n_bootstraps > 1 else math.nan


def _evaluate(
    samples: SoftSamples, guess: tuple[Tensor, Tensor], basis: Basis, c: Tensor
) -> tuple[Tensor, Tensor]:
    """q at the samples and each one's part in the form."""
    values, carried, weights = [], [], samples.weights.double()
    for i in _blocks(len(samples.s), 40):
        q0, dq0 = (part[i] for part in guess)
        h, dh = _trial(q0, dq0, basis, samples.s[i])
        slope = dq0 + torch.einsum("nfi,f->ni", dh, c)
        values.append(q0 + h @ c)
        flow = torch.einsum("nij,nj->ni", samples.metric[i].double(), slope)
        carried.append(weights[i] * (slope * flow).sum(1))
    return torch.cat(values), torch.cat(carried)


def _blocks(n: int, n_blocks: int) -> list[Tensor]:
    return list(torch.arange(n).chunk(n_blocks))


def _tensors(module: object) -> Iterator[Tensor]:
    if isinstance(module, nn.Module):
        yield from module.parameters()
        yield from module.buffers()
