"""`gencg energy`: the energy of a structure, term by term."""

import json
from typing import Any

import click

from gencg.cli.options import ENERGY, LOADING, OUTPUT, pairs, with_options
from gencg.cli.parameters import Command


@click.command(cls=Command)
@click.argument("target")
@with_options(ENERGY, OUTPUT)
def energy(target: str, **options: Any) -> None:
    """Energy of TARGET, term by term.

    Of the structure as it is given, in kJ/mol, beside what OpenMM finds.
    """
    from gencg.systems.energies import structure_energy

    loading = {name: options[name] for name in LOADING}
    loading["phi_psi"] = pairs(options["phi_psi"])
    values = structure_energy(target, **loading)
    if options["as_json"]:
        click.echo(json.dumps(values, indent=2))
        return
    rows = {**values["terms"], "total": values["total"], "OpenMM": values["openmm"]}
    width = max(map(len, rows))
    for name, value in rows.items():
        if value is not None:
            click.echo(f"{name:<{width}}  {value:16.6f} kJ/mol")
