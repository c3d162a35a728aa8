"""`gencg run`: train, draw and report."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from gencg.cli.batch import run_many
from gencg.cli.command import Command
from gencg.cli.completion import Target
from gencg.cli.forecast import forecast
from gencg.cli.options import ENERGY, OUTPUT, RUNNING, TRAINING, with_options
from gencg.cli.output import show
from gencg.cli.progress import speaker, training_progress
from gencg.cli.settings import configure, event_writers


@click.command(
    cls=Command,
    examples=(
        "gencg run alanine-dipeptide --out runs/ala2",
        "gencg run alanine-dipeptide --dry-run",
        "gencg run my.pdb --forcefield amber14-all.xml implicit/obc2.xml --temperature 310",
        "gencg run molecules.smi --cvs 0 --energy-calls 3e5 --out runs/molecules",
    ),
)
@click.argument("targets", metavar="TARGET...", type=Target(), nargs=-1, required=True)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Measure a few steps on this machine, tell time, memory and disk, write nothing.",
)
@with_options(ENERGY, TRAINING, RUNNING, OUTPUT)
def run(targets: tuple[str, ...], **options: Any) -> None:
    """Train, draw and report on TARGET.

    TARGET is the name of a ready-made system (`gencg systems`), a structure (.pdb, .cif), an Amber
    topology (.prmtop, .parm7, .top), a GROMACS topology (.top), a serialized OpenMM system (.xml),
    a peptide such as sequence:ACE-ALA-NME, or a small molecule with MMFF94 (smiles:CCO, .sdf,
    .mol). Run again with the same settings, it resumes. Several targets, an .smi or an .sdf file of
    many molecules make a folder each and one table; none stops the others. A time limit that came
    first ends with code 75.
    """
    from gencg import parallel
    from gencg.run import RunFolder
    from gencg.run import run as run_all
    from gencg.run.batch import is_batch
    from gencg.run.forecast import after_training

    if is_batch(targets):
        return run_many(targets, options)
    config, system, path = configure(targets[0], options)
    if options["dry_run"]:
        return forecast(config, system, options)
    with parallel.processes():
        first = parallel.rank() == 0
        options["quiet"] |= not first
        after = partial(after_training, config)
        with (
            event_writers(path, options, "training", "joint") as (events, joint_events),
            RunFolder.shared(path, config, override=options["override"]) as folder,
            training_progress(options, "training", "joint training", after=after) as (bars, joint),
        ):
            summary = run_all(
                system,
                folder,
                reporters=[*bars, *events],
                joint_reporters=[*joint, *joint_events],
                announce=speaker(options),
                deadline=options["deadline"],
            )
    if not first:
        return
    try:
        text = _in_words(summary, path)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{path / 'summary.json'} is damaged; remove it and run the same command"
        ) from None
    show(options, summary, text)


_PASSED = {"good": "passed", "poor": "FAILED", "open": "open"}


def _in_words(summary: dict[str, Any], folder: Path) -> str:
    from gencg.analysis.cv_names import shorter
    from gencg.report import percent
    from gencg.report.pieces import number

    log_z, error = (number(summary[name], "{:.4f}") for name in ("log_z", "log_z_error"))
    lines = [
        f"{summary['name']} at {summary['temperature']:g} K: ESS {summary['ess']:.3f} on "
        f"{summary['n_samples']:,} samples, log Z {log_z} ± {error}, "
        f"{summary['energy_calls']:,} energy calls, {summary['wall_seconds']:.0f} s"
    ]
    if origin := summary.get("generator"):
        several = len(origin.get("members", ())) > 1
        lines.append(
            f"  {'mixture of the generators' if several else 'generator'} of {origin['source']}, "
            f"whose training took {origin['energy_calls']:,} energy calls more"
        )
    n_valid = summary["n_samples"] - summary["n_invalid"]
    n_effective = summary["ess"] * summary["n_samples"]
    for name, p in summary["populations"].items():
        raw = percent(p["raw"], p["raw_error"], n_effective=n_valid, unit=" %")
        value, error = p["reweighted"], p["reweighted_error"]
        reweighted = percent(value, error, n_effective=n_effective, unit=" %")
        lines.append(f"  {name:<16} {reweighted}   (raw {raw})")
    if names := summary.get("cv_names"):
        lines.append(
            f"  collective variables {', '.join(names)}: joint ESS {summary['joint_ess']:.3f}, "
            f"bound gap {summary['bound_gap']:.3f} kT"
        )
    for check in summary.get("mode_checks", ()):
        lines.append(f"  {_PASSED[check['level']]} {check['name']}: {check['text']}")
    lines = [shorter(line) for line in lines]
    return "\n".join([*lines, summary["verdict"], f"report: {folder / 'report.html'}"])
