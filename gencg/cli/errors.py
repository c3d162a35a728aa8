"""What a bad input or an interruption becomes: one line on stderr and an exit code."""

import os

import click

BAD_INPUT, INTERRUPTED, UNEXPECTED = 2, 130, 1


def reraise_if_debugging(args: list[str]) -> None:
    """Within an `except`: let the error go on with its traceback, where one asked for it."""
    if "--debug" in args or os.environ.get("GENCG_DEBUG"):
        raise


def complain(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    click.echo("gencg: " + " ".join(message.split()), err=True)
