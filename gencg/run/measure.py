"""A run measured before it is made: a few steps of each stage on this machine, nothing written."""

import dataclasses
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gencg.analysis.probes import FEWEST_STEPS, STEPS_PER_SOFT, probe_modes
from gencg.checkpoint import checkpoint_size
from gencg.config import RunConfig
from gencg.discover.joint import refit_steps
from gencg.discover.refit import refit_soft
from gencg.fit import MATCHING, FitResult, fit
from gencg.mixing import mix
from gencg.models.collective import collective_model
from gencg.models.cv_map import CollectiveMap
from gencg.models.mixture import members_of
from gencg.run.execute import fit_options, sample, trained
from gencg.run.forecast import REFIT_ROWS, Costs, matches, stage_seconds
from gencg.run.generator import find_generator
from gencg.run.similar import Similar, similar_molecules
from gencg.systems.base import System
from gencg.tempering import NoTempering
from gencg.training import N_RUNGS, Optimisation, StepInfo

STEPS, FIRST = 10, 3
"""Training steps that are measured, and those of them left out: they compile and warm up."""
STEPS_OF_TWO_KINDS = 40
"""The same of a flow-matching decoder, whose last tenth of the steps is of another kind."""
SAMPLES, CHAINS = 2_000, 100
"""Samples and annealed chains that are measured."""


@dataclass(frozen=True)
class Forecast:
    """What a run will take, about.

    Args:
        name: Name of the system.
        n_atoms: Its atoms; None for a toy.
        n_soft: Coordinates that are sampled between states.
        n_parameters: Parameters of the generator.
        n_steps: Training steps.
        energy_calls: The whole budget.
        costs: What the pieces cost here.
        stages: Seconds of each stage, in its order.
        memory_bytes: Largest resident memory, about.
        disk_bytes: What the run folder will hold, about.
        similar: What molecules of similar size reached; None for a toy and a decoder other than
            the spline one, which is what was measured.
    """

    name: str
    n_atoms: int | None
    n_soft: int
    n_parameters: int
    n_steps: int
    energy_calls: int
    costs: Costs
    stages: dict[str, float]
    memory_bytes: int
    disk_bytes: int
    similar: Similar | None

    @property
    def seconds(self) -> float:
        """Wall time of everything."""
        return sum(self.stages.values())

    def numbers(self) -> dict[str, Any]:
        """Plain values for scripts."""
        own = {k: v for k, v in vars(self).items() if k not in ("costs", "similar")}
        return own | {
            "seconds": self.seconds,
            "costs": vars(self.costs),
            "similar": None if self.similar is None else vars(self.similar),
        }


def measure(system: System, config: RunConfig) -> Forecast:
    """Measure the pieces of a run and foretell the whole.

    Args:
        system: What is to be sampled.
        config: Resolved settings.

    Raises:
        ValueError: If training cannot even begin.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    clock = _Clock()
    # A generator that is taken over is heated by steps of training
    steps = (config.training_calls + config.reheating_calls) // config.batch_size
    n_steps = min(STEPS_OF_TWO_KINDS if matches(config) else STEPS, max(2, steps))
    result = fit(
        system,
        **fit_options(system, config),
        energy_calls=n_steps * config.batch_size,
        reporters=[clock],
    )
    if (n_members := _n_members(system, config)) > 1:
        # What each of them costs
        result = mix([result] * n_members)
    step = clock.median(FIRST, n_steps)
    if matches(config):
        n_matching = int(MATCHING * n_steps)
        step = MATCHING * clock.median(FIRST, n_matching)
        # Its first one warms up, too
        step += (1 - MATCHING) * clock.median(n_matching + 1, n_steps)
    costs = Costs.from_step(step, config.batch_size)
    # What is not measured takes longer where other work has the cores
    fixed = {name: clock.busy() * getattr(costs, name) for name in ("search", "report")}
    costs = dataclasses.replace(costs, sample=_sample_seconds(result), **fixed)
    if config.mode_calls:
        costs = dataclasses.replace(costs, chain=_chain_seconds(result) or costs.chain)
    if config.discovers:
        refit, joint = _joint_seconds(result, config)
        costs = dataclasses.replace(costs, refit=refit, joint=joint)
    molecule = system.molecule
    n_soft = int(system.coordinates.soft.sum())
    drawn = config.n_samples * _bytes_of_sample(system)
    checkpoints = _checkpoint_bytes(result)
    return Forecast(
        name=system.name,
        n_atoms=None if molecule is None else molecule.n_atoms,
        n_soft=n_soft,
        n_parameters=sum(p.numel() for p in result.model.parameters()),
        n_steps=steps,
        energy_calls=int(config.energy_calls or 0),
        costs=costs,
        stages=stage_seconds(config, costs),
        # Beside what is in use: the samples, their two copies while written, and their parts in
        # figures
        memory_bytes=_peak_bytes() + 4 * drawn,
        disk_bytes=drawn + checkpoints * (1 + config.discovers),
        similar=(
            similar_molecules(molecule.n_atoms, n_soft)
            if molecule is not None and config.decoder == "spline"
            else None
        ),
    )


def _n_members(system: System, config: RunConfig) -> int:
    """How many generators the run draws from; the first alone is trained further."""
    if config.generator is None or config.further_calls:
        return 1
    try:
        source, _ = find_generator(config, system, trained=trained)
    except ValueError:  # gone, where the run that began from it lives from its own files
        return len(config.generator)
    return max(1, len(members_of(source.model)))


class _Clock:
    """Reporter that notes the time between steps."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu: list[float] = []

    def __call__(self, info: StepInfo) -> None:
        self.times.append(time.monotonic())
        self.cpu.append(time.process_time())

    def median(self, first: int, last: int) -> float:
        """Time of the steps after the first so many, up to the last."""
        gaps = [b - a for a, b in zip(self.times[:-1], self.times[1:], strict=True)]
        # Of a run of few steps there are no later ones
        return statistics.median(gaps[first - 1 : last - 1] or gaps)

    def busy(self) -> float:
        """Wall time for CPU time; 1 where several threads computed, or the cores were free."""
        first = min(FIRST, len(self.times)) - 1
        cpu = self.cpu[-1] - self.cpu[first]
        return max(1.0, (self.times[-1] - self.times[first]) / cpu) if cpu > 0 else 1.0


