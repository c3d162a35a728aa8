"""The training loop: from a system to a trained model, with exact resume."""

import copy
import logging
import math
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencg import html, parallel
from gencg.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gencg.deadline import TimeIsUp
from gencg.ensemble import decode
from gencg.models.build import build_model, choices_of
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import solvers_of
from gencg.models.mixture import leading
from gencg.objectives.base import Objective
from gencg.objectives.build import build_objective
from gencg.objectives.covering_kl import CoveringKL
from gencg.objectives.flow_matching import FlowMatching
from gencg.systems.base import System
from gencg.target import BoltzmannTarget
from gencg.tempering import GeometricLadder, TemperingSchedule
from gencg.training import (
    Optimisation,
    Reporter,
    Rung,
    StepInfo,
    Trainer,
    TrainingError,
    TrainingState,
)

logger = logging.getLogger("gencg")

DEFAULT_ENERGY_CALLS = 3e6
"""Training budget where the system recommends none."""
LAST = 20
"""Steps at the end of a training whose ESS is told."""
_JUDGED_BY = "gencg.draw(result.model, result.target, 10_000) judges it"
MATCHING_RATE = 3.0
"""A decoder that is matched learns at this factor of the rate that others have."""
MATCHING = 0.9
"""Share of the steps in which a flow-matching decoder is matched: until the rate is low enough for
gradients through the equation."""


@dataclass(frozen=True, repr=False)
class FitResult:
    """A trained model and how it came about.

    Args:
        model: The averaged model.
        target: What it was trained to.
        system: The system of the target.
        state: The last training state.
    """

    model: CoarseGrainedModel
    target: BoltzmannTarget
    system: System
    state: TrainingState

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else None
        ess = "" if last is None else f", ess={last.ess:.2f}"
        return (
            f"FitResult({self.system.name!r}, temperature={self.target.temperature:g}, "
            f"steps={self.steps}{ess}, energy_calls={self.energy_calls}, "
            f"seconds={self.seconds:.0f})"
        )

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """Level and words on the training alone; what it is worth only samples can tell."""
        found = []
        if self.state.step < self.state.n_steps:
            found.append(("fair", f"stopped at step {self.state.step:,} of {self.state.n_steps:,}"))
        if not self.history:
            return [*found, ("open", f"not trained here; {_JUDGED_BY}")]
        ess = statistics.median(info.ess for info in self.history[-LAST:])
        text = f"ESS of the last batches {ess:.2f}"
        if ess < 0.1:
            return [*found, ("poor", f"{text}: far from the target; give more energy calls")]
        return [*found, ("open", f"{text}; {_JUDGED_BY}")]

    def _repr_html_(self) -> str:
        n_parameters = sum(p.numel() for p in self.model.parameters())
        rows = [
            ("temperature", f"{self.target.temperature:g} K"),
            ("collective variables", str(self.model.n_cvs)),
            ("parameters", f"{n_parameters:,}"),
        ]
        if self.history:
            rows += [
                ("steps", f"{self.steps:,}"),
                ("energy calls", f"{self.energy_calls:,}"),
                ("gradient calls", f"{self.gradient_calls:,}"),
                ("time", f"{self.seconds:,.0f} s"),
            ]
        return html.card(f"Fit of {self.system.name}", rows, verdicts=self.verdicts)

    @property
    def leading(self) -> "FitResult":
        """Of a mixture its first member, which has one soft and one stiff block; else itself."""
        first = leading(self.model)
        return self if first is self.model else replace(self, model=first)

    @property
    def steps(self) -> int:
        """Steps of training, also of one that `as_result` was told of."""
        return self.state.step or (self.history[-1].step if self.history else 0)

    @property
    def history(self) -> list[StepInfo]:
        """Log lines."""
        return self.state.history

    @property
    def ladder(self) -> list[Rung]:
        """Samples along the tempering ladder, hot to cold."""
        return self.state.ladder

    @property
    def snapshots(self) -> list[dict[str, Tensor]]:
        """Parameters of the soft block at hotter stages, hot to cold."""
        return [soft for _, soft in self.state.snapshots]

    @property
    def energy_calls(self) -> int:
        """Energies computed in training."""
        return self.state.energy_calls

    @property
    def gradient_calls(self) -> int:
        """Gradients computed in training."""
        return self.state.gradient_calls

    @property
    def seconds(self) -> float:
        """Wall time of training."""
        return self.state.seconds


