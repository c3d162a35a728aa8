"""`gencg states`: metastable states of a run."""

from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Run
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show
from gencg.cli.parameters import COUNT


@click.command(
    cls=Command,
    examples=(
        "gencg states runs/ala2",
        "gencg states runs/ala2 --n-states 4 --json",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.option("--n-states", type=COUNT, help="Number of states.  [slow processes + 1]")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/states]")
@with_options(OUTPUT)
def states(folder: str, n_states: int | None, **options: Any) -> None:
    """Metastable states of RUN and what they hold.

    Populations and free energies with errors, found from its slow functions and samples without an
    energy call. Raw populations stand beside the reweighted ones. Writes states.json, a picture and
    a structure of each.
    """
    from gencg.run import RunFolder
    from gencg.run.record import finite
    from gencg.run.states import find_states, write_states

    opened = RunFolder.open(folder)
    found = find_states(opened, n_states=n_states)
    files = [str(path) for path in write_states(found, options["out"] or opened.path / "states")]
    show(options, finite({**found.numbers(), "files": files}), f"{found}\n{files[1]}")
