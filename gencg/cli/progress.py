"""Progress on stderr: a bar on a terminal, a line now and then in a log file, time left in both."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from gencg.cli.durations import in_words

if TYPE_CHECKING:
    from gencg.training import StepInfo

EVERY = 30.0
"""Seconds between two lines where stderr is no terminal."""
FIRST = 5.0
"""Seconds of steps before the time left is told, the first two left out: they compile."""

Clock = Callable[[], float]


def speaker(options: dict[str, Any]) -> Callable[[str], None]:
    """Prints a line on stderr, or nothing with `--quiet`."""

    def say(text: str) -> None:
        if not options["quiet"]:
            click.echo(text, err=True)

    return say


class Progress:
    """Counts of one stage, as a bar on a terminal and as lines elsewhere.

    Args:
        stage: What is done, such as "training".
        unit: What is counted.
        stream: Where to write; stderr by default.
        clock: Seconds, for the time left.
    """

    def __init__(
        self,
        stage: str,
        *,
        unit: str = "step",
        stream: TextIO | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.stage, self.unit, self.clock = stage, unit, clock
        self.stream = stream or sys.stderr
        self._bar: Any = None
        self._begun: tuple[float, int] | None = None
        self._told = clock()

    def at(self, n_done: int, n_all: int, words: str = "", *, skip: int = 0) -> None:
        """Show how far the stage is.

        Args:
            n_done: Done, of `n_all`.
            n_all: All there is to do.
            words: What else to show.
            skip: How many of those done were there before this start.
        """
        if self._begun is None or n_done <= skip + 2:
            self._begun = (self.clock(), n_done)
        if self.stream.isatty():
            self._draw(n_done, n_all, words, skip)
        elif n_done == n_all or self.clock() - self._told >= EVERY:
            self._told = self.clock()
            left = self.left(n_done, n_all)
            time_left = "" if left is None or n_done == n_all else f", {in_words(left)} left"
            self.say(
                f"{self.stage}: {self.unit} {n_done:,} of {n_all:,} "
                f"({100 * n_done // n_all} %){time_left}{', ' if words else ''}{words}"
            )
        if n_done == n_all:
            self.close()

    def left(self, n_done: int, n_all: int) -> float | None:
        """Seconds left at the pace so far; None while there is none."""
        each = self.pace(n_done)
        return None if each is None else each * (n_all - n_done)

    def pace(self, n_done: int) -> float | None:
        """Seconds of one unit; None before two of them are timed."""
        if self._begun is None or n_done - self._begun[1] < 2:
            return None
        return (self.clock() - self._begun[0]) / (n_done - self._begun[1])

    @property
    def seconds(self) -> float:
        """Time since the pace is measured."""
        return 0.0 if self._begun is None else self.clock() - self._begun[0]

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self.stream)
        else:
            click.echo(text, file=self.stream)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, n_done: int, n_all: int, words: str, skip: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=n_all, initial=skip, desc=self.stage, unit=self.unit, file=self.stream,
                dynamic_ncols=True, mininterval=0.5,
            )  # fmt: skip
        self._bar.total = n_all
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(n_done - self._bar.n)


class TrainingProgress:
    """Reporter of a training, which once tells when it and what follows will be done.

    Args:
        progress: Where it is shown.
        after: Seconds of what follows the training for so many seconds of a step, if it is known.
    """

    def __init__(
        self, progress: Progress, *, after: Callable[[float], float] | None = None
    ) -> None:
        self.progress, self.after = progress, after
        self._skip: int | None = None
        self._told = False

    def __call__(self, info: "StepInfo") -> None:
        if self._skip is None:
            self._skip = info.step - 1
        self.progress.at(
            info.step,
            info.n_steps,
            f"T={info.temperature:.0f} K, loss={info.loss:.3f}, ESS={info.ess:.2f}, "
            f"calls={info.energy_calls:.3g}"
            + (f", restored={info.n_restored}" if info.n_restored else ""),
            skip=self._skip,
        )
        if not self._told and self.progress.seconds >= FIRST and info.step < info.n_steps:
            self._forecast(info)

    def _forecast(self, info: "StepInfo") -> None:
        each = self.progress.pace(info.step)
        if each is None:
            return
        self._told = True
        text = f"about {in_words(each * (info.n_steps - info.step))} left for {self.progress.stage}"
        if self.after is not None:
            text += f", then about {in_words(self.after(each))} to the report"
        self.progress.say(text)


@contextmanager
def training_progress(
    options: dict[str, Any], *stages: str, after: Callable[[float], float] | None = None
) -> "Iterator[list[list[Callable[[StepInfo], None]]]]":
    """For each stage the reporters that show it; none with `--quiet`.

    Args:
        options: Options of the verb.
        stages: Names of the trainings, in their order.
        after: As for `TrainingProgress`, of the first.
    """
    if options["quiet"]:
        yield [[] for _ in stages]
        return
    shown = [Progress(stage) for stage in stages]
    try:
        yield [
            [TrainingProgress(progress, after=after if progress is shown[0] else None)]
            for progress in shown
        ]
    finally:
        for progress in shown:
            progress.close()


@contextmanager
def counter(options: dict[str, Any]) -> Iterator[list[Callable[[int, int], None]]]:
    """Shows a reweighting as its reporter, or none with `--quiet`."""
    if options["quiet"]:
        yield []
        return
    progress = Progress("reweighting", unit="sample")
    try:
        yield [progress.at]
    finally:
        progress.close()
