"""`gencg systems`: the ready-made systems."""

import json
from typing import Any

import click

from gencg.cli.options import OUTPUT, with_options
from gencg.cli.parameters import Command


@click.command(cls=Command)
@with_options(OUTPUT)
def systems(**options: Any) -> None:
    """List the ready-made systems.

    With the number of atoms, force field, default temperature and log Z, where it is known.
    """
    from gencg.systems import SYSTEMS, overview

    found = {name: overview(name) for name in SYSTEMS}
    if options["as_json"]:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [("name", "atoms", "force field", "T (K)", "log Z", "what it is")]
    for name, about in found.items():
        log_z = about["known"].get("log_z")
        rows.append((
            name,
            str(about["n_atoms"] or "-"),
            " + ".join(about["forcefield"]) or "-",
            f"{about['temperature']:.5g}",
            "-" if log_z is None else f"{log_z:.4f}",
            about["description"],
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