def fit(
    system: System,
    *,
    temperature: float | None = None,
    n_cvs: int = 0,
    energy_calls: float | None = None,
    batch_size: int = 512,
    tempering: TemperingSchedule | None = None,
    optimisation: Optimisation | None = None,
    estimator: str = "covering",
    model: CoarseGrainedModel | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    device: str = "cpu",
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    reporters: Sequence[Reporter] = (),
    stop: Callable[[], bool] | None = None,
) -> FitResult:
    """Train a generator for a system, from its energy alone.

    Args:
        system: What to sample.
        temperature: Temperature in K; the system's own by default.
        n_cvs: Number of collective variables; 0 trains the generator without.
        energy_calls: Budget of energy evaluations for training; the system's recommendation by
            default.
        batch_size: Configurations per step.
        tempering: Ladder from hot to the target temperature.
        optimisation: Learning rate, clipping, averaging; by default at a rate of 3e-3, and at
            three times that where `FlowMatching` is what trains.
        estimator: "covering" (`CoveringKL`: path gradients that keep every state, with walkers),
            "path" or "plain" (`ReverseKL` with either gradient). A `FlowMatchingDecoder` that was
            not trained yet is matched first (`FlowMatching`), and takes for "covering" path
            gradients of its order alone. Any other model with collective
            variables, or without soft coordinates apart from stiff ones, and a mixture takes "path"
            for "covering".
        model: A model to train in place of the default one, such as that of another energy with
            the same coordinates, then with `NoTempering`. It is the one that moves: give a copy
            of one that is to stay as it is.
        objective: A loss in place of that of `estimator`; one that keeps samples goes on with
            them, so that each training wants its own.
        seed: Decides everything random, initial parameters included.
        device: Torch device.
        checkpoint: File to write the state to; if it exists, training resumes from it and ends
            with the same parameters as an uninterrupted run.
        checkpoint_seconds: Wall time between two checkpoints.
        reporters: Called with the `StepInfo` of every step.
        stop: Asked after every step but the last whether to stop there, such as `Deadline.due`.

    Raises:
        ValueError: If a setting is out of its range.
        TrainingError: If the loss stays without finite gradient, or most samples are not finite.
        CheckpointError: If `checkpoint` is damaged or belongs to a run of other settings.
        TimeIsUp: If `stop` said so; the state is in `checkpoint`.
    """
    settings = system.settings
    if energy_calls is None:
        energy_calls = float(settings.get("energy_calls", DEFAULT_ENERGY_CALLS))
    if not (math.isfinite(energy_calls) and energy_calls > 0):
        raise ValueError(f"`energy_calls` must be a positive number, got {energy_calls}")
    budget = int(energy_calls)
    if budget < 2 * batch_size:
        raise ValueError(
            f"`energy_calls` must allow two steps of batch_size={batch_size}, got {budget}"
        )
    target = BoltzmannTarget(
        system.energy,
        system.coordinates,
        system.temperature if temperature is None else temperature,
    )
    tempering = tempering or GeometricLadder(start=settings.get("start", 4.0))
    if objective is not None and parallel.size() > 1:
        raise ValueError("`objective` is for one process; several share the batch of `estimator`")
    if model is None:
        choices = parallel.agree(_choices_of(checkpoint))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build_model(system.coordinates, n_cvs=n_cvs, **choices)
    model.to(device)
    parallel.make_equal(model)
    if objective is None:
        objective = build_objective(
            estimator,
            model,
            target,
            n_samples=batch_size,
            n_steps=budget // batch_size,
            matching=MATCHING,
        )
    optimisation = optimisation or _optimisation_of(objective)
    state = TrainingState(
        model=model,
        average=copy.deepcopy(model),
        optimiser=optimisation.build(model),
        beta=target.beta / tempering.start,
        seed=seed,
        n_steps=budget // batch_size,
        settings=_settings(model, target, batch_size, objective, tempering, optimisation),
        objective=objective,
    )
    path = None if checkpoint is None else Path(checkpoint)
    # Process 0 alone writes the file; the others read it before the first step, which needs all
    if path is not None and parallel.agree(path.exists()):
        _resume(state, path)
    trainer = Trainer(target, objective, tempering, optimisation)
    _train(state, trainer, path, checkpoint_seconds, reporters, stop)
    _attach(state.average, target, system)
    return FitResult(model=state.average.eval(), target=target, system=system, state=state)


def _choices_of(checkpoint: str | Path | None) -> dict[str, bool]:
    """How the model of a checkpoint was built, which older ones of gencg were otherwise."""
    if checkpoint is None or not Path(checkpoint).exists():
        return {}
    return choices_of(load_checkpoint(checkpoint).get("model", {}))


def _optimisation_of(objective: Objective) -> Optimisation:
    """`FlowMatching` learns at `MATCHING_RATE` times the rate that others have."""
    factor = MATCHING_RATE if isinstance(objective, FlowMatching) else 1.0
    return Optimisation(learning_rate=factor * Optimisation().learning_rate)


