"""`gencg check`: a finished run, checked by other ways than it was made."""

from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Run
from gencg.cli.errors import FAILED
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show
from gencg.cli.parameters import Seed


@click.command(
    cls=Command,
    examples=(
        "gencg check runs/ala2",
        "gencg check runs/ala2 --seed 1 --json",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Chooses the samples.")
@with_options(OUTPUT)
def check(folder: str, seed: int, **options: Any) -> None:
    """Compute again what RUN stored, by other ways.

    Input files by their checksums, energies by OpenMM or RDKit, stereo and clashes, weights by the
    inverse pass of the flow, and the ratio of energies at two temperatures; code 1 if one fails. It
    tells whether the numbers are what they say, not whether training found every state: that is
    the report's verdict.
    """
    from gencg.run import RunFolder
    from gencg.run.check import check_run

    findings = check_run(RunFolder.open(folder), seed=seed)
    passed = all(finding.passed for finding in findings)
    numbers = {"passed": passed, "findings": [vars(finding) for finding in findings]}
    show(options, numbers, "\n".join(map(str, findings)))
    if not passed:
        raise SystemExit(FAILED)
