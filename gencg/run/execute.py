"""A run from beginning to end: train, draw, report, in a folder that can be resumed."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gencg import parallel
from gencg.analysis.assessment import Assessment, assess
from gencg.analysis.coverage import Stage
from gencg.analysis.probes import Probe, probe_modes, probe_state, restore_probes
from gencg.checkpoint import load_checkpoint, save_checkpoint
from gencg.config import RunConfig
from gencg.deadline import Deadline, TimeIsUp
from gencg.drawn import Parts
from gencg.ensemble import Ensemble, draw
from gencg.export.trajectory import read_samples, write_samples
from gencg.fit import FitResult, fit
from gencg.models.build import flow_matching_model, unimodal_model
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.report import write_report
from gencg.run.collective import Discovery, discover, discovered
from gencg.run.explain import explain_slow, explained, forget_explanations
from gencg.run.folder import RunFolder
from gencg.run.forecast import Costs, stage_seconds
from gencg.run.generator import find_generator, forget_trainings, take_over
from gencg.run.metrics import MetricsWriter
from gencg.run.record import summarise, summarise_cvs, versions, write_json
from gencg.systems.base import System
from gencg.training import Reporter


def train(
    system: System,
    folder: RunFolder,
    *,
    reporters: Sequence[Reporter] = (),
    deadline: Deadline | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> FitResult:
    """Train, or go on training, the generator of a run, or take it over from where it is.

    Args:
        system: What to sample, at the run's temperature.
        folder: The run.
        reporters: Called with the log line of every step.
        deadline: When to stop.
        announce: Called with a line of text where a generator is taken over.

    Raises:
        ValueError: If the checkpoint is damaged, training cannot go on, or there is no generator
            to take over.
        TimeIsUp: If the deadline came first.
    """
    folder.check_current()
    # A damaged checkpoint is refused here, before anything is written
    if is_trained(folder):
        # Killed right after its checkpoint, they are still there
        forget_trainings(folder)
        return _fit(system, folder, ())
    count_lost(folder)
    write_json(folder.path / "versions.json", versions())
    with MetricsWriter(folder.path / "metrics.csv") as metrics:
        return _fit(system, folder, [metrics, *reporters], deadline, announce)


def check_generator(system: System, config: RunConfig) -> None:
    """Refuse settings whose generator cannot be taken over, before anything is written.

    Raises:
        ValueError: If there is none, or it is of something else.
    """
    if config.generator is not None:
        find_generator(config, system, trained=trained)


def trained(system: System, folder: RunFolder) -> FitResult:
    """The generator of a run whose training is done.

    Raises:
        ValueError: If it is not, or the checkpoint is damaged.
    """
    if not is_trained(folder):
        raise ValueError(
            f"run {folder.path} is not trained to its end; go on with `gencg run` or `gencg fit` "
            "and the same settings"
        )
    return _fit(system, folder, ())


def is_trained(folder: RunFolder) -> bool:
    """Whether the checkpoint of a run holds its last step."""
    if not folder.checkpoint.exists():
        return False
    content = load_checkpoint(folder.checkpoint)
    return bool(content["step"] >= content["n_steps"])


def count_lost(folder: RunFolder) -> None:
    """Add to the counts of the checkpoint what a kill lost after it: it was computed, too.

    The table of metrics has a line for every step, the checkpoint is older.
    """
    history = folder.history()
    path = folder.checkpoint if folder.config.generator is None else folder.further
    if not history or not path.exists():
        return
    last, content = history[-1], load_checkpoint(path)
    if last.energy_calls > content["energy_calls"]:
        names = ("energy_calls", "gradient_calls", "seconds")
        save_checkpoint(path, content | {n: getattr(last, n) for n in names})


def _fit(
    system: System,
    folder: RunFolder,
    reporters: Sequence[Reporter],
    deadline: Deadline | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> FitResult:
    config = folder.config
    stop = None if deadline is None else deadline.due
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.generator is not None:
        return take_over(
            system, folder, trained=trained, reporters=reporters, stop=stop, announce=announce
        )
    return fit(
        system,
        **fit_options(system, config),
        energy_calls=config.training_calls,
        checkpoint=folder.checkpoint,
        checkpoint_seconds=config.checkpoint_seconds,
        reporters=reporters,
        stop=stop,
    )


def fit_options(system: System, config: RunConfig) -> dict[str, Any]:
    """Options of `fit` that follow from resolved settings, without its budget."""
    return {
        "temperature": config.temperature,
        "model": _own_model(system, config),
        # Slow CVs come after training; the model of 2020 has its CVs from the start
        "n_cvs": 0 if config.discovers else int(config.n_cvs),
        "batch_size": config.batch_size,
        "tempering": config.schedule(),
        "optimisation": config.optimisation(),
        "estimator": config.estimator,
        "seed": config.seed,
    }


def _own_model(system: System, config: RunConfig) -> CoarseGrainedModel | None:
    """A model with the initial parameters of the run's seed; None for what `fit` builds."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        if config.decoder == "unimodal":
            return unimodal_model(system.coordinates, n_cvs=int(config.n_cvs))
        if config.decoder == "flow-matching":
            return flow_matching_model(system.coordinates)
    return None


