"""Kinds of values on the command line: numbers such as 5e6, durations, lists after one flag."""

from collections.abc import Callable
from typing import Any

import click

from gencg.cli.durations import seconds_of
from gencg.deadline import Deadline


def _is_xml(arg: str) -> bool:
    return arg.lower().endswith(".xml")


def _is_number(arg: str) -> bool:
    try:
        float(arg)
    except ValueError:
        return False
    return True


def _is_format(arg: str) -> bool:
    return arg in ("torchscript", "plumed", "colvars", "openmm", "colvar", "xtc", "dcd", "h5")


_LISTS: dict[str, Callable[[str], bool]] = {
    "--forcefield": _is_xml,
    "--format": _is_format,
    "--cv": _is_number,
    "--phi-psi": _is_number,
}


def spread(args: list[str]) -> list[str]:
    """``--forcefield a.xml b.xml`` becomes ``--forcefield a.xml --forcefield b.xml``.

    So does ``--cv 0.3 -1.2``, whose negative number is no option.
    """
    words: list[str] = []
    flag = ""
    for arg in args:
        if flag and _LISTS[flag](arg):
            words += [flag, arg]
            continue
        # The value right after the flag is its own, whatever it looks like
        flag = words[-1] if words and words[-1] in _LISTS else ""
        words.append(arg)
        name, equals, _ = arg.partition("=")
        if equals and name in _LISTS:
            flag = name
    return words


class Count(click.ParamType):  # type: ignore[type-arg]
    """A whole number that may be written 5e6."""

    name = "number"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            # Digits alone are taken as they are: a float would round a long seed
            if str(value).strip().lstrip("+-").isdecimal():
                return int(value)
            number = float(value)
            if number != int(number):
                raise ValueError
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a whole number, such as 5000000 or 5e6", param, ctx)
        return int(number)


class Seed(Count):
    """A whole number from 0 to 2^63 - 1."""

    name = "seed"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        number = super().convert(value, param, ctx)
        if not 0 <= number < 2**63:
            self.fail(f"{value} is no seed, a whole number from 0 to 2^63 - 1", param, ctx)
        return number


class Cvs(Count):
    """A number of collective variables, or the word auto."""

    name = "number|auto"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return "auto" if value == "auto" else super().convert(value, param, ctx)


class Limit(click.ParamType):  # type: ignore[type-arg]
    """A time limit as a `Deadline`, which begins here, before anything heavy is loaded."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> Deadline:
        if isinstance(value, Deadline):
            return value
        try:
            return Deadline(seconds_of(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


COUNT = Count()
