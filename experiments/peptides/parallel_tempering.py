"""Parallel tempering with Hamiltonian Monte Carlo in internal coordinates, many ladders at once."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.peptides.replicas import Counts, Replicas, slopes_of, taken
from gencg.systems import System
from gencg.units import inverse_temperature, temperature_of

TARGET_ACCEPTANCE = 0.8
"""Acceptance to which the step sizes are tuned."""
CANDIDATES = 64
"""Random torsions from which each start takes those of lowest energy."""


class ParallelTempering:
    r"""Independent ladders of replicas; a sweep leaves the distribution of each rung exact.

    Rung k has, in internal coordinates y,

    .. math:: \pi_k(y) \propto e^{-\beta_k U(x(y))} \, |\det \partial x / \partial y|,
              \qquad x(y) \text{ valid.}

    `CoordinateMap.valid` keeps the handedness and the double bonds of the molecule: a trajectory
    that ends elsewhere is turned down and counted. A sweep is one trajectory of Hamiltonian Monte
    Carlo per replica and the exchanges of every other pair of neighbours, even and odd pairs in
    turn.

    In y a constant mass matrix does what it cannot in x, because a stiff direction stays where it
    is. It is the mean curvature of each rung, :math:`M_k = E[g g^T] = E[\nabla g]` with
    :math:`g = -\nabla \log \pi_k`: all modes then have a frequency of about one, and a few
    leapfrog steps are a quarter of a turn of all of them.

    `tune` chooses masses, steps and temperatures from what it sees; `sweep` changes none of them.

    Args:
        system: Energy and coordinates.
        temperatures: In K, rising. The coldest may come several times and then gets that much
            more of the samples.
        n_ladders: Independent ladders.
        n_steps: Leapfrog steps of a trajectory.
        seed: Of all that is random.

    Raises:
        ValueError: If the temperatures do not rise, or a number is not positive.

    References:
        | Hybrid Monte Carlo (Duane et al., 1987), https://doi.org/10.1016/0370-2693(87)91197-X
        | Exchange Monte Carlo method and application to spin glass simulations (Hukushima and
          Nemoto, 1996), https://arxiv.org/abs/cond-mat/9512035
        | Non-reversible parallel tempering (Syed et al., 2022), https://arxiv.org/abs/1905.02939
    """

    def __init__(
        self,
        system: System,
        temperatures: Sequence[float],
        *,
        n_ladders: int = 256,
        n_steps: int = 4,
        seed: int = 0,
    ) -> None:
        self.n_cold = check_temperatures(temperatures)
        for name, value in (("n_ladders", n_ladders), ("n_steps", n_steps)):
            if value < 1:
                raise ValueError(f"`{name}` must be positive, got {value}")
        n_rungs, coordinates = len(temperatures), system.coordinates
        self.system, self.n_steps = system, n_steps
        betas = [inverse_temperature(t) for t in temperatures]
        self.beta = torch.tensor(betas, dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(seed)
        self.n_sweeps = 0
        self.step = torch.full((n_rungs,), 0.02, dtype=torch.float32)
        self.spread = torch.diag(coordinates.scale.clamp(max=0.3).float()).repeat(n_rungs, 1, 1)
        # A folded rotor comes back to its labels after n turns of its phase
        self.turn = (2 * torch.pi * coordinates.fold).float()
        self.walker_heads = torch.zeros(n_rungs, n_ladders, dtype=torch.long)
        self.counts = Counts.none(n_rungs)
        self._slopes = slopes_of(system)
        self.replicas = self._evaluate(self._starts(n_rungs, n_ladders))[0]

    def __repr__(self) -> str:
        n_rungs, n_ladders = self.replicas.energy.shape
        return f"ParallelTempering({self.system.name}, {n_ladders} ladders of {n_rungs} rungs)"

    @property
    def temperatures(self) -> list[float]:
        """Temperature of each rung in K."""
        return [temperature_of(beta) for beta in self.beta.tolist()]

    # --- Sampling -------------------------------------------------------------------------------

    def sweep(self) -> Tensor:
        """A trajectory of every replica, then exchanges; returns the force before, to tune by."""
        force = self._slope(self.replicas)
        self._move()
        self._exchange(self.n_sweeps % 2)
        self.n_sweeps += 1
        self.counts.sweeps += 1
        return force

    def _move(self) -> None:
        """Hamiltonian Monte Carlo with fresh momenta; the step is jittered by up to a fifth."""
        now = new = self.replicas
        beta = self.beta.float()[:, None]
        jitter = 0.8 + 0.4 * torch.rand((), generator=self.generator, dtype=torch.float32)
        step = (self.step * jitter)[:, None, None]
        v = torch.randn(now.y.shape, generator=self.generator, dtype=torch.float32)
        before = -beta * now.energy + now.log_det - 0.5 * (v * v).sum(-1)
        v = v + 0.5 * step * (self._slope(new) @ self.spread)
        for kick in [1.0] * (self.n_steps - 1) + [0.5]:
            new, x = self._evaluate(new.y + step * (v @ self.spread.mT))
            v = v + kick * step * (self._slope(new) @ self.spread)
        after = -beta * new.energy + new.log_det - 0.5 * (v * v).sum(-1)
        u = torch.rand(before.shape, generator=self.generator, dtype=torch.float32)
        # Nothing is below a nan
        passed = u.log() < after - before
        valid = self.system.coordinates.valid(x).reshape(passed.shape)
        accept = passed & valid
        self.replicas = new.each(
            lambda a, b: torch.where(accept if a.ndim == 2 else accept[..., None], a, b), now
        )
        self.counts.accepted += accept.double().mean(1)
        self.counts.outside += (passed & ~valid).double().mean(1)

    def _exchange(self, parity: int) -> None:
        r"""Swap rungs k, k+1 with probability min(1, exp((beta_k - beta_k+1) (U_k - U_k+1)))."""
        n_rungs, n_ladders = self.replicas.energy.shape
        k = torch.arange(parity, n_rungs - 1, 2)
        u = torch.rand(len(k), n_ladders, generator=self.generator, dtype=torch.float32)
        gap = self.replicas.energy[k] - self.replicas.energy[k + 1]
        swap = u.log() < (self.beta[k] - self.beta[k + 1]).float()[:, None] * gap
        source = torch.arange(n_rungs)[:, None].repeat(1, n_ladders)
        source[k] += swap.long()
        source[k + 1] -= swap.long()
        self.replicas = self.replicas.each(lambda a: taken(a, source))
        self._count_round_trips(source)
        self.counts.exchanged[k] += swap.double().mean(1)
        self.counts.tried[k] += 1

    def _count_round_trips(self, source: Tensor) -> None:
        """Walkers head up (1) once they were coldest, down (-1) once they then were hottest."""
        heads = taken(self.walker_heads, source)
        self.counts.round_trips += int((heads[0] == -1).sum())
        heads[0] = 1
        heads[-1] = -heads[-1].abs()
        self.walker_heads = heads

    def _slope(self, replicas: Replicas) -> Tensor:
        """Gradient of log pi_k in y."""
        return replicas.log_det_slope - self.beta.float()[:, None, None] * replicas.energy_slope

    def _evaluate(self, y: Tensor) -> tuple[Replicas, Tensor]:
        """Replicas at ``y``, ``(n_rungs, n_ladders, dim)``, and all their positions in one row."""
        shape, rows = y.shape[:2], y.detach().flatten(0, 1)
        turns = torch.round(rows / self.turn) * self.system.coordinates.periodic
        rows = rows - turns * self.turn
        x, *values = self._slopes(rows)
        return Replicas(*(v.reshape(*shape, *v.shape[1:]) for v in (rows, *values))), x

    # --- Beginning ------------------------------------------------------------------------------

    def _starts(self, n_rungs: int, n_ladders: int) -> Tensor:
        """Even ladders start at the reference structure, odd ones at random torsions."""
        coordinates = self.system.coordinates
        y = coordinates.centre.float().repeat(n_rungs, n_ladders, 1)
        width = torch.where(coordinates.periodic, torch.pi, coordinates.scale).float()
        random = y[:, 1::2]
        lowest = torch.full(random.shape[:2], torch.inf, dtype=torch.float32)
        for _ in range(CANDIDATES):
            u = 2 * torch.rand(random.shape, generator=self.generator, dtype=torch.float32) - 1
            tried = torch.where(coordinates.soft, u * width, y[:, 1::2])
            energy = self.system.energy(coordinates.inverse(tried)[0])
            random = torch.where((energy < lowest)[..., None], tried, random)
            lowest = torch.minimum(energy, lowest)
        y[:, 1::2] = random
        return y

    def tune(self, n_sweeps: int) -> None:
        """Choose step sizes, masses and temperatures in so many sweeps, which are not samples.

        Three windows, each twice as long as the one before. Step sizes follow the acceptance all
        the time. At the end of a window the temperatures between the ends are moved so that all
        exchanges are equally likely, and, but for the last, the masses become the mean curvature.
        """
        windows = (n_sweeps // 7, 2 * n_sweeps // 7, n_sweeps - 3 * (n_sweeps // 7))
        for number, window in enumerate(windows):
            self.counts = Counts.none(len(self.beta))
            curvature = torch.zeros_like(self.spread)
            for i in range(window):
                before = self.counts.accepted.clone()
                slope = self.sweep()
                curvature += slope.mT @ slope / (window * slope.shape[1])
                excess = self.counts.accepted - before - TARGET_ACCEPTANCE
                self.step *= torch.exp(excess / (1 + 10 * i / window)).float()
            if number < 2:
                self._set_masses(curvature, n_samples=window * slope.shape[1])
            self.beta = respaced(self.beta, self.counts.exchange_rates, n_cold=self.n_cold)
        self.counts = Counts.none(len(self.beta))

    def _set_masses(self, curvature: Tensor, *, n_samples: int) -> None:
        """Make the spread the inverse root of the curvature, so that modes have unit frequency."""
        # Fewer samples than coordinates have no definite matrix: lean on its diagonal
        lean = curvature.shape[-1] / (curvature.shape[-1] + n_samples)
        diagonal = torch.diag_embed(curvature.diagonal(dim1=1, dim2=2))
        factor = torch.linalg.cholesky(((1 - lean) * curvature + lean * diagonal).double())
        eye = torch.eye(factor.shape[-1], dtype=torch.float64).expand_as(factor)
        # M = R R^T, spread = R^-T
        self.spread = torch.linalg.solve_triangular(factor, eye, upper=False).mT.float()
        self.step = torch.full_like(self.step, 0.3)

    # --- Stopping and going on ------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the next sweep depends on, as tensors and plain values."""
        kept = ("beta", "step", "spread", "walker_heads", "n_sweeps")
        return {
            **{name: getattr(self, name) for name in kept},
            "generator": self.generator.get_state(),
            "replicas": vars(self.replicas),
            "counts": vars(self.counts),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        for name in ("beta", "step", "spread", "walker_heads", "n_sweeps"):
            setattr(self, name, state[name])
        self.generator.set_state(state["generator"])
        self.replicas, self.counts = Replicas(**state["replicas"]), Counts(**state["counts"])


def check_temperatures(temperatures: Sequence[float]) -> int:
    """How often the coldest comes.

    Raises:
        ValueError: If they do not rise, but for copies of the coldest, or all are the same.
    """
    t = list(temperatures)
    n_cold = t.count(min(t, default=0.0))
    if len(t) == n_cold or any(a >= b for a, b in pairwise(t[max(n_cold - 1, 0) :])):
        raise ValueError(f"`temperatures` must rise, only the coldest may repeat, got {t}")
    return n_cold


def respaced(beta: Tensor, exchange_rates: Tensor, *, n_cold: int) -> Tensor:
    r"""Inverse temperatures at which all exchanges would be equally likely.

    The rejections of neighbours add up to a barrier :math:`\Lambda(\beta)` that hardly depends on
    the grid; the new grid divides it evenly between the same ends (Syed et al., 2022, alg. 4).

    Args:
        beta: Falling from rung to rung, after copies of the coldest; ``(n_rungs,)``.
        exchange_rates: Between neighbours, ``(n_rungs - 1,)``.
        n_cold: How often the coldest comes.
    """
    ladder = beta[n_cold - 1 :].numpy()
    rejected = (1 - exchange_rates[n_cold - 1 :]).clamp(min=1e-3)
    barrier = np.concatenate([[0.0], np.cumsum(rejected.numpy())])
    even = np.linspace(0.0, barrier[-1], len(barrier))
    new = torch.from_numpy(np.interp(even, barrier, ladder))
    return torch.cat([beta[: n_cold - 1], new])
