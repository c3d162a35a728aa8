"""`gencg walk`: structures along a path of least free energy."""

import re
from pathlib import Path
from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Run
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show
from gencg.cli.parameters import COUNT, Seed
from gencg.cli.settings import refuse_existing


@click.command(
    cls=Command,
    examples=(
        "gencg walk runs/ala2 --from 1 --to 3",
        "gencg walk runs/ala2 --cv 1 --points 24 -n 50",
        "gencg walk runs/ala2 --from 1 --to 2 --committor 20000 --format xtc",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.option("--cv", help="Along this collective variable: its number from 1, or its name.")
@click.option("--from", "start", metavar="STATE", help="From this state: its number or name.")
@click.option("--to", "end", metavar="STATE", help="To this state.")
@click.option("--points", type=COUNT, default=30, show_default=True, help="Points of the path.")
@click.option(
    "-n", "per_point", type=COUNT, default=200, show_default=True, help="Structures per point."
)
@click.option("--n-states", type=COUNT, help="Number of states, as for `gencg states`.")
@click.option("--committor", type=COUNT, default=0, help="Energy calls for the committor.  [none]")
@click.option("--seed", type=Seed(), help="Seed of the draw.  [the run's, plus one]")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/draws/...]")
@click.option("--format", "formats", multiple=True, help="Also write xtc or dcd.")
@click.option("--override", is_flag=True, help="Write over files that are there.")
@with_options(OUTPUT)
def walk(folder: str, **options: Any) -> None:
    """Structures of RUN along a path of least free energy.

    Between two of its states (`gencg states`), or along one collective variable. Writes a
    trajectory with one structure per point, all weighted structures and a picture with the free
    energy along the path.
    """
    from gencg.run import RunFolder
    from gencg.run.record import finite
    from gencg.run.walk import walk_run, write_walk

    opened = RunFolder.open(folder)
    seed = opened.config.seed + 1 if options["seed"] is None else options["seed"]
    ends = (options["cv"], options["start"], options["end"])
    place = re.sub(r"[^\w+-]+", "_", "_".join(str(end) for end in ends if end is not None))
    out = Path(options["out"] or opened.path / "draws" / f"walk_{place}_seed{seed}")
    refuse_existing(out / "walk.json", options, "--seed or --out")
    found = walk_run(
        opened,
        cv=options["cv"],
        start=options["start"],
        end=options["end"],
        n_states=options["n_states"],
        n_points=options["points"],
        per_point=options["per_point"],
        committor_calls=options["committor"],
        seed=seed,
    )
    files = [str(path) for path in write_walk(found, out, formats=options["formats"])]
    show(options, finite({**found.numbers(), "files": files}), f"{found}\n{files[1]}")
