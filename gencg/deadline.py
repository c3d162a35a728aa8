"""A time limit, such as that of a queue: what is not done by then is left for the next start."""

import time
from collections.abc import Callable

RESERVE = 5.0
"""Seconds kept for leaving, of a long limit; of a short one a twentieth."""


EXIT_CODE = 75
"""How a process ends that a limit stopped: EX_TEMPFAIL, as for "try again later"."""


class TimeIsUp(Exception):  # noqa: N818
    """The limit is near, and everything done is on disk; the same command goes on from there."""


class Deadline:
    """A time limit.

    Kept back are a few seconds and twice the longest time that passed between two questions: the
    next step, or the writing of a checkpoint, may take as long.

    Args:
        seconds: The limit.
        started: When it began, by the clock; now by default.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        seconds: float,
        *,
        started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < seconds < float("inf"):
            raise ValueError(f"`seconds` must be a positive number, got {seconds}")
        self.seconds, self.clock = seconds, clock
        self.started = clock() if started is None else started
        self._asked: float | None = None
        self._longest = 0.0

    @property
    def left(self) -> float:
        """Seconds left; negative once it is over."""
        return self.started + self.seconds - self.clock()

    def due(self) -> bool:
        """Whether there may be no time for another step; to be asked after each."""
        now = self.clock()
        if self._asked is not None:
            self._longest = max(self._longest, now - self._asked)
        self._asked = now
        return self.left < 2 * self._longest + min(RESERVE, self.seconds / 20)

    def late_for(self, seconds: float = 0.0) -> bool:
        """Whether a stage that cannot be cut is better left for the next start.

        A stage that needs more than the whole limit is begun at the start of one all the same.

        Args:
            seconds: How long it takes, about.
        """
        self._asked = None
        reserve = min(RESERVE, self.seconds / 20)
        fresh = self.clock() - self.started < 0.1 * self.seconds
        return self.left < reserve or (self.left < seconds + reserve and not fresh)
