"""Slow functions of smooth collective variables, by the Dirichlet quotient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencg.distributions.networks import MLP
from gencg.models.cv_map import CollectiveMap
from gencg.objectives.dirichlet import (
    Basis,
    FourierBasis,
    KernelBasis,
    SoftSamples,
    Spectrum,
    carre_du_champ,
    spectrum,
)
from gencg.objectives.products import own_processes


class SlowFunctions(nn.Module):
    r"""Functions :math:`g(\xi(s))` of the collective variables.

    The map :math:`\xi` is smooth; the heads g may be sharp, a step between two states.

    Args:
        cv_map: Smooth map of the soft coordinates; see `CollectiveMap`.
        heads: Module from :math:`\xi` ``(n, n_cvs)`` to ``(n, m)``.
    """

    def __init__(self, cv_map: CollectiveMap, heads: nn.Module) -> None:
        super().__init__()
        self.map = cv_map
        self.heads = heads

    def forward(self, s: Tensor) -> Tensor:
        """Functions ``(n, m)`` of soft coordinates ``(n, k)``."""
        xi, _ = self.map(s)
        return self.of_cvs(xi)

    def of_cvs(self, xi: Tensor) -> Tensor:
        """Functions ``(n, m)`` of collective variables ``(n, n_cvs)``."""
        out: Tensor = self.heads(xi)
        return out


class NetworkHeads(nn.Module):
    """A tanh network of the CVs, for training the map; see `train_cv_map`."""

    def __init__(
        self, cv_map: CollectiveMap, n_functions: int, *, hidden: Sequence[int] = (48, 48)
    ) -> None:
        super().__init__()
        self.features = cv_map.features
        d = cv_map.n_cvs
        n_in = 4 * d if cv_map.periodic else d
        self.net = MLP(n_in, n_functions, hidden=hidden, activation=nn.Tanh)
        last = self.net.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.xavier_normal_(last.weight)

    def forward(self, xi: Tensor) -> Tensor:
        out: Tensor = self.net(self.features(xi))
        return out


class SpectralHeads(nn.Module):
    """Eigenfunctions in a linear basis of the CVs, of mean 0 and variance 1."""

    vectors: Tensor
    centre: Tensor

    def __init__(self, basis: Basis, vectors: Tensor, centre: Tensor) -> None:
        super().__init__()
        self.basis = basis
        self.register_buffer("vectors", vectors.double())
        self.register_buffer("centre", centre.double())

    def forward(self, xi: Tensor) -> Tensor:
        values, _ = self.basis(xi)
        return ((values - self.centre) @ self.vectors).to(xi.dtype)


def cv_samples(cv_map: CollectiveMap, samples: SoftSamples) -> SoftSamples:
    r"""The collective variables as coordinates of their own, with metric :math:`J G J^T`."""
    parts = []
    for index in torch.arange(len(samples.s)).split(20_000):  # type: ignore[no-untyped-call]
        s = samples.s[index].to(cv_map.matrix).requires_grad_()
        with torch.enable_grad():
            xi, _ = cv_map(s)
            slopes = [
                torch.autograd.grad(xi[:, i].sum(), s, retain_graph=True)[0]
                for i in range(xi.shape[1])
            ]
        parts.append((xi.detach().double(), torch.stack(slopes, dim=1).double()))
    xi, jacobian = (torch.cat(part) for part in zip(*parts, strict=True))
    metric = jacobian @ samples.metric.double() @ jacobian.mT
    return SoftSamples(xi, metric, samples.log_weights, samples.periodic)


def head_basis(samples: SoftSamples) -> Basis:
    """The basis of the heads: harmonics on the torus (8 of one angle, 6 of two with their
    products, 2 of more), kernels on the line."""
    d = samples.n_soft
    if samples.periodic:
        return FourierBasis(torch.eye(d), order={1: 8, 2: 6}.get(d, 2))
    return KernelBasis.around(samples, n_centres=60 if d == 1 else 150)


def solve_heads(
    cv_map: CollectiveMap,
    samples: SoftSamples,
    held_out: SoftSamples,
    n_functions: int,
    *,
    basis: Basis | None = None,
    n_modes: int = 8,
    n_bootstraps: int = 100,
    min_population: float = 0.0,
) -> tuple[SlowFunctions, Spectrum, Tensor]:
    r"""The slowest functions of given collective variables, an eigenproblem without training.

    Args:
        cv_map: The CV map.
        samples: Samples to solve on.
        held_out: Samples to evaluate the quotient on.
        n_functions: Number of functions kept.
        basis: Functions of the CVs; by default `head_basis`.
        n_modes: Number of eigenvalues reported.
        n_bootstraps: Resamplings for their errors.
        min_population: Processes that move less are passed over for the functions.

    Returns:
        Functions, their spectrum on `samples`, and the eigenvalues within their span on
        `held_out`, ``(n_functions,)``: no better than chance where they were overfitted.

    Raises:
        ValueError: If every process moves less than `min_population`.
    """
    inner = cv_samples(cv_map, samples)
    basis = basis or head_basis(inner)
    found = spectrum(inner, basis, n_modes=n_modes, n_bootstraps=n_bootstraps)
    wanted = own_processes(found, inner, min_population).nonzero()[:n_functions, 0]
    if not len(wanted):
        raise ValueError(f"no process of these samples moves `min_population` {min_population:g}")
    heads = SpectralHeads(basis, found.vectors[:, wanted], found.centre)
    outer = cv_samples(cv_map, held_out)
    values, gradients = basis(outer.s)
    f = (values - found.centre) @ heads.vectors
    slopes = torch.einsum("nbk,bm->nmk", gradients, heads.vectors)
    return SlowFunctions(cv_map, heads), found, ritz_values(f, slopes, outer)


def ritz_values(f: Tensor, slopes: Tensor, samples: SoftSamples) -> Tensor:
    """Eigenvalues of the Dirichlet form within the span of functions ``(n, m)``, ascending."""
    covariance, dirichlet = _matrices(f.double(), slopes.double(), samples)
    values, directions = torch.linalg.eigh(covariance)
    whitening = directions * values.clamp_min(1e-14 * float(values[-1])).rsqrt()
    eigenvalues: Tensor = torch.linalg.eigvalsh(whitening.T @ dirichlet @ whitening)
    return eigenvalues


@dataclass(frozen=True)
class SlowModes:
    r"""Loss whose minimum are the slowest functions: the sum of the Ritz eigenvalues.

    .. math:: L = \mathrm{tr}\big(C^{-1} A\big)\,(1 + a R), \quad
              C_{ij} = \mathrm{cov}_p(f_i, f_j),
              \quad A_{ij} = E_p[\nabla f_i^T G\, \nabla f_j]

    with :math:`R` the relative variance of the speed :math:`\nabla\xi^T G\, \nabla\xi`, which
    keeps the collective variables near unit speed while the heads become sharp.

    Args:
        unit_speed: Weight a of the speed term.
        rate: If given, :math:`L = \sum_k \lambda_k / (\lambda_k + \lambda_0)` with this
            :math:`\lambda_0` in place of the sum: where there are fewer CVs than processes the sum
            would give up the slowest for two fast ones.

    References:
        | VAMPnets (Mardt et al., 2018), https://arxiv.org/abs/1710.06012, for the whitening
        | Ky Fan's theorem for the sum of the lowest eigenvalues
    """

    unit_speed: float = 0.3
    rate: float | None = None

    def __call__(self, functions: SlowFunctions, samples: SoftSamples) -> Tensor:
        """Loss on a batch of samples, a differentiable scalar."""
        s = samples.s.to(functions.map.matrix).detach().requires_grad_()
        xi, _ = functions.map(s)
        f = functions.of_cvs(xi)
        covariance, dirichlet = _matrices(f, _slopes(f, s), samples)
        ridge = 1e-5 * covariance.diagonal().mean() * torch.eye(len(covariance)).to(f)
        if self.rate is None:
            loss: Tensor = torch.linalg.solve(covariance + ridge, dirichlet).trace()
        else:
            # The ridge in the denominator alone: what hardly varies is as bad as what is fast
            whole = covariance + ridge + dirichlet / self.rate
            loss = len(covariance) - torch.linalg.solve(whole, covariance).trace()
        if self.unit_speed and len(functions.map.steps):
            loss = loss * (1 + self.unit_speed * _speed_variance(xi, s, samples))
        return loss


def train_cv_map(
    cv_map: CollectiveMap,
    n_functions: int,
    samples: SoftSamples,
    held_out: SoftSamples,
    *,
    loss: SlowModes | None = None,
    n_steps: int = 600,
    batch_size: int = 8192,
    learning_rate: float = 5e-3,
    patience: int = 10,
    seed: int = 0,
) -> None:
    """Bend a CV map so that its functions are slow; stop where held-out samples say so.

    Args:
        cv_map: Trained in place, with network heads that are dropped afterwards.
        n_functions: Number of slow functions that count.
        samples: Training samples.
        held_out: Samples that decide when to stop.
        loss: The loss.
        n_steps: Steps at most.
        batch_size: Samples per step, drawn without regard to weight.
        learning_rate: Adam's rate, falling along a cosine.
        patience: Checks (every 25 steps) without improvement before stopping.
        seed: Seed of heads and batches.
    """
    loss = loss or SlowModes()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        functions = SlowFunctions(cv_map, NetworkHeads(cv_map, n_functions))
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(functions.parameters(), lr=learning_rate)
    best, best_state, since = math.inf, _copy(functions), 0
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        batch = samples.take(torch.randperm(len(samples.s), generator=generator)[:batch_size])
        optimiser.zero_grad(set_to_none=True)
        value = loss(functions, batch)
        if torch.isfinite(value):
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(functions.parameters(), 10.0)
            optimiser.step()
        if step % 25 == 24:
            score, since = float(loss(functions, held_out).detach()), since + 1
            if score < best * (1 - 1e-3):
                best, best_state, since = score, _copy(functions), 0
            if since >= patience:
                break
    functions.load_state_dict(best_state)


def _matrices(f: Tensor, slopes: Tensor, samples: SoftSamples) -> tuple[Tensor, Tensor]:
    """Covariance and Dirichlet form of functions ``(n, m)`` with slopes ``(n, m, k)``."""
    weights, metric = samples.weights.to(f), samples.metric.to(f)
    centred = f - (weights[:, None] * f).sum(0)
    covariance = (weights[:, None] * centred).T @ centred
    return covariance, torch.einsum("n,nai,nij,nbj->ab", weights, slopes, metric, slopes)


def _slopes(f: Tensor, s: Tensor) -> Tensor:
    """Gradients ``(n, m, k)`` of functions ``(n, m)``, differentiable."""
    rows = [torch.autograd.grad(f[:, i].sum(), s, create_graph=True)[0] for i in range(f.shape[1])]
    return torch.stack(rows, dim=1)


def _speed_variance(xi: Tensor, s: Tensor, samples: SoftSamples) -> Tensor:
    """Relative weighted variance of the speed of the collective variables."""
    speed = carre_du_champ(_slopes(xi, s), samples.metric)
    weights = samples.weights.to(speed)[:, None]
    mean = (weights * speed).sum(0)
    variance: Tensor = (weights * (speed / mean - 1).square()).sum(0).mean()
    return variance


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}
