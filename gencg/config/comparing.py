"""Whether a run may go on with other settings, and what differs where not."""

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gencg.config.run_config import RunConfig

FOR_CVS = ("n_cvs", "descriptors", "energy_calls", "coverage_calls")
"""Settings that may change, or are not looked at yet, where collective variables are added."""


def differences(
    mine: "RunConfig", theirs: "RunConfig", *, without: Collection[str] = ()
) -> list[str]:
    """Settings that differ and touch the result, in words, some of them left out."""
    found = _changed(mine.inputs, theirs.inputs)
    # One checksum of all force fields is what runs of earlier versions have
    kept = {given for given, *_ in mine.inputs} & {given for given, *_ in theirs.inputs}
    compared = {
        "inputs",
        *without,
        *(["forcefield_checksum"] if kept & set(mine.forcefield) else []),
    }
    for item in fields(mine):
        here, there = getattr(mine, item.name), getattr(theirs, item.name)
        if item.name == "generator" and None not in (here, there):
            here, there = (tuple(str(Path(name)) for name in names) for names in (here, there))
        if item.name in compared:
            continue
        if here != there and not item.metadata.get("benign"):
            found.append(f"{item.name} is {_shown(there)} there and {_shown(here)} here")
    return found


def adds_cvs(mine: "RunConfig", theirs: "RunConfig") -> bool:
    """Whether settings ask for collective variables in a run that was made without (--cvs 0)."""
    return mine.discovers and theirs.decoder == mine.decoder and theirs.n_cvs == 0


def hindrances(mine: "RunConfig", theirs: "RunConfig") -> list[str]:
    """What stands against adding collective variables to a run, in words.

    The training does not know of them: with the same steps it is the same generator, and the run
    goes on with what is missing. `energy_calls` is the budget for everything, so that it has to
    grow by what the collective variables take.
    """
    found = differences(mine, theirs, without=FOR_CVS)
    if found or (mine.mode_calls == theirs.mode_calls and _steps(mine) == _steps(theirs)):
        return found
    if mine.generator is not None:
        return [
            f"lost modes were looked for with {theirs.mode_calls:,} energy calls there; give "
            f"--coverage-calls {theirs.mode_calls}"
        ]
    return [
        f"with collective variables {_steps(mine):,} training steps fit into the budget, and it "
        f"took {_steps(theirs):,}; give --energy-calls {energy_calls_with_cvs(mine, theirs)} "
        f"--coverage-calls {theirs.mode_calls} to add them"
    ]


def energy_calls_with_cvs(mine: "RunConfig", theirs: "RunConfig") -> int:
    """The budget with which settings with collective variables train as a run without them did."""
    wanted = _steps(theirs) * mine.batch_size
    total = wanted
    while True:
        trial = replace(mine, energy_calls=None, coverage_calls=theirs.mode_calls)
        needed = wanted + trial.extra_calls(total)
        if needed == total:
            return total
        total = needed


def _steps(config: "RunConfig") -> int:
    return config.training_calls // config.batch_size


def _changed(
    mine: tuple[tuple[str, str, str], ...], theirs: tuple[tuple[str, str, str], ...]
) -> list[str]:
    """Files that both have, with other contents; other files are other settings anyway."""
    there = {given: checksum for given, _, checksum in theirs}
    return [
        f"checksum of {given} is {there[given][:8]} there and {checksum[:8]} here"
        for given, _, checksum in mine
        if there.get(given, checksum) != checksum
    ]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "not given"
    return f"{value:g}" if isinstance(value, float) else str(value)
