"""`gencg backmap`: structures at a value of the collective variables."""

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
        "gencg backmap runs/ala2 --cv 0.3 -1.2 -n 200",
        "gencg backmap runs/ala2 --cv -60 -45 --degrees -n 200 --format xtc",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.option(
    "--cv", "z", type=float, multiple=True, required=True, metavar="NUMBER ...",
    help="Value of each collective variable.",
)  # fmt: skip
@click.option("-n", "n_samples", type=COUNT, required=True, help="Number of samples.")
@click.option("--degrees", is_flag=True, help="The values are in degrees, not in rad.")
@click.option("--seed", type=Seed(), help="Seed of the draw.  [the run's, plus one]")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/draws/...]")
@click.option("--format", "formats", multiple=True, help="Also write xtc or dcd.")
@click.option("--override", is_flag=True, help="Write over samples that are there.")
@with_options(OUTPUT)
def backmap(folder: str, z: tuple[float, ...], n_samples: int, **options: Any) -> None:
    """Weighted structures of RUN at one value of its CVs.

    Energies, weights and free energy of that value come with them."""
    from gencg.export import write_samples
    from gencg.run import RunFolder, with_cvs

    if n_samples < 1:
        raise ValueError(f"`n` must be at least 1, got {n_samples}")
    opened = RunFolder.open(folder)
    seed = opened.config.seed + 1 if options["seed"] is None else options["seed"]
    values = "_".join(f"{value:g}" for value in z) + ("deg" if options["degrees"] else "")
    out = Path(options["out"] or opened.path / "draws" / f"cv{values}_seed{seed}_n{n_samples}")
    refuse_existing(out / "samples.h5", options, "--seed or --out")
    model = with_cvs(opened.system(), opened)
    ensemble = model.backmap(z, n_samples, seed=seed, degrees=options["degrees"])
    written = write_samples(out, ensemble, formats=("h5", *options["formats"]))
    numbers = model.backmap_summary(ensemble)
    files = [str(path) for path in written]
    text = _in_words(numbers, "rad" if model.periodic else "unit")
    show(options, {**numbers, "files": files}, f"{text}\n{files[0]}")


def _in_words(numbers: dict[str, Any], unit: str) -> str:
    at = ", ".join(f"{name} = {value:.4g}" for name, value in numbers["cv"].items())
    lines = [f"{numbers['n_samples']:,} samples at {at}: ESS {numbers['ess']:.3f}"]
    if numbers["free_energy"] is not None:
        power = f"^{len(numbers['cv'])}" if len(numbers["cv"]) > 1 else ""
        lines.append(
            f"free energy -kT log p(z) {numbers['free_energy']:.2f} ± "
            f"{numbers['free_energy_error']:.2f} kJ/mol, p(z) = {numbers['density']:.3g} per "
            f"{unit}{power}"
        )
    lost = f"stereo lost {100 * numbers['lost_stereo']:.1f} %"
    return "\n".join([*lines, f"clashes {100 * numbers['clashes']:.1f} %, {lost}"])