def run(
    system: System,
    folder: RunFolder,
    *,
    reporters: Sequence[Reporter] = (),
    joint_reporters: Sequence[Reporter] | None = None,
    announce: Callable[[str], None] = lambda text: None,
    deadline: Deadline | None = None,
) -> dict[str, Any]:
    """Train, draw, report: everything that is not done yet.

    Args:
        system: What to sample, at the run's temperature.
        folder: The run.
        reporters: Called with the log line of every training step.
        joint_reporters: The same for the joint training of collective variables; by default
            those of the first training.
        announce: Called with a line of text where a new stage begins.
        deadline: When to stop, at the end of a training step or before another stage.

    Returns:
        The summary, as in summary.json; of several processes the first alone writes it.

    Raises:
        TimeIsUp: If the deadline came first; the same call goes on from there.
    """
    if (done := _finished(folder, announce)) is not None:
        return done
    started = time.monotonic()
    with folder.locked():
        # Another process may have held the folder, and finished
        if (done := _finished(folder, announce)) is not None:
            return done
        before = spent_seconds(folder)
        earlier = (folder.before_cvs or {}) if folder.config.discovers else {}
        if earlier:
            announce("adding collective variables to the generator that is there")
            before += earlier.get("wall_seconds", before) - earlier.get("training_seconds", before)
        result = train(system, folder, reporters=reporters, deadline=deadline, announce=announce)
        trained = time.monotonic()
        config = folder.config
        seconds = stage_seconds(config, Costs.from_history(folder.history(), config))
        found = None
        if config.discovers:
            joint = reporters if joint_reporters is None else joint_reporters
            if result.leading is not result:
                announce("collective variables and their joint model are of the first generator")
            found = discover(result, folder, reporters=joint, announce=announce, deadline=deadline)
        if not folder.probes.exists():
            _stop_before("the search for lost modes", deadline, seconds["lost modes"])
        probes = look_for_modes(result, folder, announce=announce)
        _stop_before("drawing", deadline, seconds["samples"] + seconds["report"])
        announce(f"drawing {config.n_samples:,} samples")
        ensemble = _drawn(result, folder, "generator")
        assessment = assess(system, ensemble, ladder=stages(result), probes=probes)
        summary = summarise(config, result, ensemble, assessment, probes=probes)
        # Drawn once before collective variables were added, and now again
        summary["energy_calls"] += earlier.get("n_samples", 0)
        summary["generator"] = folder.origin
        if found is not None:
            ensemble = _drawn(found.joint, folder, "joint")
            assessment = assess(system, ensemble, ladder=stages(result), probes=probes)
            summary |= summarise_cvs(summary, found, ensemble, assessment)
        if parallel.rank() > 0:
            return summary
        write_samples(folder.path, ensemble, formats=("h5", *config.formats))
        if found is not None:
            announce("putting the slow functions into chemical words")
            forget_explanations(folder)
            try:
                explain_slow(system, folder, ensemble)
            except ValueError as reason:  # too few samples: the run has everything else
                announce(f"the slow functions are left without words: {reason}")
        announce("writing the report")
        # Time of earlier starts counts once, however often the run was resumed
        summary["wall_seconds"] = before + time.monotonic() - started
        write_run_report(folder, system, ensemble, assessment, summary, found=found)
        summary["wall_seconds"] = before + time.monotonic() - started
        summary["training_seconds"] = before + trained - started
        write_json(folder.path / "summary.json", summary)
        shutil.rmtree(folder.drawing, ignore_errors=True)
    return summary


