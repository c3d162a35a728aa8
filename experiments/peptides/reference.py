"""A converged reference of our own making: parallel tempering of a peptide, for evaluation only.

Writes into the folder given: ``state.pt`` and ``torsions.bin`` while it works, from which the same
command goes on, ``reference.npz`` (phi and psi of the replicas at the system's temperature) and
``summary.json``.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from experiments.peptides.recorded import Reference
from experiments.peptides.recording import Recording, Settings

RUNGS = {"alanine-dipeptide": 6, "alanine-tetrapeptide": 8, "alanine-hexapeptide": 10}
"""Temperatures, for exchange rates of about 0.36 between 300 K and 1000 K."""


def summarise(reference: Reference) -> dict[str, Any]:
    """All numbers of a reference."""
    return {
        "system": reference.system,
        **reference.about,
        "samples": reference.n_samples,
        "inefficiency": reference.inefficiencies(),
        "alpha_L": reference.left_handed(),
        "maps": reference.self_distance(),
    }


def record(folder: Path, settings: Settings, *, minutes: float) -> dict[str, Any]:
    """Record until the CPU minutes of all calls together are spent; write and return the summary.

    Raises:
        ValueError: If they do not suffice for a block after burn-in, or `Recording` raises.
    """
    recording = Recording(folder, settings)
    print(recording.sampler, file=sys.stderr)
    while recording.seconds < 60 * minutes:
        recording.block()
        counts = recording.sampler.counts
        done = "burn-in" if recording.n_blocks <= recording.n_burn_in else "recorded"
        print(
            f"{recording.seconds / 60:5.1f} of {minutes:g} min, {counts.sweeps} sweeps {done}, "
            f"acceptance {float(counts.accepted.mean() / counts.sweeps):.2f}, "
            f"exchanges {float(counts.exchange_rates[settings.cold - 1 :].mean()):.2f}",
            file=sys.stderr,
            flush=True,
        )
    reference = recording.reference()
    summary = summarise(reference)
    reference.write(folder / "reference.npz")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("system", choices=RUNGS)
    parser.add_argument("--minutes", type=float, default=12.0, help="CPU time in all  [12]")
    parser.add_argument("--out", type=Path, required=True, help="folder, outside of a repository")
    parser.add_argument("--rungs", type=int, help="temperatures  [6, 8 or 10]")
    for option in dataclasses.fields(Settings)[2:]:
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=type(option.default),
            default=option.default,
            help=f"[{option.default}]",
        )
    given = vars(parser.parse_args())
    out, budget = given.pop("out"), given.pop("minutes")
    given["rungs"] = given["rungs"] or RUNGS[given["system"]]
    torch.set_num_threads(1)
    print(json.dumps(record(out, Settings(**given), minutes=budget), indent=2))
