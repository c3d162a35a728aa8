"""Slow functions as networks of smooth collective variables, by the Dirichlet quotient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencg.distributions.networks import MLP
from gencg.models.cv_map import CollectiveMap
from gencg.objectives.dirichlet import SoftSamples, carre_du_champ


class SlowFunctions(nn.Module):
    r"""Functions :math:`f = W^T (g(\xi(s)) - c)` of the collective variables.

    The map :math:`\xi` is smooth; the heads g are networks that may be sharp, a step between two
    states. W and c make the functions orthonormal under the weights they were `normalise`-d with.

    Args:
        cv_map: Smooth map of the soft coordinates; see `CollectiveMap`.
        n_functions: Number m of slow functions.
        hidden: Hidden widths of the heads.
    """

    centre: Tensor
    rotation: Tensor

    def __init__(
        self, cv_map: CollectiveMap, n_functions: int, *, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        self.map = cv_map
        d = cv_map.n_cvs
        self.heads = MLP(
            4 * d if cv_map.periodic else d, n_functions, hidden=hidden, activation=nn.Tanh
        )
        last = self.heads.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.xavier_normal_(last.weight)
        self.register_buffer("centre", torch.zeros(n_functions))
        self.register_buffer("rotation", torch.eye(n_functions))

    def forward(self, s: Tensor) -> Tensor:
        """Functions ``(n, m)`` of soft coordinates ``(n, k)``."""
        xi, _ = self.map(s)
        return self.of_cvs(xi)

    def of_cvs(self, xi: Tensor) -> Tensor:
        """Functions ``(n, m)`` of collective variables ``(n, n_cvs)``."""
        out: Tensor = (self.heads(self.map.features(xi)) - self.centre) @ self.rotation
        return out

    def with_slopes(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Functions ``(n, m)`` and their gradients ``(n, m, k)`` in s, both differentiable."""
        with torch.enable_grad():
            s = s.detach().requires_grad_()
            f = self(s)
            slopes = [
                torch.autograd.grad(f[:, i].sum(), s, create_graph=True)[0]
                for i in range(f.shape[1])
            ]
        return f, torch.stack(slopes, dim=1)

    def normalise(self, samples: SoftSamples) -> Tensor:
        """Make the functions eigenfunctions within their span; returns the eigenvalues ``(m,)``."""
        eigenvalues, vectors, mean = _ritz(*self._numbers(samples))
        with torch.no_grad():
            centre = mean.to(self.centre)
            inverse = torch.linalg.inv(self.rotation)
            self.centre += centre @ inverse
            self.rotation.copy_(self.rotation @ vectors.to(self.rotation))
        return eigenvalues

    def quotient(self, samples: SoftSamples) -> Tensor:
        """Eigenvalues within the span on other samples, ``(m,)``, for instance held-out ones."""
        return _ritz(*self._numbers(samples))[0]

    def _numbers(self, samples: SoftSamples) -> tuple[Tensor, Tensor, SoftSamples]:
        f, slopes = self.with_slopes(samples.s.to(self.centre))
        return f.detach().double(), slopes.detach().double(), samples


def _ritz(f: Tensor, slopes: Tensor, samples: SoftSamples) -> tuple[Tensor, Tensor, Tensor]:
    weights = samples.weights.double()
    mean = (weights[:, None] * f).sum(0)
    centred = f - mean
    covariance = (weights[:, None] * centred).T @ centred
    dirichlet = dirichlet_matrix(slopes, samples)
    values, directions = torch.linalg.eigh(covariance)
    whitening = directions * values.clamp_min(1e-14 * float(values[-1])).rsqrt()
    eigenvalues, vectors = torch.linalg.eigh(whitening.T @ dirichlet @ whitening)
    vectors = whitening @ vectors
    skewness = (weights[:, None] * (centred @ vectors) ** 3).sum(0)
    return eigenvalues, vectors * torch.where(skewness < 0, -1.0, 1.0), mean


def dirichlet_matrix(slopes: Tensor, samples: SoftSamples) -> Tensor:
    r""":math:`E_p[\nabla f_i^T G\, \nabla f_j]`, ``(m, m)``."""
    weights, metric = samples.weights.to(slopes), samples.metric.to(slopes)
    return torch.einsum("n,nai,nij,nbj->ab", weights, slopes, metric, slopes)