def _finished(folder: RunFolder, announce: Callable[[str], None]) -> dict[str, Any] | None:
    """The summary of a run that is finished."""
    done = folder.summary
    if done is not None:
        announce(f"{folder.path} is finished already; --override starts it over")
        # Killed between the summary and this, it is still there
        shutil.rmtree(folder.drawing, ignore_errors=True)
    return done


def _stop_before(stage: str, deadline: Deadline | None, seconds: float) -> None:
    if deadline is not None and parallel.agree(deadline.late_for(seconds)):
        raise TimeIsUp(f"time is up before {stage}")


def sample(result: FitResult, n_samples: int, *, seed: int, parts: Parts | None = None) -> Ensemble:
    """Draw from a trained generator.

    Args:
        result: The generator.
        n_samples: Number of samples.
        seed: Seed of the draw.
        parts: Where to keep what is drawn so far.
    """
    system = result.system
    return draw(
        result.model, result.target, n_samples, molecule=system.molecule, seed=seed,
        name=system.name, parts=parts,
    )  # fmt: skip


def _drawn(result: FitResult, folder: RunFolder, name: str) -> Ensemble:
    """The samples of a run, of which those drawn before a kill are there."""
    config, parts = folder.config, None
    if parallel.size() == 1:
        parts = Parts(folder.drawing / name, seconds=config.checkpoint_seconds)
    return sample(result, config.n_samples, seed=config.seed, parts=parts)


def look_for_modes(
    result: FitResult,
    folder: RunFolder,
    *,
    announce: Callable[[str], None] = lambda text: None,
) -> tuple[Probe, ...]:
    """Probes for modes that training lost, or those that the folder holds.

    Args:
        result: The trained generator.
        folder: The run.
        announce: Called with a line of text before the search.
    """
    config = folder.config
    if folder.probes.exists():
        return restore_probes(load_checkpoint(folder.probes)["probes"])
    if config.mode_calls == 0:
        return ()
    announce(f"looking for lost modes with {config.mode_calls:,} energy calls")
    # Not the noise of the ensemble, which the probes are to be compared with
    probes = probe_modes(result, config.mode_calls, seed=config.seed + 2)
    save_checkpoint(folder.probes, {"probes": probe_state(probes)})
    return probes


def stages(result: FitResult) -> list[Stage]:
    """Soft coordinates of the samples kept along the ladder."""
    soft = result.system.coordinates.soft
    return [(r.beta, r.y[:, soft], r.energy, r.log_weights) for r in result.ladder]


def rewrite_report(system: System, folder: RunFolder) -> Path:
    """Write the report of a finished run again, from its own files."""
    summary = folder.summary
    if summary is None:
        raise ValueError(f"run {folder.path} is not finished; finish it with `gencg run`")
    ensemble = read_samples(folder.path)
    rungs = load_checkpoint(folder.checkpoint).get("ladder", [])
    soft = system.coordinates.soft
    ladder = [(r["beta"], r["y"][:, soft], r["energy"], r["log_weights"]) for r in rungs]
    probes: tuple[Probe, ...] = ()
    if folder.probes.exists():
        probes = restore_probes(load_checkpoint(folder.probes)["probes"])
    assessment = assess(system, ensemble, ladder=ladder, probes=probes)
    found = None
    if folder.config.discovers:
        found = discovered(trained(system, folder), folder)
    return write_run_report(folder, system, ensemble, assessment, summary, found=found)


def write_run_report(
    folder: RunFolder,
    system: System,
    ensemble: Ensemble,
    assessment: Assessment,
    summary: dict[str, Any],
    *,
    found: Discovery | None = None,
) -> Path:
    """Write report.html and the figures of a run."""
    return write_report(
        folder.path,
        ensemble,
        system=system,
        summary=summary,
        history=folder.history(),
        assessment=assessment,
        settings=dataclasses.asdict(folder.config) | {"inputs": list(folder.inputs)},
        versions=folder.versions,
        optimisation=folder.config.optimisation(),
        slow=None if found is None else found.slow,
        gap=None if found is None else found.gap,
        explanations=explained(folder),
    )


def spent_seconds(folder: RunFolder) -> float:
    """Wall time that earlier starts of a run spent in training steps, lost ones included."""
    history = folder.history()
    return history[-1].seconds if history else 0.0
