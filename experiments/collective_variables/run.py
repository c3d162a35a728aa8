"""Data-free collective variables of alanine dipeptide against long dynamics, three seeds.

Dynamics, then runs, then scores; what is there already is not done again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.expectations import misses

TARGET = "alanine-dipeptide"


def command(*words: str) -> None:
    """Run a module on one thread, and end where it fails."""
    threads = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *words], env=os.environ | threads)
    if done.returncode:
        sys.exit(done.returncode)


def summaries(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each run: ``ratio`` and ``ratio_without_constant`` by lag, such as "1 ps"."""
    found = []
    for result in results:
        lags = [f"{lag:g} ps" for lag in result["lags_ps"]]
        for name, row in result["ratios"].items():
            keys = ("ratio", "ratio_without_constant")
            ratios = {key: dict(zip(lags, row[key], strict=True)) for key in keys}
            found.append({"folder": name, "n_cvs": result["n_cvs"], **ratios})
    return found


def main() -> None:
    """Do what is not done yet, and judge."""
    expected = json.loads(Path(__file__).with_name("expected.json").read_text())
    parser = argparse.ArgumentParser(description=expected["claim"])
    parser.add_argument("--seeds", type=int, nargs="+", default=expected["seeds"])
    parser.add_argument("--ps", default="1000", help="of each of 256 replicas  [%(default)s]")
    parser.add_argument("--energy-calls", default="2e6", help="of each run  [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("runs/collective"), help="[%(default)s]")
    given = parser.parse_args()
    began = time.monotonic()
    here, dynamics = "experiments.collective_variables", str(given.out / "dynamics")
    command(f"{here}.dynamics", TARGET, "--ps", given.ps, "--out", dynamics)
    runs = [str(given.out / f"run-{seed}") for seed in given.seeds]
    for seed, run in zip(given.seeds, runs, strict=True):
        command(
            "gencg", "run", TARGET, "--energy-calls", given.energy_calls, "--seed", str(seed),
            "--threads", "1", "--out", run,
        )  # fmt: skip
    scores = given.out / "scores.json"
    command(f"{here}.score", dynamics, *runs, "--out", str(scores))
    names = {Path(run).name for run in runs}
    found = [s for s in summaries(json.loads(scores.read_text())) if s["folder"] in names]
    print(f"{time.monotonic() - began:.0f} s")
    if failures := [line for s in found for line in misses(s, expected["quantities"])]:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
