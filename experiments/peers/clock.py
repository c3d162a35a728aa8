"""Processor time of a run, without what only measures it."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """CPU seconds of this process since it began, imports and compilers it started included.

    On one thread they are the seconds of a core that is not shared; what runs inside `paused` is
    left out. `start` sets it to zero.
    """

    def __init__(self) -> None:
        self._left_out = 0.0

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        return _spent() - self._left_out

    def start(self, seconds: float = 0.0) -> None:
        """Go on from `seconds`."""
        self._left_out = _spent() - seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside."""
        before = _spent()
        yield
        self._left_out += _spent() - before


def _spent() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
