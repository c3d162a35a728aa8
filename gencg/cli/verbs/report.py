"""`gencg report`: the report of a run again."""

import json
from typing import Any

import click

from gencg.cli.options import OUTPUT, with_options
from gencg.cli.parameters import Command


@click.command(cls=Command)
@click.argument("folder", metavar="RUN", type=click.Path())
@with_options(OUTPUT)
def report(folder: str, **options: Any) -> None:
    """Write the report of RUN again."""
    from gencg.run import RunFolder, rewrite_report

    opened = RunFolder.open(folder)
    path = rewrite_report(opened.system(), opened)
    click.echo(json.dumps({"report": str(path)}) if options["as_json"] else str(path))
