"""`gencg sample`: more samples of a run."""

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
        "gencg sample runs/ala2 -n 1e6",
        "gencg sample runs/ala2 -n 1000 --seed 7 --format xtc --out more",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.option("-n", "n_samples", type=COUNT, required=True, help="Number of samples.")
@click.option("--seed", type=Seed(), help="Seed of the draw.  [the run's, plus one]")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/draws/...]")
@click.option("--format", "formats", multiple=True, help="Also write xtc or dcd.")
@click.option("--override", is_flag=True, help="Write over samples that are there.")
@with_options(OUTPUT)
def sample(folder: str, n_samples: int, **options: Any) -> None:
    """Draw weighted samples from RUN.

    They come from its joint model, with their collective variables, where it has one.
    """
    from gencg.export import write_samples
    from gencg.run import RunFolder, sampler
    from gencg.run import sample as draw_samples

    if n_samples < 1:
        raise ValueError(f"`n` must be at least 1, got {n_samples}")
    opened = RunFolder.open(folder)
    seed = opened.config.seed + 1 if options["seed"] is None else options["seed"]
    out = Path(options["out"] or opened.path / "draws" / f"seed{seed}_n{n_samples}")
    refuse_existing(out / "samples.h5", options, "--seed or --out")
    ensemble = draw_samples(sampler(opened.system(), opened), n_samples, seed=seed)
    written = write_samples(out, ensemble, formats=("h5", *options["formats"]))
    numbers = {k: getattr(ensemble, k) for k in ("ess", "log_z", "log_z_error", "pareto_k")}
    files = [str(path) for path in written]
    show(options, {"n_samples": n_samples, **numbers, "files": files}, f"{ensemble}\n{files[0]}")
