"""`gencg cv`: collective variables of a trajectory."""

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
        "gencg cv runs/ala2 traj.xtc --top top.pdb --out cvs.npy",
        "gencg cv runs/ala2 traj.h5 --slow --out cvs.csv",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.argument("trajectory", metavar="TRAJ", type=click.Path())
@click.option("--top", type=click.Path(), help="File that names the atoms, where TRAJ does not.")
@click.option("--out", type=click.Path(), help=".npy, .csv or .txt.  [RUN/cvs_TRAJ.npy]")
@click.option("--slow", is_flag=True, help="Add the values of the slow functions.")
@click.option("--override", is_flag=True, help="Write over a file that is there.")
@with_options(OUTPUT)
def cv(folder: str, trajectory: str, **options: Any) -> None:
    """Collective variables of the trajectory TRAJ.

    One row per frame, angles in rad. TRAJ may be in any format that MDTraj reads and hold the
    atoms in any order, solvent too; of a toy it is an .npy file.
    """
    from gencg.export import check_table, load_trajectory, write_table
    from gencg.run import RunFolder, with_cvs

    opened = RunFolder.open(folder)
    out = check_table(options["out"] or opened.path / f"cvs_{Path(trajectory).stem}.npy")
    refuse_existing(out, options, "--out")
    frames = load_trajectory(trajectory, options["top"])
    model = with_cvs(opened.system(), opened)
    values = model.cvs(frames, slow=options["slow"])
    columns = (*model.columns, *(model.slow_columns if options["slow"] else ()))
    write_table(out, values, columns)
    numbers = {"n_frames": len(values), "n_cvs": len(model.names), "columns": columns}
    text = f"{len(values):,} frames: {', '.join(columns)}\n{out}"
    show(options, {**numbers, "out": str(out)}, text)
