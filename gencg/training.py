"""Training step by step: what the next step needs, what the log wants, and the step itself."""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gencg import parallel
from gencg.distributions.networks import multiplies_bfloat16, products_in
from gencg.guard import Standing, has_lost_ground
from gencg.importance import effective_sample_size
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import TwoBlockDecoder
from gencg.objectives.base import Evaluation, Objective
from gencg.optimisers import MuonAdam
from gencg.target import BoltzmannTarget
from gencg.tempering import TemperingSchedule, TemperingState
from gencg.units import temperature_of

logger = logging.getLogger("gencg")

N_RUNGS = 64
"""How many batches of the ladder are kept for the analysis of hot samples."""
SNAPSHOTS = (3.0, 2.0, 1.4)
"""Temperature factors at which the soft block is kept: a hot flow that crosses barriers."""
MAX_SKIPPED = 20
"""Steps in a row with a gradient that is not finite before the last good state is restored."""
MAX_WORSE = 20
"""Steps in a row that lose ground (`has_lost_ground`) before the last good state is restored."""
MAX_RESTORED = 5
"""Restorations before a run without finite gradients stops, and lost ground is let go."""
RATE_DOUBLES = 1 / 8
"""Share of the run in which a rate that was halved doubles again."""
PRECISIONS = ("auto", "float32", "bfloat16")
OPTIMISERS = ("muon", "adam")
MAX_BROKEN = 0.5
"""Share of a batch that may be not finite; beyond it for `MAX_SKIPPED` steps the run stops."""


class TrainingError(ValueError):
    """Training cannot go on; the message says why and where the last good state is."""


@dataclass(frozen=True)
class StepInfo:
    """The log line of one step; energies in kJ/mol, temperature in K, beta in mol/kJ.

    Args:
        step: Steps done.
        n_steps: Steps of the whole run.
        beta: Inverse temperature of this step.
        temperature: The same as a temperature.
        loss: The objective.
        ess: Effective sample size of the batch at this temperature, as a fraction.
        energy_calls: Energies computed so far, all of them.
        gradient_calls: Gradients computed so far.
        gradient_norm: Norm before clipping.
        learning_rate: Rate of this step.
        n_compressed: Samples with a compressed energy.
        n_dropped: Worst samples left out.
        n_invalid: Samples that were not finite.
        seconds: Wall time so far, over all resumes.
        n_restored: How often the last good state was restored so far.
    """

    step: int
    n_steps: int
    beta: float
    temperature: float
    loss: float
    ess: float
    energy_calls: int
    gradient_calls: int
    gradient_norm: float
    learning_rate: float
    n_compressed: int
    n_dropped: int
    n_invalid: int
    seconds: float
    n_restored: int = 0


Reporter = Callable[[StepInfo], None]


@dataclass(frozen=True)
class Rung:
    """Samples of the model at one temperature of the ladder.

    Args:
        beta: Inverse temperature in mol/kJ.
        y: Coordinates, ``(n, dim)``.
        energy: Energies in kJ/mol, ``(n,)``.
        log_weights: Log importance weights at `beta`, ``(n,)``.
    """

    beta: float
    y: Tensor
    energy: Tensor
    log_weights: Tensor


