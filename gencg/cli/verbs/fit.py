"""`gencg fit`: train alone."""

from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Target
from gencg.cli.options import ENERGY, OUTPUT, RUNNING, TRAINING, with_options
from gencg.cli.output import show
from gencg.cli.progress import speaker, training_progress
from gencg.cli.settings import configure, event_writers


@click.command(
    cls=Command,
    examples=(
        "gencg fit alanine-dipeptide --out runs/ala2",
        "gencg fit sequence:ACE-ALA-ALA-NME --energy-calls 1e7 --threads 4",
        "gencg fit alanine-hexapeptide --time-limit 8h --tensorboard",
    ),
)
@click.argument("target", type=Target())
@with_options(ENERGY, TRAINING, RUNNING, OUTPUT)
def fit(target: str, **options: Any) -> None:
    """Train on TARGET, without drawing.

    `gencg run` with the same settings goes on from there. A time limit that came first ends with
    code 75.
    """
    from gencg import parallel
    from gencg.run import RunFolder, train

    config, system, path = configure(target, options)
    with parallel.processes():
        first = parallel.rank() == 0
        options["quiet"] |= not first
        with (
            event_writers(path, options, "training") as (events,),
            RunFolder.shared(path, config, override=options["override"]) as folder,
            folder.locked(),
            training_progress(options, "training") as (bars,),
        ):
            result = train(
                system,
                folder,
                reporters=[*bars, *events],
                deadline=options["deadline"],
                announce=speaker(options),
            )
    if not first:
        return
    numbers = {
        "out": str(path),
        "steps": result.steps,
        "energy_calls": result.energy_calls,
        "gradient_calls": result.gradient_calls,
        "seconds": result.seconds,
    }
    show(options, numbers, f"trained {numbers['steps']} steps; draw with `gencg sample {path}`")
