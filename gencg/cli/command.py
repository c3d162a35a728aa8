"""A verb: its help ends with examples, and some of its options take a list."""

from collections.abc import Sequence
from typing import Any

import click

from gencg.cli.parameters import spread


class Command(click.Command):
    """A command whose `--forcefield` takes all XML files after it, `--cv` all numbers.

    Args:
        args: As of `click.Command`.
        examples: Command lines that end its help.
        kwargs: As of `click.Command`.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"  {line}\n")
