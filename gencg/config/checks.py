"""Rules of single settings, each with its words."""

import math
from pathlib import PurePath
from typing import Any


def as_pairs(value: Any) -> tuple[tuple[float, float], ...]:
    """Pairs of numbers, given as pairs or one after the other."""
    try:
        flat = [
            float(x)
            for item in value
            for x in (item if isinstance(item, list | tuple) else (item,))
        ]
        paired = tuple(zip(flat[::2], flat[1::2], strict=True))
    except (TypeError, ValueError):
        raise ValueError(f"`phi_psi` must be pairs of numbers in degrees, got {value!r}") from None
    return paired


def as_inputs(value: Any) -> tuple[tuple[str, str, str], ...]:
    """What a run keeps of its input files: three words each, the copy within the folder."""
    entries = value if isinstance(value, list | tuple) else [value]
    for entry in entries:
        words = isinstance(entry, list | tuple) and [w for w in entry if isinstance(w, str)]
        if not words or len(words) != 3 or len(entry) != 3:
            raise ValueError(f"`inputs` must be triples of words, got {entry!r}")
        copy = PurePath(words[1])
        if copy.is_absolute() or ".." in copy.parts:
            raise ValueError(f"`inputs` must name copies within the run folder, got {words[1]!r}")
    return tuple((given, copy, checksum) for given, copy, checksum in entries)


def check_number(config: Any, name: str, rule: str) -> None:
    """Make a setting a finite float, or refuse it by its rule."""
    value = getattr(config, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value)):
        raise ValueError(f"`{name}` must be {rule}, got {value!r}")
    object.__setattr__(config, name, float(value))


def check_positive(config: Any, name: str, rule: str, *, optional: bool = False) -> None:
    """Make a setting a positive finite float, or refuse it by its rule."""
    value = getattr(config, name)
    if value is None and optional:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be {rule}, got {value!r}")
    object.__setattr__(config, name, float(value))


def check_integer(
    config: Any, name: str, least: int, *, label: str = "", optional: bool = False
) -> None:
    """Make a setting a whole number of at least `least`, or refuse it."""
    value = getattr(config, name)
    if value is None and optional:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value == int(value) and value >= least):
        raise ValueError(
            f"`{label or name}` must be a whole number of at least {least}, got {value!r}"
        )
    object.__setattr__(config, name, int(value))
