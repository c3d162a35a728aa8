"""`gencg describe`: what is sampled and what is held."""

from pathlib import Path
from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Target
from gencg.cli.options import ENERGY, LOADING, OUTPUT, pairs, with_options
from gencg.cli.output import show
from gencg.cli.settings import refuse_existing


@click.command(
    cls=Command,
    examples=(
        "gencg describe alanine-dipeptide",
        'gencg describe "smiles:CN1CCCC1C#N" --out molecule.png',
        "gencg describe my.pdb --forcefield amber14-all.xml implicit/obc2.xml",
    ),
)
@click.argument("target", type=Target())
@with_options(ENERGY, OUTPUT)
@click.option("--out", type=click.Path(), help="Picture (.png, .svg, .pdf) with the soft torsions.")
@click.option("--override", is_flag=True, help="Write over a file that is there.")
def describe(target: str, **options: Any) -> None:
    """What of TARGET is sampled, what is held, and why."""
    from gencg.systems import load
    from gencg.systems.description import describe_system

    loading = {name: options[name] for name in LOADING}
    loading["phi_psi"] = pairs(options["phi_psi"])
    system = load(target, temperature=options["temperature"], **loading)
    description = describe_system(system)
    if options["out"] and system.molecule is None:
        raise click.UsageError(f"--out draws a molecule, and {system.name} is a toy")
    if options["out"] and system.molecule is not None:
        from gencg.files import replacing
        from gencg.plots.molecule import plot_molecule
        from gencg.plots.style import new_figure, style

        path = Path(options["out"])
        refuse_existing(path, options, "file")
        marked = {str(n): row.bond for n, row in enumerate(description.sampled, 1) if row.bond}
        with style():
            figure, (ax,) = new_figure(width=7.0, height=5.0)
            few = system.molecule.n_atoms <= 30
            plot_molecule(system.molecule, marked, hydrogens=few, title=system.name, ax=ax)
            with replacing(path) as draft:
                figure.savefig(draft, format=path.suffix[1:] or "png")
    about = {
        "name": description.name,
        "summary": description.summary,
        "rows": [vars(row) for row in description.rows],
        "notes": list(description.notes),
    }
    show(options, about, str(description))
