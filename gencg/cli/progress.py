"""Progress on stderr: lines between the stages and bars within them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from gencg.training import StepInfo


def speaker(options: dict[str, Any]) -> Callable[[str], None]:
    """Prints a line on stderr, or nothing with `--quiet`."""

    def say(text: str) -> None:
        if not options["quiet"]:
            click.echo(text, err=True)

    return say


@contextmanager
def progress(options: dict[str, Any]) -> "Iterator[list[Callable[[StepInfo], None]]]":
    """A progress bar on stderr as the reporter of a training, or none."""
    if options["quiet"]:
        yield []
        return
    from tqdm import tqdm

    bar: Any = None

    def report(info: "StepInfo") -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(
                total=info.n_steps, initial=info.step - 1, unit="step", file=sys.stderr,
                dynamic_ncols=True, mininterval=0.5,
            )  # fmt: skip
        bar.set_postfix_str(
            f"T={info.temperature:.0f} K, loss={info.loss:.3f}, ESS={info.ess:.2f}, "
            f"calls={info.energy_calls:.3g}",
            refresh=False,
        )
        bar.update()
        if info.step == info.n_steps:
            bar.close()
            bar = None  # the joint training has a bar of its own

    try:
        yield [report]
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def counter(options: dict[str, Any]) -> Iterator[list[Callable[[int, int], None]]]:
    """A progress bar on stderr as the reporter of a reweighting, or none."""
    if options["quiet"]:
        yield []
        return
    from tqdm import tqdm

    with tqdm(unit="sample", file=sys.stderr, dynamic_ncols=True, mininterval=0.5) as bar:

        def report(n_done: int, n_all: int) -> None:
            bar.total = n_all
            bar.update(n_done - bar.n)

        yield [report]
