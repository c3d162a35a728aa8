"""One stage against two: CVs that come with the generator, and CVs found after it.

Three models at the same number of energy calls in training: the Gaussian decoder with its Gaussian
prior, the decoder with one peak for each z and a flow prior, and the two stages of the default.
Raw populations are those of the generator as it draws, reweighted ones those of the joint weights.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gencg.systems import load

# Started where the wells of the double well merge, 16 times its temperature
TOYS = ["--energy-calls", "7e5", "--batch-size", "256"]
HOT = ["--start-temperature", "1924"]
MODELS = {
    "gaussian": ["--decoder", "gaussian"],
    "unimodal": ["--decoder", "unimodal"],
    "two stages": [],
}
"""Options of each model."""
TARGETS: dict[str, dict[str, Any]] = {
    "double-well": {"state": "right", "one": [*TOYS, *HOT, "--cvs", "1"], "two": []},
    "mueller-brown": {"state": "product", "one": [*TOYS, "--cvs", "2"], "two": []},
    "alanine-dipeptide": {"state": "alpha_L", "one": ["--cvs", "2"], "two": []},
}
"""The state to watch, and the options of one and of two stages: 6e5 and 3e6 training calls."""
COLUMNS = (
    "run", "ess", "log_z", "exact", "raw", "reweighted", "exact", "calls", "seconds",
)  # fmt: skip


def one(target: str, model: str, seed: int, *, out: Path, options: list[str]) -> dict[str, Any]:
    """Run, go on with or read one run; its summary."""
    setting = TARGETS[target]
    folder = out / f"{target}-{model.replace(' ', '-')}-{seed}"
    command = [sys.executable, "-m", "gencg", "run", target, *MODELS[model]]
    command += [*setting["two" if model == "two stages" else "one"], *options]
    command += ["--seed", str(seed), "--out", str(folder), "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return {"folder": folder.name, **json.loads(done.stdout)}


def row(target: str, summary: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """One line of the table: joint weights where a run has them."""
    state = TARGETS[target]["state"]
    joint = "joint_" if "joint_log_z" in summary else ""
    raw = summary["populations"][state]["raw"]
    weighted = summary[f"{joint}populations"][state]
    exact = known.get("populations", {}).get(state)
    log_z = f"{summary[f'{joint}log_z']:.4f} ± {summary[f'{joint}log_z_error']:.4f}"
    return [
        summary["folder"],
        f"{summary['joint_ess']:.3f}",
        log_z,
        "" if known.get("log_z") is None else f"{known['log_z']:.4f}",
        f"{raw:.5f}",
        f"{weighted['reweighted']:.5f} ± {weighted['reweighted_error']:.5f}",
        "" if exact is None else f"{exact:.5f}",
        f"{summary['energy_calls']:.3g}",
        f"{summary['wall_seconds']:.0f}",
    ]


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="Everything after -- goes to `gencg run`, such as -- --threads 1.",
    )
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=[*TARGETS])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/one_stage"), help="[%(default)s]")
    parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", sep="\n")
    for target in given.targets:
        known = load(target).known
        for model in given.models:
            for seed in given.seeds:
                summary = one(target, model, seed, out=given.out, options=given.options)
                print("| " + " | ".join(row(target, summary, known)) + " |", flush=True)


if __name__ == "__main__":
    main()
