"""`gencg run`: train, draw and report."""

import json
from pathlib import Path
from typing import Any

import click

from gencg.cli.batch import run_many
from gencg.cli.options import ENERGY, OUTPUT, TRAINING, with_options
from gencg.cli.parameters import Command
from gencg.cli.progress import progress, speaker
from gencg.cli.settings import configure


@click.command(cls=Command)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@with_options(ENERGY, TRAINING, OUTPUT)
def run(targets: tuple[str, ...], **options: Any) -> None:
    """Train, draw and report on TARGET.

    TARGET is the name of a ready-made system (`gencg systems`), a structure (.pdb, .cif), an Amber
    topology (.prmtop, .parm7, .top), a GROMACS topology (.top), a serialized OpenMM system (.xml),
    a peptide such as sequence:ACE-ALA-NME, or a small molecule with MMFF94 (smiles:CCO, .sdf,
    .mol). Run again with the same settings, it resumes. Several targets, an .smi or an .sdf file of
    many molecules make a folder each and one table; none stops the others.
    """
    from gencg import parallel
    from gencg.run import RunFolder
    from gencg.run import run as run_all
    from gencg.run.batch import is_batch

    if is_batch(targets):
        return run_many(targets, options)
    config, system, path = configure(targets[0], options)
    with parallel.processes():
        first = parallel.rank() == 0
        options["quiet"] |= not first
        with (
            RunFolder.shared(path, config, override=options["override"]) as folder,
            progress(options) as reporters,
        ):
            say = speaker(options)
            summary = run_all(system, folder, reporters=reporters, announce=say)
    if not first:
        return
    if options["as_json"]:
        click.echo(json.dumps(summary, indent=2))
    else:
        _print_summary(summary, path)


_PASSED = {"good": "passed", "poor": "FAILED", "open": "open"}


def _print_summary(summary: dict[str, Any], folder: Path) -> None:
    from gencg.report import percent

    click.echo(
        f"{summary['name']} at {summary['temperature']:g} K: ESS {summary['ess']:.3f} on "
        f"{summary['n_samples']:,} samples, log Z {summary['log_z']:.4f} ± "
        f"{summary['log_z_error']:.4f}, {summary['energy_calls']:,} energy calls, "
        f"{summary['wall_seconds']:.0f} s"
    )
    n_valid = summary["n_samples"] - summary["n_invalid"]
    n_effective = summary["ess"] * summary["n_samples"]
    for name, p in summary["populations"].items():
        raw = percent(p["raw"], p["raw_error"], n_effective=n_valid, unit=" %")
        value, error = p["reweighted"], p["reweighted_error"]
        reweighted = percent(value, error, n_effective=n_effective, unit=" %")
        click.echo(f"  {name:<16} {reweighted}   (raw {raw})")
    if names := summary.get("cv_names"):
        click.echo(
            f"  collective variables {', '.join(names)}: joint ESS {summary['joint_ess']:.3f}, "
            f"bound gap {summary['bound_gap']:.3f} kT"
        )
    for check in summary.get("mode_checks", ()):
        click.echo(f"  {_PASSED[check['level']]} {check['name']}: {check['text']}")
    click.echo(summary["verdict"])
    click.echo(f"report: {folder / 'report.html'}")