@dataclass(frozen=True)
class Optimisation:
    """How the parameters move.

    Args:
        learning_rate: Rate after warm-up; it falls to zero along a cosine.
        warm_up: Steps over which the rate rises linearly.
        max_gradient_norm: Gradients are clipped to this norm.
        averaging: Share of the steps done over which parameters are averaged (exponentially);
            the average is the model that is returned.
        precision: Of the networks' matrix products while training: "float32", "bfloat16", or
            "auto", which is bfloat16 where the processor multiplies it faster. After training
            all is computed in the model's own dtype.
        optimiser: "muon" (`MuonAdam`) or "adam", whose best rate is about a third.
    """

    learning_rate: float = 3e-3
    warm_up: int = 200
    max_gradient_norm: float = 10.0
    averaging: float = 0.01
    precision: str = "auto"
    optimiser: str = "muon"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"`learning_rate` must be positive, got {self.learning_rate}")
        if self.warm_up < 0:
            raise ValueError(f"`warm_up` must not be negative, got {self.warm_up}")
        if not self.max_gradient_norm > 0:
            raise ValueError(f"`max_gradient_norm` must be positive, got {self.max_gradient_norm}")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"`averaging` must lie in [0, 1), got {self.averaging}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"`precision` must be one of {PRECISIONS}, got {self.precision!r}")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"`optimiser` must be one of {OPTIMISERS}, got {self.optimiser!r}")

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a model's parameters."""
        if self.optimiser == "adam":
            return torch.optim.Adam(model.parameters(), lr=self.learning_rate, fused=True)
        return MuonAdam(model, lr=self.learning_rate)

    def products(self, parameter: Tensor) -> torch.dtype | None:
        """Dtype of the matrix products with parameters like this one; None for its own."""
        wanted = self.precision == "bfloat16"
        if self.precision == "auto":
            wanted = parameter.dtype == torch.float32 and multiplies_bfloat16(parameter.device)
        return torch.bfloat16 if wanted else None

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of a step counted from zero."""
        rise = min(1.0, (step + 1) / max(self.warm_up, 1))
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / n_steps))


@dataclass
class TrainingState:
    """What the next step needs; saved whole, it is the checkpoint.

    Args:
        model: The model under training.
        average: Its averaged twin.
        optimiser: Moves the parameters of `model`.
        beta: Inverse temperature of the next step.
        seed: Seed of the run; step k draws from a stream of its own, made of seed and k.
        n_steps: Length of the run.
        settings: Plain values that decide the course of training; a checkpoint of others is
            refused.
        step: Steps done.
        energy_calls: Energies computed.
        gradient_calls: Gradients computed.
        seconds: Wall time.
        n_skipped: Steps in a row that were skipped.
        n_broken: Steps in a row of which most samples were not finite.
        n_worse: Steps in a row in which the generator was worse than in the last good state.
        n_restored: Times the last good state was restored.
        rate_factor: Factor on the learning rate, halved at each restoration.
        recent: Energies and log-weights of the last batches, for the tempering rule.
        history: Log lines kept.
        ladder: Samples kept along the ladder.
        snapshots: Parameters of the averaged soft block at `SNAPSHOTS`, with their beta.
        good: The last good state, to return to: what moves, how much of the lists was there, and
            how well the generator did (`Standing`).
        objective: The loss; what it needs beside the model is part of the state.
    """

    model: CoarseGrainedModel
    average: CoarseGrainedModel
    optimiser: torch.optim.Optimizer
    beta: float
    seed: int
    n_steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    energy_calls: int = 0
    gradient_calls: int = 0
    seconds: float = 0.0
    n_skipped: int = 0
    n_broken: int = 0
    n_worse: int = 0
    n_restored: int = 0
    rate_factor: float = 1.0
    recent: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    history: list[StepInfo] = field(default_factory=list)
    ladder: list[Rung] = field(default_factory=list)
    snapshots: list[tuple[float, dict[str, Tensor]]] = field(default_factory=list)
    good: dict[str, Any] = field(default_factory=dict)
    objective: Objective | None = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values alone."""
        return self._moving() | {
            "settings": self.settings,
            "history": [vars(info) for info in self.history],
            "ladder": [vars(rung) for rung in self.ladder],
            "snapshots": [list(pair) for pair in self.snapshots],
            "good": self.good,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Continue exactly where `content` was taken."""
        self._move_to(content)
        self.history = [StepInfo(**info) for info in content["history"]]
        self.ladder = [Rung(**rung) for rung in content["ladder"]]
        self.snapshots = [(beta, soft) for beta, soft in content["snapshots"]]
        self.good = content["good"]

    def kept(self, standing: Standing | None = None) -> dict[str, Any]:
        """A copy of the present state, to be the last good one.

        Args:
            standing: How well its generator does.
        """
        lengths = {name: len(getattr(self, name)) for name in _LISTS}
        how = {} if standing is None else dict(vars(standing))
        return copy.deepcopy(self._moving()) | lengths | {"standing": how}

    @property
    def standing(self) -> Standing | None:
        """How well the generator of the last good state did, where that is known."""
        content = self.good.get("standing")
        return Standing(**content) if content else None

    def restore(self) -> None:
        """Go back to the last good state; counters of calls and time go on."""
        kept = self.energy_calls, self.gradient_calls, self.seconds
        # Adam takes the tensors it is given for its own
        self._move_to(copy.deepcopy(self.good))
        for name in _LISTS:
            del getattr(self, name)[self.good[name] :]
        self.energy_calls, self.gradient_calls, self.seconds = kept

    def _moving(self) -> dict[str, Any]:
        """What a step changes, without the lists that only grow."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "recent": [list(pair) for pair in self.recent],
            "objective": {} if self.objective is None else self.objective.state_dict(),
        }

    def _move_to(self, content: dict[str, Any]) -> None:
        for name in _PLAIN:
            setattr(self, name, (_BEFORE | content)[name])
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.recent = [(energy, weights) for energy, weights in content["recent"]]
        if self.objective is not None:
            device = next(self.model.parameters()).device
            self.objective.load_state_dict(_on(content.get("objective", {}), device))