@dataclass(frozen=True)
class SlowModes:
    r"""Loss whose minimum are the slowest functions: the sum of the Ritz eigenvalues.

    .. math:: L = \mathrm{tr}\big(C^{-1} A\big) + a\, R, \quad C_{ij} = \mathrm{cov}_p(f_i, f_j),
              \quad A_{ij} = E_p[\nabla f_i^T G\, \nabla f_j]

    with :math:`R` the relative variance of the speed :math:`\nabla\xi^T G\, \nabla\xi`, which
    keeps the collective variables near unit speed while the heads become sharp.

    Args:
        unit_speed: Weight a of the speed term.

    References:
        | Ky Fan's theorem; Koopman and generator versions: VAMPnets (Mardt et al., 2018),
          https://arxiv.org/abs/1710.06012; Zhang et al., Solving eigenvalue PDEs of
          metastable diffusion processes (2022)
    """

    unit_speed: float = 1.0

    def __call__(self, functions: SlowFunctions, samples: SoftSamples) -> Tensor:
        """Loss on a batch of samples, a differentiable scalar."""
        f, slopes = functions.with_slopes(samples.s.to(functions.centre))
        weights = samples.weights.to(f)
        centred = f - (weights[:, None] * f).sum(0)
        covariance = (weights[:, None] * centred).T @ centred
        ridge = 1e-5 * covariance.diagonal().mean() * torch.eye(len(covariance)).to(f)
        rates = torch.linalg.solve(covariance + ridge, dirichlet_matrix(slopes, samples))
        loss: Tensor = rates.trace()
        if self.unit_speed and len(functions.map.steps):
            loss = loss * (1 + self.unit_speed * _speed_variance(functions.map, samples))
        return loss


def _speed_variance(cv_map: CollectiveMap, samples: SoftSamples) -> Tensor:
    """Relative weighted variance of the speed matrix of the collective variables."""
    s = samples.s.to(cv_map.matrix).requires_grad_()
    xi, _ = cv_map(s)
    slopes = [
        torch.autograd.grad(xi[:, i].sum(), s, create_graph=True)[0] for i in range(xi.shape[1])
    ]
    speed = carre_du_champ(torch.stack(slopes, dim=1), samples.metric)
    weights = samples.weights.to(speed)[:, None]
    mean = (weights * speed).sum(0)
    variance: Tensor = (weights * (speed / mean - 1).square()).sum(0).mean()
    return variance


def train_slow_functions(
    functions: SlowFunctions,
    samples: SoftSamples,
    held_out: SoftSamples,
    *,
    loss: SlowModes | None = None,
    n_steps: int = 800,
    batch_size: int = 8192,
    learning_rate: float = 3e-3,
    patience: int = 8,
    seed: int = 0,
) -> Tensor:
    """Minimise the quotient; stop and go back where it no longer falls on held-out samples.

    Args:
        functions: Trained in place, and normalised on all samples at the end.
        samples: Training samples.
        held_out: Samples that decide when to stop.
        loss: The loss.
        n_steps: Steps at most.
        batch_size: Samples per step, drawn without regard to weight.
        learning_rate: Adam's rate, falling along a cosine.
        patience: Checks (every 25 steps) without improvement before stopping.
        seed: Seed of the batches.

    Returns:
        Eigenvalues on the held-out samples, ``(m,)``.
    """
    loss = loss or SlowModes()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(functions.parameters(), lr=learning_rate)
    best, best_state, since = math.inf, _copy(functions), 0
    n = len(samples.s)
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        batch = samples.take(torch.randperm(n, generator=generator)[:batch_size])
        optimiser.zero_grad(set_to_none=True)
        value = loss(functions, batch)
        if torch.isfinite(value):
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(functions.parameters(), 10.0)
            optimiser.step()
        if step % 25 == 24:
            score = float(functions.quotient(held_out).sum())
            since = since + 1
            if score < best * (1 - 1e-3):
                best, best_state, since = score, _copy(functions), 0
            if since >= patience:
                break
    functions.load_state_dict(best_state)
    functions.normalise(samples)
    return functions.quotient(held_out)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in module.state_dict().items()}
