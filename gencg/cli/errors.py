"""What a bad input, an interruption or a warning becomes: a line on stderr, and an exit code."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from gencg.deadline import EXIT_CODE

DONE, FAILED, BAD_INPUT, UNWRITABLE, TIME_IS_UP, INTERRUPTED = 0, 1, 2, 74, EXIT_CODE, 130
"""Exit codes; `FAILED` where it ran and something did not hold, `UNWRITABLE` (EX_IOERR) where the
disk is full, failing, or read-only."""
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def reraise_if_debugging(args: list[str]) -> None:
    """Within an `except`: let the error go on with its traceback, where one asked for it."""
    if "--debug" in args or os.environ.get("GENCG_DEBUG"):
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is that of a machine without memory; torch has no class for it."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)
    )


def complain(message: str) -> None:
    """One line on stderr, whatever the message holds: nothing in it steers the terminal."""
    line = " ".join(message.split())
    click.echo("gencg: " + "".join(c if c.isprintable() else "\ufffd" for c in line), err=True)


@contextmanager
def warnings_told() -> Iterator[None]:
    """Show what is logged as `complain` does, where nothing else shows it."""
    logger = logging.getLogger("gencg")
    if logger.hasHandlers():
        yield
        return
    handler = _Complaining()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Complaining(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())
