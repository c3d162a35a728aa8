"""The ablation as a Markdown table and a work-precision figure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gencg.plots.style import new_figure, style

COLUMNS = {
    "ess": ("ESS", ".4f"),
    "ess_cut": ("ESS, weights cut at ten", ".4f"),
    "reverse_kl": ("reverse KL (kT)", ".4f"),
    "log_z": ("log Z", ".4f"),
    "raw": ("rare state raw (%)", ".3f"),
    "reweighted": ("reweighted (%)", ".3f"),
    "pareto_k": ("Pareto k", ".2f"),
    "steps": ("steps", ".0f"),
    "energy_calls": ("calls", ".3g"),
    "cpu_seconds": ("CPU s", ".0f"),
}
"""Keys of a summary: head of the column and format."""
PERCENT = {"raw", "reweighted"}
SPREAD = {"ess", "ess_cut", "reverse_kl", "log_z", "raw", "reweighted", "cpu_seconds"}
"""Columns with a standard error over seeds."""

Summary = Mapping[str, Any]


def grouped(summaries: Sequence[Summary]) -> dict[tuple[str, float], list[Summary]]:
    """Finished runs by variant and budget, in their order."""
    groups: dict[tuple[str, float], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault((summary["variant"], summary["calls"]), []).append(summary)
    return groups


def table(summaries: Sequence[Summary]) -> str:
    """One line per variant and budget: mean ± standard error over the seeds."""
    heads = ["variant", "budget", "seeds", *(head for head, _ in COLUMNS.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (variant, calls), runs in grouped(summaries).items():
        done = [run for run in runs if "failed" not in run]
        seeds = f"{len(done)}" + (f", {len(runs) - len(done)} failed" * (len(done) < len(runs)))
        cells = [_cell(done, key, form) for key, (_, form) in COLUMNS.items()]
        lines.append("| " + " | ".join([variant, f"{calls:.2g}", seeds, *cells]) + " |")
    return "\n".join(lines)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; nan for a single value."""
    n = len(values)
    error = float(np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return float(np.mean(values)), error


def figure(summaries: Sequence[Summary]) -> Figure:
    """ESS against energy calls and against CPU seconds of training; one line per variant."""
    with style():
        page, axes = new_figure(2, 1, width=7.0, height=5.5)
        for k, (name, points) in enumerate(_lines(summaries).items()):
            for ax, key in zip(axes, ("energy_calls", "cpu_seconds"), strict=True):
                x = [p[key] for p in points]
                y, error = zip(*(p["ess"] for p in points), strict=True)
                ax.errorbar(
                    x, y, np.nan_to_num(error), marker="os^vD"[k % 5], ms=5, lw=1, label=name
                )
        for ax, label in zip(axes, ("energy calls", "CPU seconds of training"), strict=True):
            ax.set_xscale("log")
            ax.set_xlabel(label)
            ax.set_ylabel("effective sample size")
        axes[1].legend(fontsize=6, ncols=2, loc="lower left", bbox_to_anchor=(1.0, 0.0))
    return page


def _lines(summaries: Sequence[Summary]) -> dict[str, list[dict[str, Any]]]:
    """By variant, its points in the order of the budget."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for (variant, _), runs in sorted(grouped(summaries).items(), key=lambda item: item[0][1]):
        done = [run for run in runs if "failed" not in run]
        if done:
            point: dict[str, Any] = {"ess": mean_and_error([run["ess"] for run in done])}
            for key in ("energy_calls", "cpu_seconds"):
                point[key] = float(np.mean([run[key] for run in done]))
            lines.setdefault(variant, []).append(point)
    return lines


def _cell(runs: Sequence[Summary], key: str, form: str) -> str:
    values = [run[key] * (100 if key in PERCENT else 1) for run in runs if key in run]
    if not values:
        return ""
    mean, error = mean_and_error(values)
    spread = f" ± {error:{form}}" if key in SPREAD and not math.isnan(error) else ""
    return f"{mean:{form}}{spread}"
