"""The papers' methods and parallel tempering against gencg, at equal energy calls.

Every method gets the same calls for training, and 20,000 fresh samples are drawn of each to
measure it; parallel tempering gets the same calls in all. What has a result
already is not run again. A molecule needs the frames of ``experiments.alanine_dipeptide.reference``
at its temperature; with dynamics (``experiments.collective_variables.dynamics``) the collective
variables get a VAMP-2 score too.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import gencg
from experiments.alanine_dipeptide.reference import Frames, simulate
from experiments.baselines.methods import METHODS
from experiments.expectations import misses
from experiments.record import FULL_CALLS, Result, measure, measure_simulation, vamp_2
from experiments.slow_functions.worth import BOXES, kept_by
from gencg.systems import System, load

SIMULATION = "parallel tempering"


def one(
    method: str,
    system: System,
    *,
    calls: float,
    seed: int,
    temperature: float | None = None,
    reference: Frames | None = None,
    dynamics: Path | None = None,
    n_samples: int = 50_000,
) -> Result:
    """Train, or simulate, and measure one seed of one method.

    Args:
        method: A name of `METHODS`, or `SIMULATION`.
        system: What to sample.
        calls: Energy calls.
        seed: Decides everything random.
        temperature: In K; the system's own by default.
        reference: Samples of the truth, for a molecule.
        dynamics: Folder of dynamics for the VAMP-2 score.
        n_samples: Fresh samples to measure on.

    Raises:
        ValueError: If a simulation is asked for without a reference.
    """
    kelvin = temperature or system.temperature
    if method == SIMULATION:
        if reference is None:
            raise ValueError(f"`reference` is needed for {SIMULATION}, got None")
        # One replica at the bottom, few ladders: what so few calls allow
        found = simulate(
            system, temperature=kelvin, calls=calls, cold=1, ladders=8, tune=210, burn_in=100,
            n_frames=1000, seed=seed,
        )  # fmt: skip
        spent, seconds = found.about["energy_calls"], found.about["cpu_seconds"]
        measures: dict[str, Any] = measure_simulation(found, reference)
    else:
        trained = METHODS[method](system, calls, seed, temperature)
        spent, seconds = trained.energy_calls, trained.seconds
        ensemble = gencg.draw(
            trained.model,
            trained.target,
            n_samples,
            molecule=system.molecule,
            seed=1_000_000 + seed,
        )
        measures = {
            **measure(system, ensemble, reference=reference),
            "bound_gap": trained.bound_gap,
            **(trained.about or {}),
        }
        if dynamics is not None and trained.cvs is not None:
            measures |= vamp_2(trained.cvs, dynamics, periodic=trained.periodic)
        if system.name in BOXES and trained.cvs is not None:
            measures["kept"] = kept_by(system, trained.cvs)
    return Result(
        method=method,
        system=system.name,
        temperature=kelvin,
        seed=seed,
        command=(
            f"python -m experiments.baselines.run --systems {system.name} --methods '{method}' "
            f"--calls {calls:g} --seeds {seed}" + (" --reference FRAMES" if reference else "")
        ),
        energy_calls=spent,
        seconds=seconds,
        measures=measures,
        settings={"calls": calls},
        full=calls >= FULL_CALLS.get(system.name, 0),
    )


def main() -> None:
    """Run what has no result yet; exit code 1 if a number misses what `expected.json` asks for."""
    here = Path(__file__).parent
    expected = json.loads((here / "expected.json").read_text())
    parser = argparse.ArgumentParser(description=expected["claim"])
    names = [SIMULATION, *METHODS]
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--systems", nargs="+", default=["alanine-dipeptide"])
    parser.add_argument("--seeds", type=int, nargs="+", default=expected["seeds"])
    parser.add_argument("--calls", type=float, default=1e5, help="energy calls  [%(default)g]")
    parser.add_argument("--temperature", type=float, help="in K  [the system's own]")
    parser.add_argument("--samples", type=int, default=20_000, help="[%(default)s]")
    parser.add_argument("--reference", type=Path, help=".npz of alanine_dipeptide.reference")
    parser.add_argument("--dynamics", type=Path, help="folder, for VAMP-2 scores")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing after these")
    parser.add_argument("--out", type=Path, default=here / "results", help="[%(default)s]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    reference = Frames.read(given.reference) if given.reference else None
    began, failures = time.monotonic(), []
    for seed in given.seeds:
        for name in given.systems:
            system = load(name)
            for method in sorted(given.methods, key=names.index):
                if method == SIMULATION and system.molecule is None:
                    continue
                kelvin = given.temperature or system.temperature
                empty = Result(method, name, kelvin, seed, "", 0, 0, {}, {"calls": given.calls})
                if (given.out / empty.name).exists():
                    continue
                if time.monotonic() - began > 60 * given.minutes:
                    sys.exit("time is up; the same command goes on")
                result = one(
                    method, system, calls=given.calls, seed=seed, temperature=given.temperature,
                    reference=reference, dynamics=given.dynamics, n_samples=given.samples,
                )  # fmt: skip
                print(result.write(given.out), json.dumps(result.measures), flush=True)
                if method == "gencg" and system.name == "alanine-dipeptide":
                    row = {"folder": f"seed {seed}", **result.measures}
                    failures += misses(row, expected["quantities"])
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