def _timed(call: Callable[[], Any]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _sample_seconds(result: FitResult) -> float:
    sample(result, 100, seed=0)
    return _timed(lambda: sample(result, SAMPLES, seed=0)) / SAMPLES


def _chain_seconds(result: FitResult) -> float | None:
    """Seconds per energy call of annealed chains; None where there are none."""
    n_soft = int(result.system.coordinates.soft.sum())
    n_calls = CHAINS * (max(FEWEST_STEPS, STEPS_PER_SOFT * n_soft) + 1)
    started = time.monotonic()
    # Of snapshots there may be some: a tenth of the calls is then drawn, as in the run
    spent = sum(probe.n_energy_calls for probe in probe_modes(result, n_calls, seed=0))
    return (time.monotonic() - started) / spent if spent else None


def _joint_seconds(result: FitResult, config: RunConfig) -> tuple[float, float]:
    """The fit before the joint training, and a step of that, around any CVs."""
    result = result.leading
    n_soft = int(result.system.coordinates.soft.sum())
    n_cvs = min(2, n_soft) if config.n_cvs == "auto" else int(config.n_cvs)
    index = result.system.coordinates.soft
    periodic = bool(result.system.coordinates.periodic[index].all())
    cv_map = CollectiveMap(torch.eye(n_soft), n_cvs=n_cvs, periodic=periodic)
    model = collective_model(result.model, cv_map)
    refit_soft(model, result.model, n_steps=1, batch_size=REFIT_ROWS)
    n_refit = 3
    refit = _timed(lambda: refit_soft(model, result.model, n_steps=n_refit, batch_size=REFIT_ROWS))
    clock = _Clock()
    fit(
        result.system,
        temperature=result.target.temperature,
        energy_calls=STEPS * config.batch_size,
        batch_size=config.batch_size,
        tempering=NoTempering(),
        optimisation=Optimisation(learning_rate=2e-4, optimiser="adam"),
        model=model,
        reporters=[clock],
    )
    return refit_steps(n_soft) * refit / n_refit, clock.median(FIRST, STEPS)


def _bytes_of_sample(system: System) -> int:
    """On disk: positions in both precisions, coordinates, energy, weights and densities."""
    shape = system.energy.event_shape
    n_atoms, dim = math.prod(shape), len(system.coordinates.soft)
    return 12 * n_atoms + 8 * dim + 40


def _checkpoint_bytes(result: FitResult) -> int:
    """Size of a checkpoint with all rungs of the ladder, of which a few were measured."""
    ladder = result.ladder
    first = ladder[0]
    rung = sum(tensor.nbytes for tensor in (first.y, first.energy, first.log_weights))
    return checkpoint_size(result.state.state_dict()) + (N_RUNGS - len(ladder)) * rung


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
