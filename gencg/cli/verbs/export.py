"""`gencg export`: collective variables for other programs."""

from pathlib import Path
from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Run
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show
from gencg.cli.settings import refuse_existing


@click.command(
    cls=Command,
    examples=(
        "gencg export runs/ala2 --format plumed",
        "gencg export runs/ala2 --format torchscript colvars openmm --out cvs",
        "gencg export runs/ala2 --format colvar --trajectory traj.xtc --top top.pdb",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.option(
    "--format",
    "formats",
    multiple=True,
    required=True,
    metavar="NAME ...",
    help="torchscript, plumed, colvars, openmm, or colvar for a table of values.",
)
@click.option("--slow", is_flag=True, help="The slow functions in place of the CVs.")
@click.option("--trajectory", type=click.Path(), help="For colvar.  [RUN's samples]")
@click.option("--top", type=click.Path(), help="File that names the atoms of the trajectory.")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/export]")
@click.option("--override", is_flag=True, help="Write into a folder that is there.")
@with_options(OUTPUT)
def export(folder: str, **options: Any) -> None:
    """Write the CVs of RUN for other programs.

    Every file is loaded again and compared with the model, in value and gradient; a deviation is
    an error.
    """
    from gencg.run import RunFolder, export_run

    opened = RunFolder.open(folder)
    out = Path(options["out"] or opened.path / "export")
    refuse_existing(out, options, "--out")
    names = ("formats", "slow", "trajectory", "top")
    checks = export_run(opened.system(), opened, out, **{name: options[name] for name in names})
    numbers = {"out": str(out), "checks": [vars(check) for check in checks]}
    show(options, numbers, "\n".join([*map(str, checks), str(out)]))
