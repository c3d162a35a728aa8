"""From the words of the command line to the settings, system and folder of a run."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencg.cli.options import LOADING
from gencg.cli.progress import speaker

if TYPE_CHECKING:
    from gencg.config import RunConfig
    from gencg.run import RunFolder
    from gencg.run.events import EventWriter
    from gencg.systems.base import System


def configure(target: str, options: dict[str, Any]) -> "tuple[RunConfig, System, Path]":
    """Settings from the TOML file and the command line, which wins, their system and folder."""
    from gencg.config import RunConfig, read_toml
    from gencg.systems import load

    settings = read_toml(options["config_file"]) if options["config_file"] else {}
    given = {
        name: options[name]
        for name in (
            *LOADING, "temperature", "n_cvs", "descriptors", "seed", "energy_calls", "n_samples",
            "coverage_calls", "batch_size", "learning_rate", "tempering", "start_temperature",
            "generator", "further_calls", "anneal_from", "decoder", "estimator", "threads",
            "checkpoint_seconds", "formats",
        )
        # 0 is a value, of --cvs and --seed
        if options[name] is not None and options[name] is not False and options[name] != ()
    }  # fmt: skip
    RunConfig.check_names(settings, source=f"config file {options['config_file']}")
    config = RunConfig(**{**settings, **given, "target": target})
    path = _out(target, options)
    try:
        system = load(target, temperature=config.temperature, **config.loader_options)
        config = config.resolve(system)
    except FileNotFoundError as error:
        there = None if options["override"] else _run_of(path, target)
        if there is None or not there.inputs:
            raise
        speaker(options)(f"{error}: going on from the copies in {path}")
        there.check_inputs()
        config = replace(config, coordinates=config.coordinates or there.config.coordinates)
        system = load(
            target, temperature=config.temperature, kept=there.inputs, **config.loader_options
        )
        config = config.resolve(system, inputs=there.config.inputs)
    _check_generator(config, system, path, options)
    return config, system, path


def _check_generator(
    config: "RunConfig", system: "System", path: Path, options: dict[str, Any]
) -> None:
    """Refuse a generator that cannot be taken over and is not there yet."""
    there = (path / "checkpoint.pt").exists() and not options["override"]
    if config.generator is not None and not there:
        from gencg.run import check_generator

        check_generator(system, config)


def _run_of(path: Path, target: str) -> "RunFolder | None":
    """The run of a target in a folder, if there is one."""
    from gencg.run import RunFolder

    try:
        there = RunFolder.open(path)
    except ValueError:
        return None  # creating the folder says why
    return there if there.config.target == target else None


def _out(target: str, options: dict[str, Any]) -> Path:
    """The folder asked for, or runs/NAME."""
    from gencg.systems.registry import kind_of

    if options["out"]:
        return Path(options["out"])
    return Path("runs") / re.sub(r"[^\w.-]+", "_", kind_of(target).name(target))


@contextmanager
def event_writers(
    path: Path, options: dict[str, Any], *stages: str
) -> "Iterator[list[list[EventWriter]]]":
    """For each stage a writer of event files, with `--tensorboard` and of several processes one."""
    if not options["tensorboard"]:
        yield [[] for _ in stages]
        return
    from gencg import parallel
    from gencg.run.events import EventWriter

    writers = [EventWriter(path / "tensorboard" / stage) for stage in stages]
    try:
        yield [[writer] if parallel.rank() == 0 else [] for writer in writers]
    finally:
        for writer in writers:
            writer.close()


def refuse_existing(path: Path, options: dict[str, Any], cure: str) -> None:
    """Refuse to write over a path without `--override`."""
    if path.exists() and not options["override"]:
        raise ValueError(f"{path} exists; choose another {cure}, or write over it with --override")
