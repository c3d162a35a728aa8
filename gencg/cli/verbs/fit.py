"""`gencg fit`: train alone."""

import json
from typing import Any

import click

from gencg.cli.options import ENERGY, OUTPUT, TRAINING, with_options
from gencg.cli.parameters import Command
from gencg.cli.progress import progress
from gencg.cli.settings import configure


@click.command(cls=Command)
@click.argument("target")
@with_options(ENERGY, TRAINING, OUTPUT)
def fit(target: str, **options: Any) -> None:
    """Train on TARGET, without drawing.

    `gencg run` with the same settings goes on from there.
    """
    from gencg import parallel
    from gencg.run import RunFolder, train

    config, system, path = configure(target, options)
    with parallel.processes():
        first = parallel.rank() == 0
        options["quiet"] |= not first
        with (
            RunFolder.shared(path, config, override=options["override"]) as folder,
            folder.locked(),
            progress(options) as reporters,
        ):
            result = train(system, folder, reporters=reporters)
    if not first:
        return
    numbers = {
        "out": str(path),
        "steps": result.state.step,
        "energy_calls": result.energy_calls,
        "gradient_calls": result.gradient_calls,
        "seconds": result.seconds,
    }
    if options["as_json"]:
        click.echo(json.dumps(numbers, indent=2))
    else:
        click.echo(f"trained {numbers['steps']} steps; draw with `gencg sample {path}`")
