"""A run whose generator is taken over: the one that comes with gencg, or that of another run."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gencg import parallel, pretrained
from gencg.checkpoint import load_checkpoint
from gencg.config import SHIPPED, RunConfig
from gencg.discover import REHEATING, reheat
from gencg.drawn import digest
from gencg.fit import FitResult, as_result, fit
from gencg.mixing import mix
from gencg.models.build import model_of, sees_contacts, with_contacts
from gencg.models.mixture import members_of
from gencg.run.folder import RunFolder
from gencg.run.record import write_json
from gencg.systems.base import System
from gencg.systems.registry import default_force_field
from gencg.target import BoltzmannTarget
from gencg.training import SNAPSHOTS, Reporter

SAME_ENERGY = 1e-3
"""Deviation in kJ/mol up to which two force fields are the same."""

Trained = Callable[[System, RunFolder], FitResult]


def take_over(
    system: System,
    folder: RunFolder,
    *,
    trained: Trained,
    reporters: Sequence[Reporter] = (),
    stop: Callable[[], bool] | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> FitResult:
    """The generator that a run's settings name, as a training of no steps in its folder.

    Where they ask for it, it is first trained further. Soft blocks of hotter stages come with
    that of a run, or of an annealing that began hot enough for all of them. The file of a shipped
    one holds none, so that they are made (`reheat`). All is counted as the run's own energy calls.

    Args:
        system: What the run samples.
        folder: The run; if it has a checkpoint, all is read from it.
        trained: Gives the generator of another run.
        reporters: As in `fit`, of the further training.
        stop: As in `fit`.
        announce: Called with a line of text for each thing done.

    Raises:
        ValueError: If there is no such generator, or it is of something else.
        TimeIsUp: If `stop` said so; the same call goes on.
    """
    config = folder.config
    assert config.temperature is not None
    target = BoltzmannTarget(system.energy, system.coordinates, config.temperature)
    if folder.checkpoint.exists():
        with torch.random.fork_rng():
            parameters = load_checkpoint(folder.checkpoint)["average"]
            model = model_of(system.coordinates, parameters)
        return as_result(
            system, model, target=target, seed=config.seed, checkpoint=folder.checkpoint
        )
    source, origin = find_generator(config, system, trained=trained)
    announce(
        f"taking over the generator of {origin['source']}, trained with "
        f"{origin['energy_calls']:,} energy calls"
    )
    if config.further_calls is not None and source.leading is not source:
        announce("it is a mixture, of which the first generator goes on alone")
        source = source.leading
    result = as_result(system, source.model, target=target, seed=config.seed)
    if config.further_calls is not None:
        hot = f" from {config.anneal_from:g} K down" if config.anneal_from else ""
        announce(f"training it further{hot} with {config.further_calls:,} energy calls")
        result = train_further(result, folder, reporters=reporters, stop=stop)
    hottest = result if len(result.snapshots) == len(SNAPSHOTS) else source
    snapshots, spent = hottest.state.snapshots, (result.energy_calls, result.gradient_calls)
    if not snapshots and config.reheating_calls:
        announce(f"heating its soft coordinates with {config.reheating_calls:,} energy calls")
        reheated = reheat(
            result,
            energy_calls=config.reheating_calls,
            batch_size=config.batch_size,
            seed=config.seed,
            folder=folder.path,
            checkpoint_seconds=config.checkpoint_seconds,
            stop=stop,
        )
        snapshots = reheated.snapshots
        spent = spent[0] + reheated.energy_calls, spent[1] + reheated.gradient_calls
    write_json(folder.path / "origin.json", origin)
    result = as_result(
        system,
        result.model,
        target=target,
        seed=config.seed,
        checkpoint=folder.checkpoint,
        snapshots=snapshots,
        ladder=result.ladder if config.anneal_from else source.ladder,
        history=result.history,
        energy_calls=spent[0],
        gradient_calls=spent[1],
    )
    forget_trainings(folder)
    return result


def train_further(
    result: FitResult,
    folder: RunFolder,
    *,
    reporters: Sequence[Reporter] = (),
    stop: Callable[[], bool] | None = None,
) -> FitResult:
    """Train a copy of a generator further, with the further calls of a run.

    At its temperature the rate rises to a third of that of the settings: the generator begins at a
    good place, which the full one would leave. There is no ladder from hot to cold, which is what
    finds states. One that is annealed (`RunConfig.anneal_from`) has that and the full rate. A
    generator that was made before stiff blocks saw contacts sees them from then on
    (`with_contacts`).

    Args:
        result: The generator, which stays as it is.
        folder: The run, which keeps the training until `forget_trainings`.
        reporters: As in `fit`.
        stop: As in `fit`.

    Raises:
        TrainingError: If training cannot go on.
        TimeIsUp: If `stop` said so; the same call goes on.
    """
    config = folder.config
    model, further = copy.deepcopy(result.model), folder.further
    if not further.exists() or sees_contacts(load_checkpoint(further)["model"]):
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model = with_contacts(model, result.system.coordinates)
    return fit(
        result.system,
        temperature=config.temperature,
        energy_calls=config.training_calls,
        batch_size=config.batch_size,
        tempering=config.schedule(),
        optimisation=config.optimisation(),
        estimator=config.estimator,
        model=model,
        seed=config.seed,
        checkpoint=further,
        checkpoint_seconds=config.checkpoint_seconds,
        reporters=reporters,
        stop=stop,
    )


def forget_trainings(folder: RunFolder) -> None:
    """Remove what led to the checkpoint of a generator that was taken over."""
    if parallel.rank() == 0:
        for path in (folder.further, *(folder.path / name for name in REHEATING)):
            path.unlink(missing_ok=True)


def find_generator(
    config: RunConfig, system: System, *, trained: Trained
) -> tuple[FitResult, dict[str, Any]]:
    """The generator that settings name, of several their mixture, and where it comes from.

    Args:
        config: Resolved settings.
        system: What they sample.
        trained: Gives the generator of another run.

    Returns:
        The generator, and as plain values its ``source``, ``energy_calls``, ``gradient_calls``
        (where known), ``ess``, ``seed``, ``command``, and ``trainings``: the energy and gradient
        calls of each training by the digest of what it made. A training that several began from
        counts once. Of a mixture there are no ESS and no seed, but ``members`` with theirs.

    Raises:
        ValueError: If there is none, or it is of other coordinates, another force field or
            temperature.
    """
    assert config.generator is not None
    found = [_find(name, config, system, trained) for name in config.generator]
    if len(found) == 1:
        return found[0]
    results, origins = zip(*found, strict=True)
    _check_apart(config.generator, results)
    trainings: dict[str, tuple[int, int | None]] = {}
    for origin in origins:
        for name, calls in origin["trainings"].items():
            # Of a run that took it over as it is, with what that spent
            trainings[name] = max(calls, trainings.get(name, calls), key=lambda spent: spent[0])
    # What several began from is told once
    texts = [origin["command"] for origin in origins if origin["command"]]
    commands = dict.fromkeys(command for text in texts for command in text.split("; "))
    return mix(results), {
        "source": ", ".join(origin["source"] for origin in origins),
        "command": "; ".join(commands) or None,
        "seed": None,
        "energy_calls": sum(energy for energy, _ in trainings.values()),
        "gradient_calls": sum(gradient or 0 for _, gradient in trainings.values()),
        "ess": None,
        "trainings": trainings,
        "members": [
            {key: origin[key] for key in ("source", "energy_calls", "ess", "seed", "command")}
            for origin in origins
        ],
    }


def _find(
    name: str, config: RunConfig, system: System, trained: Trained
) -> tuple[FitResult, dict[str, Any]]:
    """One generator by its name, and where it comes from."""
    if name == SHIPPED:
        check_shipped(config)
        result = pretrained.load(config.target)
        origin = {"gradient_calls": None, **pretrained.about(config.target)}
        origin["source"] = f"{config.target} as shipped"
        origin["trainings"] = {digest(result.model): (origin["energy_calls"], None)}
    else:
        result, origin = _of_run(name, trained)
    check_same(name, config, system, result)
    return result, origin


def _of_run(name: str, trained: Trained) -> tuple[FitResult, dict[str, Any]]:
    """The generator of a run, and where it comes from."""
    folder = RunFolder.open(name)
    if folder.config.decoder != "spline":
        raise ValueError(
            f"`generator` must be a run with the spline decoder, and {folder.path} has "
            f"{folder.config.decoder}; choose another run"
        )
    before = folder.origin or {}
    trainings = _trainings_before(before, folder)
    # Opening it sets the threads that its own settings ask for
    threads = torch.get_num_threads()
    result = trained(folder.system(), folder)
    torch.set_num_threads(threads)
    own = result.energy_calls, result.gradient_calls
    key = digest(result.model)
    energy, gradient = trainings.get(key, (0, 0))
    summary = folder.before_cvs or folder.summary or {}
    return result, {
        "source": name,
        "command": _commands(before.get("command"), (folder.versions or {}).get("command")),
        "seed": folder.config.seed,
        "energy_calls": own[0] + before.get("energy_calls", 0),
        "gradient_calls": own[1] + (before.get("gradient_calls") or 0),
        "ess": summary.get("ess"),
        # One that was taken over as it is has the digest of what it was taken from
        "trainings": trainings | {key: (energy + own[0], (gradient or 0) + own[1])},
    }


def _check_apart(names: Sequence[str], results: Sequence[FitResult]) -> None:
    """Refuse the same generator twice, whatever its names, or as a member of another one."""
    seen: dict[str, str] = {}
    for name, result in zip(names, results, strict=True):
        for member in members_of(result.model):
            key = digest(member)
            if key in seen:
                where = "twice" if seen[key] == name else f"in {seen[key]} already"
                raise ValueError(f"`generator` {name} is {where}, or a part of it; leave it out")
            seen[key] = name


def _trainings_before(
    origin: dict[str, Any], folder: RunFolder
) -> dict[str, tuple[int, int | None]]:
    """Calls of what a run began from; one of an earlier version tells one sum and no digest."""
    if not origin:
        return {}
    try:
        total = int(origin["energy_calls"]), origin.get("gradient_calls")
        if "trainings" not in origin:
            return {f"{origin['source']}: {origin['command']}": total}
        return {
            str(name): (int(energy), gradient)
            for name, (energy, gradient) in origin["trainings"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"{folder.path / 'origin.json'} is damaged; restore it, or make the run again with "
            "--override"
        ) from None


def _commands(earlier: str | None, own: str | None) -> str | None:
    """What was called to make a generator, one after the other."""
    if not earlier or not own or own.startswith(earlier):
        return own
    return f"{earlier}; {own}"


def check_shipped(config: RunConfig) -> None:
    """Refuse settings for which no generator comes with gencg.

    Raises:
        ValueError: If the target has none, or the force field is not its own.
    """
    names = pretrained.names()
    if config.target not in names:
        raise ValueError(
            f"`generator` shipped is there for {', '.join(names)}, got {config.target}; give a "
            "run folder, or leave --generator out to train one"
        )
    own = default_force_field(config.target)
    if tuple(config.forcefield) != own:
        raise ValueError(
            f"`generator` shipped of {config.target} is for {' '.join(own)}, got "
            f"{' '.join(config.forcefield)}; leave --generator out to train one"
        )


def check_same(name: str, config: RunConfig, system: System, result: FitResult) -> None:
    """Refuse a generator of something else than a run samples.

    Raises:
        ValueError: If coordinates, temperature or energies differ.
    """
    theirs = result.system
    if theirs.coordinates.names != system.coordinates.names:
        raise ValueError(
            f"`generator` {name} is of {theirs.name}, whose coordinates are not those of "
            f"{system.name}; give a run of the same molecule"
        )
    if result.target.temperature != config.temperature:
        raise ValueError(
            f"`generator` {name} is for {result.target.temperature:g} K, asked is "
            f"{config.temperature:g} K; give --temperature {result.target.temperature:g}"
        )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        _, y, _ = result.model.sample(8)
        x, _ = system.coordinates.inverse(y.double().cpu())
        off = (system.energy.energy(x) - theirs.energy.energy(x)).abs()
    finite = off[torch.isfinite(off)]
    # An offset is another force field too: energies would not be those of its report
    if not len(finite) or float(finite.max()) > SAME_ENERGY:
        raise ValueError(
            f"`generator` {name} is of another force field: its energies differ by "
            f"{float(off.max()):.3g} kJ/mol; give a run of the same one"
        )