_PLAIN = (
    "beta",
    "seed",
    "n_steps",
    "step",
    "energy_calls",
    "gradient_calls",
    "seconds",
    "n_skipped",
    "n_broken",
    "n_worse",
    "n_restored",
    "rate_factor",
)
_LISTS = ("history", "ladder", "snapshots")
_BEFORE = {"n_worse": 0}
"""What checkpoints of before did not hold."""


class Trainer:
    """One step of training: temper, evaluate, move, average."""

    def __init__(
        self,
        target: BoltzmannTarget,
        objective: Objective,
        tempering: TemperingSchedule,
        optimisation: Optimisation,
    ) -> None:
        self.target, self.objective = target, objective
        self.tempering, self.optimisation = tempering, optimisation

    def step(self, state: TrainingState) -> StepInfo:
        started = time.monotonic()
        energy = self.target.energy
        calls = energy.n_energy_calls, energy.n_gradient_calls
        if state.step % self.tempering.interval == 0:
            self._temper(state)
        beta = state.beta
        rate = state.rate_factor * self.optimisation.rate(state.step, state.n_steps)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        with torch.random.fork_rng(enabled=True):
            torch.manual_seed(step_seed(state.seed, state.step))
            parameter = next(state.model.parameters())
            rounded = self.optimisation.products(parameter) if self.objective.rounds else None
            with products_in(rounded):
                evaluation = self.objective.evaluate(state.model, beta)
        gradient_norm = self._advance(state, evaluation)
        state.step += 1
        spent = energy.n_energy_calls - calls[0], energy.n_gradient_calls - calls[1]
        n_energies, n_gradients = parallel.total(torch.tensor(spent)).tolist()
        state.energy_calls += n_energies
        state.gradient_calls += n_gradients
        state.seconds += time.monotonic() - started
        # Not the beta of the state, which a return to the last good one has changed
        info = _info(state, evaluation, gradient_norm, beta=beta, rate=rate)
        self._record(state, evaluation, info)
        return info

    def _temper(self, state: TrainingState) -> None:
        recent = state.recent
        empty = torch.zeros(0)
        beta = self.tempering.next(
            state.beta,
            TemperingState(
                progress=state.step / state.n_steps,
                energy=torch.cat([e for e, _ in recent]) if recent else empty,
                log_weights=torch.cat([w for _, w in recent]) if recent else empty,
            ),
            target=self.target.beta,
        )
        if beta != state.beta:
            # Weights for one beta become weights for the next
            state.recent = [(e, w - (beta - state.beta) * e) for e, w in recent]
            state.beta = beta

    def _advance(self, state: TrainingState, evaluation: Evaluation) -> float:
        """A step, or the return to the last good state; the norm of the gradient."""
        standing = Standing.of(evaluation, state.beta)
        if self._loses(state, standing):
            self._return(state, f"{MAX_WORSE} steps in a row were worse than before")
            return math.nan
        due = (state.step + 1) % max(state.n_steps // N_RUNGS, 1) == 0
        # The state that the samples are of: of the one after the step nothing is known yet
        present = state.kept(standing) if due and state.n_worse == 0 else None
        norm = self._move(state, evaluation)
        if present is not None and math.isfinite(norm) and state.n_broken == 0:
            state.good = present
        return norm

    def _move(self, state: TrainingState, evaluation: Evaluation) -> float:
        state.optimiser.zero_grad(set_to_none=True)
        norm = math.nan
        if torch.isfinite(evaluation.loss):
            evaluation.loss.backward()  # type: ignore[no-untyped-call]
            parallel.sum_gradients(state.model.parameters())
            norm = float(
                torch.nn.utils.clip_grad_norm_(
                    state.model.parameters(), self.optimisation.max_gradient_norm
                )
            )
        if math.isfinite(norm):
            self._check_share(state, evaluation)
            state.optimiser.step()
            state.n_skipped = 0
            self._average(state)
            self._recover(state)
        else:
            self._skip(state)
        return norm

    def _loses(self, state: TrainingState, standing: Standing) -> bool:
        """Count steps worse than the last good state; whether there were too many in a row."""
        before = state.standing
        worse = before is not None and has_lost_ground(standing, before)
        state.n_worse = state.n_worse + 1 if worse else 0
        return state.n_worse >= MAX_WORSE and state.n_restored < MAX_RESTORED

    def _recover(self, state: TrainingState) -> None:
        """Raise a rate that was halved; after k returns to a share of 2^(1-k) at most."""
        if state.rate_factor < 1:
            most = 2.0 ** (1 - max(state.n_restored, 1))
            rise = 2 ** (1 / max(RATE_DOUBLES * state.n_steps, 1))
            state.rate_factor = max(state.rate_factor, min(most, rise * state.rate_factor))

    def _average(self, state: TrainingState) -> None:
        weight = 1 / (1 + self.optimisation.averaging * state.step)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(state.average.parameters()), list(state.model.parameters()), weight
            )

    def _check_share(self, state: TrainingState, evaluation: Evaluation) -> None:
        """A loss over the few samples that are finite says little about the model."""
        share = evaluation.n_invalid / max(len(evaluation.energy), 1)
        state.n_broken = state.n_broken + 1 if share > MAX_BROKEN else 0
        if state.n_broken >= MAX_SKIPPED:
            raise TrainingError(
                f"training cannot go on: {share:.0%} of the samples were not finite, more than "
                f"{MAX_BROKEN:.0%} in {MAX_SKIPPED} steps in a row; lower the learning rate, start "
                "hotter, or check the structure and force field"
            )

    def _skip(self, state: TrainingState) -> None:
        state.n_skipped += 1
        if state.n_skipped < MAX_SKIPPED:
            return
        if state.n_restored >= MAX_RESTORED:
            raise TrainingError(
                f"training cannot go on: the gradient was not finite in {MAX_SKIPPED} steps in a "
                f"row, also after {MAX_RESTORED} returns to the last good state; lower the "
                "learning rate, start hotter, or check the structure and force field"
            )
        self._return(state, f"the gradient was not finite in {MAX_SKIPPED} steps in a row")

    def _return(self, state: TrainingState, why: str) -> None:
        """To the last good state at half the rate; the steps of the run go on."""
        step, n_restored, factor = state.step, state.n_restored, state.rate_factor
        state.restore()
        good = state.step
        state.step, state.n_restored, state.rate_factor = step, n_restored + 1, factor / 2
        state.n_skipped = state.n_worse = 0
        logger.warning(
            "%s: at step %d back to the state of step %d, learning rate halved", why, step, good
        )

    def _record(self, state: TrainingState, evaluation: Evaluation, info: StepInfo) -> None:
        n_recent = max(2 * self.tempering.interval, 1) if self.tempering.interval > 1 else 0
        if n_recent and info.beta == state.beta:
            state.recent = [
                *state.recent[-n_recent + 1 :],
                (evaluation.energy.cpu(), evaluation.log_weights.cpu()),
            ]
        self._snapshot(state)
        if info.step % max(state.n_steps // 1000, 1) == 0 or info.step == state.n_steps:
            state.history.append(info)
        if info.step % max(state.n_steps // N_RUNGS, 1) == 0:
            state.ladder.append(
                Rung(
                    info.beta,
                    evaluation.y.cpu(),
                    evaluation.energy.cpu(),
                    evaluation.log_weights.cpu(),
                )
            )

    def _snapshot(self, state: TrainingState) -> None:
        decoder = state.average.decoder
        # Where training does not begin hotter, the first step would be kept untrained
        factors = [factor for factor in SNAPSHOTS if factor < self.tempering.start]
        n_taken = len(state.snapshots)
        if not isinstance(decoder, TwoBlockDecoder) or n_taken == len(factors):
            return
        if state.beta >= self.target.beta / factors[n_taken]:
            soft = {k: v.detach().cpu().clone() for k, v in decoder.flow.soft.state_dict().items()}
            state.snapshots.append((state.beta, soft))


def _on(content: Any, device: torch.device) -> Any:
    """Nested dicts with their tensors on a device."""
    if isinstance(content, dict):
        return {name: _on(value, device) for name, value in content.items()}
    return content.to(device) if isinstance(content, Tensor) else content


def _info(
    state: TrainingState, evaluation: Evaluation, gradient_norm: float, *, beta: float, rate: float
) -> StepInfo:
    # A sample that is not finite was drawn and does not count: it stays in n
    finite = torch.isfinite(evaluation.log_weights)
    log_weights = torch.where(finite, evaluation.log_weights, -torch.inf).double()
    return StepInfo(
        step=state.step,
        n_steps=state.n_steps,
        beta=beta,
        temperature=temperature_of(beta),
        loss=float(evaluation.loss.detach()),
        ess=float(effective_sample_size(log_weights)),
        energy_calls=state.energy_calls,
        gradient_calls=state.gradient_calls,
        gradient_norm=gradient_norm,
        learning_rate=rate,
        n_compressed=evaluation.n_compressed,
        n_dropped=evaluation.n_dropped,
        n_invalid=evaluation.n_invalid,
        seconds=state.seconds,
        n_restored=state.n_restored,
    )


def step_seed(seed: int, step: int) -> int:
    """One 63-bit seed out of two numbers (splitmix64).

    A stream for each step: a resumed run needs no memory of the streams before it.

    Args:
        seed: Seed of the run.
        step: Steps done.
    """
    value = (seed * 0x9E3779B97F4A7C15 + step + 1) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) >> 1
