"""Runs of several seeds, and what their numbers are held against."""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def run_seeds(target: str, *, folder: Path, out: str) -> list[dict[str, Any]]:
    """Run ``gencg run`` with each seed asked for on the command line and judge the summaries.

    Args:
        target: What to run.
        folder: Where expected.json lies.
        out: Default beginning of the run folders, which end in the seed.

    Returns:
        The summaries, with the runs' folders under ``folder``.
    """
    expected = json.loads((folder / "expected.json").read_text())
    parser = argparse.ArgumentParser(
        description=expected["claim"],
        epilog="Everything after -- goes to `gencg run`, such as -- --threads 1.",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=expected["seeds"])
    parser.add_argument("--out", default=out, help=f"run folders are OUT-SEED  [{out}]")
    parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    summaries = []
    for seed in given.seeds:
        run = f"{given.out}-{seed}"
        command = [sys.executable, "-m", "gencg", "run", target, *expected["options"]]
        command += ["--seed", str(seed), "--out", run, "--json", *given.options]
        done = subprocess.run(command, stdout=subprocess.PIPE)
        if done.returncode:
            sys.exit(done.returncode)
        summaries.append({"folder": run, **json.loads(done.stdout)})
    failures = [line for s in summaries for line in misses(s, expected["quantities"])]
    print(table(summaries, expected["quantities"]))
    if failures:
        sys.exit("\n".join(failures))
    return summaries


def misses(summary: Mapping[str, Any], quantities: Mapping[str, Any]) -> list[str]:
    """The quantities of one run that are not as expected, in words; none if all are.

    A quantity is a key of the summary, parts joined by dots, and asks for ``at_least``,
    ``at_most``, or a ``value`` with a ``tolerance``.
    """
    failures = []
    for name, rule in quantities.items():
        found = lookup(summary, name)
        # A nan is not right
        right = rule.get("at_least", found) <= found <= rule.get("at_most", found) and abs(
            found - rule.get("value", found)
        ) <= rule.get("tolerance", 0.0)
        if not right:
            asked = ", ".join(f"{key} {value:g}" for key, value in rule.items())
            failures.append(f"{summary['folder']}: {name} is {found:g}, asked is {asked}")
    return failures


def lookup(summary: Mapping[str, Any], name: str) -> float:
    """A number of a summary by its dotted name."""
    value: Any = summary
    for part in name.split("."):
        value = value[part]
    return math.nan if value is None else float(value)


def table(summaries: Sequence[Mapping[str, Any]], quantities: Mapping[str, Any]) -> str:
    """The numbers as a Markdown table, one row per run."""
    names = [*quantities, "wall_seconds"]
    rows = [["run", *names], ["---"] * (len(names) + 1)]
    rows += [[s["folder"], *(f"{lookup(s, name):.8g}" for name in names)] for s in summaries]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
