"""`gencg energy`: the energy of a structure, term by term."""

from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Target
from gencg.cli.options import ENERGY, LOADING, OUTPUT, pairs, with_options
from gencg.cli.output import show


@click.command(
    cls=Command,
    examples=(
        "gencg energy my.pdb --forcefield amber14-all.xml implicit/obc2.xml",
        "gencg energy my.prmtop --coordinates my.rst7 --implicit-solvent OBC2",
        "gencg energy sequence:AAG --caps --json",
    ),
)
@click.argument("target", type=Target())
@with_options(ENERGY, OUTPUT)
def energy(target: str, **options: Any) -> None:
    """Energy of TARGET, term by term.

    Of the structure as it is given, in kJ/mol, beside what OpenMM finds.
    """
    from gencg.systems.energies import structure_energy

    loading = {name: options[name] for name in LOADING}
    loading["phi_psi"] = pairs(options["phi_psi"])
    values = structure_energy(target, **loading)
    rows = {**values["terms"], "total": values["total"], "OpenMM": values["openmm"]}
    width = max(map(len, rows))
    lines = [f"{k:<{width}}  {v:16.6f} kJ/mol" for k, v in rows.items() if v is not None]
    show(options, values, "\n".join(lines))
