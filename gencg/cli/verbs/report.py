"""`gencg report`: the report of a run again."""

from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Run
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show


@click.command(
    cls=Command,
    examples=(
        "gencg report runs/ala2",
        "gencg report runs/ala2 --json",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@with_options(OUTPUT)
def report(folder: str, **options: Any) -> None:
    """Write the report of RUN again."""
    from gencg.run import RunFolder, rewrite_report

    opened = RunFolder.open(folder)
    with opened.locked():
        path = rewrite_report(opened.system(), opened)
    show(options, {"report": str(path)}, str(path))
