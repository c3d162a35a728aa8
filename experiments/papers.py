"""Everything behind docs/papers.md in one command: reference, dynamics, all methods, the table.

What is there already is not done again, so that a run that was stopped goes on. The small settings
take about 45 minutes of one core, the full ones a day by estimate. Each part is a command
of its own, which ``--dry`` prints.
"""

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TOYS = ("double-well", "mueller-brown", "gaussian-mixture")


@dataclass(frozen=True)
class Settings:
    """Budgets of one round.

    Args:
        toy_calls: Energy calls for each method on a toy.
        dipeptide_calls: For each method on the dipeptide.
        spline_calls: For the spline flow without CVs, which is slow for each call.
        run_calls: For the run with CVs whose figures are drawn.
        reference_minutes: CPU minutes of parallel tempering.
        dynamics_ps: Picoseconds of each of 128 replicas.
    """

    toy_calls: float
    dipeptide_calls: float
    spline_calls: float
    run_calls: float
    reference_minutes: float
    dynamics_ps: float


SMALL = Settings(2e5, 1e5, 6e4, 1.6e6, 2.5, 100)
FULL = Settings(6e5, 3e6, 3e6, 3e6, 12, 1000)


def commands(settings: Settings, out: Path) -> list[list[str]]:
    """The commands in order, without the interpreter.

    Args:
        settings: Budgets.
        out: Folder for what is not committed.
    """
    reference, dynamics, run = out / "reference-300.npz", out / "dynamics", out / "dipeptide"
    baselines = ["experiments.baselines.run"]
    # 20,000 samples alone would show a total variation of 0.047, 100,000 of 0.021
    beside = ["--reference", str(reference), "--dynamics", str(dynamics), "--samples", "100000"]
    found = [
        ["experiments.alanine_dipeptide.reference", "--minutes",
         f"{settings.reference_minutes:g}", "--out", str(reference)],
        ["experiments.collective_variables.dynamics", "alanine-dipeptide", "--ps",
         f"{settings.dynamics_ps:g}", "--replicas", "128", "--out", str(dynamics)],
        ["experiments.double_well.paper", "--calls", f"{settings.toy_calls:g}"],
        ["experiments.mueller_brown.run", "--calls", f"{settings.toy_calls:g}"],
        ["experiments.mixture.run", "--calls", f"{settings.toy_calls:g}"],
        # gencg and the Gaussian decoder on the double well come from `double_well.paper`
        [*baselines, "--systems", *TOYS, "--methods", "linear bijection", "temperature annealed",
         "--calls", f"{settings.toy_calls:g}"],
        [*baselines, "--systems", *TOYS[1:], "--methods", "gaussian decoder",
         "--calls", f"{settings.toy_calls:g}"],
        [*baselines, "--methods", "gencg", "gaussian decoder", "linear bijection",
         "parallel tempering", "temperature annealed",
         "--calls", f"{settings.dipeptide_calls:g}", *beside],
        [*baselines, "--methods", "spline flow", "--calls", f"{settings.spline_calls:g}", *beside],
        ["gencg", "run", "alanine-dipeptide", "--energy-calls", f"{settings.run_calls:g}",
         "--threads", "1", "--seed", "0", "--out", str(run)],
        ["experiments.record", str(run), "--method", "gencg", *beside,
         "--into", "experiments/alanine_dipeptide/results"],
    ]  # fmt: skip
    for kelvin in ("300", "330"):
        shown = ["experiments.alanine_dipeptide.paper", "--reference", str(reference)]
        found.append([*shown, str(run), "--temperature", kelvin])
        found.append([*shown, "--model-of-2020", "--temperature", kelvin])
    return [*found, ["experiments.results"]]


def main() -> None:
    """Run all; a command that misses its expected numbers is told and does not stop the others."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="full settings")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"), help="[%(default)s]")
    parser.add_argument("--dry", action="store_true", help="print the commands, run nothing")
    given = parser.parse_args()
    missed = []
    for command in commands(FULL if given.full else SMALL, given.out):
        line = shlex.join(["python", "-m", *command])
        print(line, flush=True)
        if given.dry or _is_done(command):
            continue
        if subprocess.run([sys.executable, "-m", *command]).returncode:
            missed.append(line)
    if missed:
        sys.exit("\n".join(["failed, or missed what is expected:", *missed]))


def _is_done(command: list[str]) -> bool:
    """Whether the reference is there; everything else looks itself."""
    return command[0].endswith("reference") and Path(command[-1]).exists()


if __name__ == "__main__":
    main()
