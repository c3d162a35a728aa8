"""Options that verbs share, in groups."""

from collections.abc import Callable
from typing import Any

import click

from gencg.cli.parameters import COUNT, Cvs, Limit, Seed

ENERGY = (
    click.option(
        "--forcefield",
        multiple=True,
        metavar="XML ...",
        help="OpenMM force-field files of a structure or sequence.",
    ),
    click.option(
        "--coordinates",
        type=click.Path(),
        help="Positions that go with a topology.  [the file of its stem beside it]",
    ),
    click.option(
        "--implicit-solvent",
        metavar="NAME",
        help="Of a topology: HCT, OBC1, OBC2, GBn or GBn2.  [vacuum]",
    ),
    click.option(
        "--include-dir", type=click.Path(), help="Folder of what a GROMACS topology includes."
    ),
    click.option(
        "--define", "defines", multiple=True, metavar="NAME[=VALUE]",
        help="Macro of a GROMACS topology.",
    ),
    click.option(
        "--add-hydrogens", is_flag=True, help="Add the hydrogens that a structure file lacks."
    ),
    click.option("--ph", type=float, help="Chooses the protonation of added hydrogens.  [7]"),
    click.option("--caps", is_flag=True, help="Add ACE and NME to a sequence."),
    click.option(
        "--phi-psi", type=float, multiple=True, metavar="PHI PSI ...",
        help="Backbone torsions in degrees of each residue of a sequence, or of all.",
    ),
    click.option("--temperature", type=float, metavar="K", help="Temperature in K."),
)  # fmt: skip
LOADING = (
    "forcefield", "coordinates", "implicit_solvent", "include_dir", "defines", "add_hydrogens",
    "ph", "caps", "phi_psi",
)  # fmt: skip
TRAINING = (
    click.option("--cvs", "n_cvs", type=Cvs(), help="Collective variables.  [auto]"),
    click.option(
        "--descriptors",
        metavar="KIND",
        help="What networks that check the CVs see: torsions, distances or both.  [torsions]",
    ),
    click.option("--seed", type=Seed(), help="Decides everything random.  [0]"),
    click.option("--energy-calls", type=COUNT, help="Budget for everything, such as 5e6."),
    click.option("--samples", "n_samples", type=COUNT, help="Samples drawn at the end.  [100000]"),
    click.option(
        "--coverage-calls",
        type=COUNT,
        help="Energy calls spent on looking for lost modes, 0 for none.",
    ),
    click.option("--batch-size", type=COUNT, help="Configurations per step.  [512]"),
    click.option(
        "--learning-rate",
        type=float,
        help="Rate of the optimiser; decoders of one stage and --further-calls that stay cold "
        "take a third of it, and flow-matching three times as much.  [0.003]",
    ),
    click.option("--tempering", metavar="KIND", help="geometric, ess, kl or none.  [geometric]"),
    click.option("--start-temperature", type=float, metavar="K", help="Where tempering begins."),
    click.option(
        "--generator",
        multiple=True,
        metavar="shipped|RUN",
        help="Take a trained one: that of TARGET in gencg, or of another run; given several "
        "times, their mixture.  [train one]",
    ),
    click.option(
        "--further-calls",
        type=COUNT,
        help="Energy calls spent first on training that of --generator further.  [0]",
    ),
    click.option(
        "--anneal-from",
        type=float,
        metavar="K",
        help="Where that training begins, to cool down: finds states while hot.  [stay cold]",
    ),
    click.option(
        "--decoder", metavar="KIND", help="spline, flow-matching, gaussian or unimodal.  [spline]"
    ),
    click.option(
        "--estimator", metavar="KIND", help="covering, path or plain gradient.  [covering]"
    ),
    click.option("--config", "config_file", type=click.Path(), help="TOML file with settings."),
    click.option("--threads", type=COUNT, help="Threads to compute with."),
    click.option("--checkpoint-seconds", type=float, help="Time between checkpoints.  [30]"),
    click.option("--format", "formats", multiple=True, help="Also write xtc or dcd."),
    click.option("--out", type=click.Path(), help="Run folder.  [runs/TARGET]"),
    click.option("--override", is_flag=True, help="Start over where the folder holds a run."),
)
RUNNING = (
    click.option(
        "--time-limit",
        "deadline",
        type=Limit(),
        metavar="DURATION",
        help="Stop before it with all done on disk, exit code 75: 2h, 30m, 90s, HH:MM:SS.",
    ),
    click.option(
        "--tensorboard", is_flag=True, help="Write the log of training into RUN/tensorboard, too."
    ),
)
OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."),
    click.option("--quiet", is_flag=True, help="Print no progress."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)


def with_options(*groups: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    """Decorator that gives a verb the options of some groups, in their order."""

    def decorate(function: Any) -> Any:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate


def pairs(numbers: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """The values of `--phi-psi`, two by two."""
    if len(numbers) % 2:
        raise ValueError(f"`phi_psi` must be pairs of numbers in degrees, got {len(numbers)}")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