def as_result(
    system: System,
    model: CoarseGrainedModel,
    *,
    target: BoltzmannTarget,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    snapshots: Sequence[tuple[float, dict[str, Tensor]]] = (),
    ladder: Sequence[Rung] = (),
    history: Sequence[StepInfo] = (),
    energy_calls: int = 0,
    gradient_calls: int = 0,
) -> FitResult:
    """A model as it is, as the result of a training of no steps.

    Args:
        system: What the model samples.
        model: The model.
        target: Its Boltzmann density.
        seed: Seed to note down.
        checkpoint: File to write the model to; if it exists, all of this is read from it.
        snapshots: Parameters of its soft block at hotter stages with their beta, hot to cold.
        ladder: Samples along a ladder, hot to cold.
        history: Log lines of the training that made the model, with its wall time.
        energy_calls: Energies computed for all of these.
        gradient_calls: Gradients computed for all of these.

    Raises:
        CheckpointError: If `checkpoint` is damaged or belongs to another run.
    """
    state = TrainingState(
        model=model,
        average=copy.deepcopy(model),
        optimiser=Optimisation().build(model),
        beta=target.beta,
        seed=seed,
        n_steps=0,
        energy_calls=energy_calls,
        gradient_calls=gradient_calls,
        seconds=history[-1].seconds if history else 0.0,
        n_restored=history[-1].n_restored if history else 0,
        history=list(history),
        ladder=list(ladder),
        snapshots=list(snapshots),
    )
    if checkpoint is not None and Path(checkpoint).exists():
        _resume(state, Path(checkpoint))
    elif checkpoint is not None:
        save_checkpoint(checkpoint, state.state_dict())
    _attach(state.average, target, system)
    return FitResult(model=state.average.eval(), target=target, system=system, state=state)


def _attach(model: CoarseGrainedModel, target: BoltzmannTarget, system: System) -> None:
    molecule, name = system.molecule, system.name
    model.attach(
        coordinates=system.coordinates,
        molecule=molecule,
        decode=lambda model, z, n_samples, seed: decode(
            model, target, z, n_samples, molecule=molecule, seed=seed, name=name
        ),
    )


def _settings(
    model: CoarseGrainedModel,
    target: BoltzmannTarget,
    batch_size: int,
    objective: Objective,
    tempering: TemperingSchedule,
    optimisation: Optimisation,
) -> dict[str, Any]:
    """What decides the course of training, as plain values with names for a message."""
    settings: dict[str, Any] = {
        "temperature": target.temperature,
        "batch_size": batch_size,
        "tempering": type(tempering).__name__,
        "start": tempering.start,
        "objective": type(objective).__name__,
    }
    if solvers := solvers_of(model):
        settings["solvers"] = solvers
    return settings | objective.settings | asdict(optimisation)


def _resume(state: TrainingState, path: Path) -> None:
    content = load_checkpoint(path)
    objective = state.objective
    if isinstance(objective, CoveringKL):
        # What an earlier version began ends without what that had not
        state.settings |= objective.end_as_begun(content.get("settings", {}))
    asked = {"seed": state.seed, "n_steps": state.n_steps} | state.settings
    theirs = {name: content.get(name) for name in ("seed", "n_steps")}
    if settings := content.get("settings"):
        # What a file of before these settings was made with
        before = {"optimiser": "adam", "precision": "float32", "clip_above": math.inf, "order": 0.0}
        theirs |= before | settings
    for name, value in asked.items():
        if name in theirs and theirs[name] != value:
            raise CheckpointError(
                f"checkpoint {path} belongs to a run with {name}={theirs[name]}, asked is "
                f"{value}; use another folder or --override"
            )
    try:
        state.load_state_dict(content)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"checkpoint {path} does not fit this model ({reason}); "
            "use the settings it was made with, another folder or --override"
        ) from None


def _save(path: Path | None, state: TrainingState) -> None:
    if path is not None and parallel.rank() == 0:
        save_checkpoint(path, state.state_dict())


def _train(
    state: TrainingState,
    trainer: Trainer,
    path: Path | None,
    checkpoint_seconds: float,
    reporters: Sequence[Reporter],
    stop: Callable[[], bool] | None,
) -> None:
    saved, begun = time.monotonic(), state.step
    if not state.good:
        state.good = state.kept()
    if path is not None and not path.exists():
        # Calls lost with an early kill are counted against a checkpoint too
        _save(path, state)
    try:
        with _interrupts_waiting() as interrupts:
            while state.step < state.n_steps:
                info = trainer.step(state)
                for report in reporters:
                    report(info)
                # While gradients are not finite the state may be lost: the file keeps an older one
                late = stop is not None and parallel.agree(stop()) and state.step < state.n_steps
                due = late or bool(interrupts) or time.monotonic() - saved > checkpoint_seconds
                if due and state.n_skipped == 0:
                    _save(path, state)
                    saved = time.monotonic()
                if interrupts:
                    raise KeyboardInterrupt
                if late:
                    raise TimeIsUp(f"time is up at step {state.step} of {state.n_steps}")
    except TrainingError as error:
        if path is None:
            raise
        state.restore()
        _save(path, state)
        raise TrainingError(f"{error}; last good state at step {state.step} in {path}") from None
    # The file of a training that was done is left alone: its folder may be one to read only
    if state.step > begun:
        _save(path, state)


@contextmanager
def _interrupts_waiting() -> Iterator[list[int]]:
    """Ctrl-C waits in the list for the end of the step, where the state is whole; twice does not.

    Only where Python's own handler is in place, in the main thread.
    """
    waiting: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield waiting
        return

    def wait(number: int, _: Any) -> None:
        if waiting:
            raise KeyboardInterrupt
        waiting.append(number)

    signal.signal(signal.SIGINT, wait)
    try:
        yield waiting
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
