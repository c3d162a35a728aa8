"""`gencg systems`: the ready-made systems."""

from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show


@click.command(
    cls=Command,
    examples=(
        "gencg systems",
        "gencg systems --json",
    ),
)
@with_options(OUTPUT)
def systems(**options: Any) -> None:
    """List the ready-made systems.

    With the number of atoms, force field, default temperature and log Z, where it is known.
    """
    from gencg.systems import SYSTEMS, overview

    found = {name: overview(name) for name in SYSTEMS}
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
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    show(options, found, "\n".join(lines))
