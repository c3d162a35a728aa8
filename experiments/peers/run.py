"""gencg against its peers in one run on one machine: trainings, simulations, then the tables.

What is there already is not done again. The parts can be run alone: `generator` (gencg),
`plain_flow` and `metadynamics` write into one folder, and `compare` reads it.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

SETTINGS = {
    "metadynamics-wide": ["--sigma", "0.35", "--height", "1.2", "--bias-factor", "10"],
    "metadynamics-narrow": ["--sigma", "0.2", "--height", "0.6", "--bias-factor", "6"],
}
"""Hills of the simulations."""


def run(part: str, *options: str) -> None:
    """Run one part on one thread."""
    threads = {"OMP_NUM_THREADS": "1", "OPENMM_CPU_THREADS": "1"}
    command = [sys.executable, "-m", f"experiments.peers.{part}", *options]
    done = subprocess.run(command, env=os.environ | threads)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Do what is not done yet, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="[%(default)s]")
    parser.add_argument("--reference", type=Path, help=".npz of the converged phi, psi")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"], help="of gencg")
    parser.add_argument("--calls", default="1e6", help="of the plain flow  [%(default)s]")
    parser.add_argument("--seconds", default="600", help="of metadynamics  [%(default)s]")
    parser.add_argument("--ladder", action="store_true", help="the plain flow with the ladder, too")
    given = parser.parse_args()
    out = ["--out", str(given.out)]
    run("generator", *out, "--seeds", *given.seeds)
    for variant in [[], ["--tempering"]][: 1 + given.ladder]:
        run("plain_flow", *out, "--calls", given.calls, *variant)
    for name, hills in SETTINGS.items():
        run("metadynamics", *out, "--name", name, "--seconds", given.seconds, *hills)
    reference = ["--reference", str(given.reference)] if given.reference else []
    run("compare", "--runs", str(given.out), *reference)


if __name__ == "__main__":
    main()
