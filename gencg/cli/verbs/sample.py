"""`gencg sample`: more samples of a run."""

import shutil
from pathlib import Path
from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Run
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show
from gencg.cli.parameters import COUNT, Seed
from gencg.cli.progress import speaker
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

    They come from its joint model, with their collective variables, where it has one. After a kill
    the same command goes on where it was; a larger number takes over the samples of a smaller one.
    """
    from gencg.run import RunFolder, sampler
    from gencg.run.draws import END, PARTS, draw_into, is_shorter

    if n_samples < 1:
        raise ValueError(f"`n` must be at least 1, got {n_samples}")
    opened = RunFolder.open(folder)
    seed = opened.config.seed + 1 if options["seed"] is None else options["seed"]
    out = Path(options["out"] or opened.path / "draws" / f"seed{seed}_n{n_samples}")
    result = sampler(opened.system(), opened)
    if not is_shorter(out, result, n_samples, seed):
        refuse_existing(out / "samples.h5", options, "--seed or --out")
    if options["override"]:
        shutil.rmtree(out / PARTS, ignore_errors=True)
        (out / END).unlink(missing_ok=True)
    ensemble, written = draw_into(
        out,
        result,
        n_samples,
        seed=seed,
        formats=("h5", *options["formats"]),
        seconds=opened.config.checkpoint_seconds,
        announce=speaker(options),
    )
    numbers = {k: getattr(ensemble, k) for k in ("ess", "log_z", "log_z_error", "pareto_k")}
    files = [str(path) for path in written]
    show(
        options,
        {"n_samples": n_samples, **numbers, "files": files},
        "\n".join([str(ensemble), *files]),
    )
