"""A row for each finished run: its collective variables, and what they cost."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from gencg.analysis.cv_names import shorter

HEADER = (
    "run", "CVs", "slow processes", "eigenvalues", "gap", "networks", "joint / all-atom ESS",
    "ratio", "bound gap, kT", "energy calls", "doubts",
)  # fmt: skip


def row(name: str, summary: dict[str, Any]) -> list[str]:
    """The cells of a run, from its summary.json.

    Raises:
        ValueError: If the run has no slow collective variables.
    """
    if "cv_eigenvalues" not in summary:
        raise ValueError(f"run {name} has no slow collective variables; finish it with --cvs auto")
    places = summary.get("cv_processes") or range(summary["n_processes"])
    pairs = zip(summary["cv_eigenvalues"], summary["cv_eigenvalue_errors"], strict=True)
    values = [f"{value:.3g} ± {_number(error, 1)}" for value, error in pairs]
    support = summary.get("n_processes_support")
    again = "" if support is None else f" ({support:.0%} of resamplings)"
    ratio = summary["joint_ess"] / summary["ess"]
    return [
        name,
        ", ".join(shorter(cv) for cv in summary["cv_names"]),
        f"{summary['n_processes']}{again}",
        ", ".join(values[k] for k in places),
        _number(summary["spectral_gap"], 2),
        _number(summary.get("cv_network_gain"), 4),
        f"{summary['joint_ess']:.3f} / {summary['ess']:.3f}",
        f"{ratio:.3f}",
        f"{summary['bound_gap']:.4f} ± {summary['bound_gap_error']:.4f}",
        f"{summary['energy_calls']:,}",
        "; ".join(summary.get("cv_doubts") or ()) or "none",
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def table(runs: list[Path]) -> str:
    """A markdown table of runs."""
    rows = [row(run.name, json.loads((run / "summary.json").read_text())) for run in runs]
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders")
    print(table(parser.parse_args().runs))
