"""`gencg reweight`: samples for a quantum-chemical energy."""

from pathlib import Path
from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Run
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show
from gencg.cli.parameters import COUNT, Seed
from gencg.cli.progress import counter
from gencg.cli.settings import refuse_existing


@click.command(
    cls=Command,
    examples=(
        "gencg reweight runs/ala2",
        "gencg reweight runs/ala2 --energy gfn1 -n 2e3 --solvent water --processes 4",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.option(
    "--energy",
    type=click.Choice(["gfn2", "gfn1"]),
    default="gfn2",
    show_default=True,
    help="The energy to weigh for.",
)
@click.option(
    "-n",
    "n_samples",
    type=COUNT,
    default=1000,
    show_default=True,
    help="Samples to ask it, chosen by weight.",
)
@click.option("--charge", type=int, default=0, show_default=True, help="Total charge.")
@click.option("--unpaired", type=int, default=0, show_default=True, help="Unpaired electrons.")
@click.option("--solvent", metavar="NAME", help="Solvent, by ALPB.  [vacuum]")
@click.option("--no-shift", is_flag=True, help="Leave lengths and angles as they were drawn.")
@click.option("--processes", type=COUNT, default=1, show_default=True, help="To compute with.")
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Seed of the choice.")
@click.option("--out", type=click.Path(), help="Folder to write to.  [RUN/draws/...]")
@click.option("--override", is_flag=True, help="Start over where samples are there.")
@with_options(OUTPUT)
def reweight(folder: str, n_samples: int, **options: Any) -> None:
    """Weigh samples of RUN for a quantum-chemical energy.

    Lengths and angles are moved to the minimum of that energy first, exactly (the weights know it).
    RUN may be any folder with a samples.h5; they stay as they are where it is no run. Run again
    with the same settings, it resumes.
    """
    from gencg.energies.tblite import TbliteEnergy
    from gencg.export import read_samples, write_samples
    from gencg.reweighting import reweight as weigh_again
    from gencg.run import RunFolder
    from gencg.run.record import write_json
    from gencg.targeted import stiff_shift

    ensemble = read_samples(folder)
    if ensemble.molecule is None:
        raise ValueError(f"`energy` {options['energy']} needs a molecule, {ensemble.name} is none")
    method = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}[options["energy"]]
    try:
        energy = TbliteEnergy(
            ensemble.molecule,
            method=method,
            charge=options["charge"],
            n_unpaired=options["unpaired"],
            solvent=options["solvent"],
            n_processes=options["processes"],
        )
    except ImportError as error:
        raise ValueError(str(error)) from None
    home = Path(folder) if Path(folder).is_dir() else Path(folder).parent
    name = f"{options['energy']}_seed{options['seed']}_n{n_samples}"
    out = Path(options["out"] or home / "draws" / name)
    checkpoint = out / "energies.pt"
    refuse_existing(out / "samples.h5", options, "--seed or --out")
    if options["override"]:
        checkpoint.unlink(missing_ok=True)
    shift = None
    if (home / "config.json").exists() and not options["no_shift"]:
        shift = stiff_shift(RunFolder.open(home).system().coordinates, energy)
    n_calls = energy.n_energy_calls
    with counter(options) as reporters:
        found = weigh_again(
            ensemble,
            energy,
            n_samples=n_samples,
            shift=shift,
            seed=options["seed"],
            checkpoint=checkpoint,
            reporters=reporters,
        )
    written = write_samples(out, found.ensemble)
    numbers: dict[str, Any] = {"energy": repr(energy), "offset": energy.offset}
    numbers |= {"shifted": shift is not None, **found.numbers()}
    # The minimum, too
    numbers["energy_calls"] += n_calls
    write_json(out / "reweighting.json", numbers)
    files = [str(path) for path in written]
    show(options, {**numbers, "files": files}, f"{_in_words(numbers)}\n{files[0]}")


def _in_words(numbers: dict[str, Any]) -> str:
    lines = [
        f"{numbers['n_samples']:,} samples for {numbers['energy']}\n"
        f"ESS {numbers['ess']:.3g} ({numbers['ess'] * numbers['n_samples']:.0f} samples), "
        f"free-energy difference {numbers['free_energy_difference']:.3f} ± "
        f"{numbers['free_energy_difference_error']:.3f} kJ/mol, "
        f"{numbers['energy_calls']:,} energy calls"
    ]
    if numbers["n_failed"]:
        lines.append(
            f"{numbers['n_failed']:,} did not converge and have no weight; they had "
            f"{100 * numbers['failed_weight']:.2g} % of it"
        )
    return "\n".join([*lines, numbers["verdict"]])
