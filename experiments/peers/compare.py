"""gencg beside its peers: tables, figures and results.json from what the runs wrote down.

ESS against a plain spline flow at equal energy calls and at equal seconds, and the time to a
surface over phi and psi within 1 kJ/mol of a reference against metadynamics. Seconds are CPU
seconds of one thread.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.peers.surfaces import (
    DEPTH,
    Deviation,
    Reference,
    deviation,
    kept_from,
    read_reference,
)
from gencg.plots.style import ACCENT, EXACT, RAW, REWEIGHTED, new_figure, style

TOLERANCE = 1.0
"""Deviation in kJ/mol to stay within."""
TEMPERATURE = 300.0
MEASURES = ("rms", "largest")


def read_generator(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """gencg's runs by seed, budgets rising, each with its surface."""
    runs: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for path in folder.glob("gencg-*.json"):
        run = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz")) as content:
            run["surface"] = content["surface"]
        runs[int(path.stem.rsplit("-", 1)[1])].append(run)
    return {seed: sorted(found, key=lambda run: run["calls"]) for seed, found in runs.items()}


def read_plain(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The tests along each training of the plain flow, by the name of its file."""
    paths = sorted(folder.glob("plain*.json"))
    return {path.stem: json.loads(path.read_text())["tests"] for path in paths}


def read_metadynamics(folder: Path) -> dict[str, dict[str, Any]]:
    """Calls, seconds and surfaces of each simulation, by the name of its file and the surface."""
    runs = {}
    for path in sorted(folder.glob("metadynamics*.npz")):
        with np.load(path) as content:
            for estimate in ("bias", "reweighted"):
                runs[f"{path.stem}, {estimate}"] = {
                    "calls": content["calls"],
                    "seconds": content["seconds"],
                    "surfaces": content[estimate],
                }
    return runs


def ess_rows(
    generator: Mapping[int, Sequence[Mapping[str, Any]]],
    plain: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """A row per run of gencg; a plain flow's ESS at its calls and seconds, between its tests."""
    rows = []
    for seed, runs in sorted(generator.items()):
        for run in runs:
            row = {"seed": seed, **{k: run[k] for k in ("calls", "seconds", "ess", "log_z")}}
            for name, tests in plain.items():
                for axis in ("calls", "seconds"):
                    row[f"{name} at equal {axis}"] = between(tests, axis, run[axis])
            rows.append(row)
    return rows


def between(tests: Sequence[Mapping[str, Any]], axis: str, value: float) -> float | None:
    """ESS at a value of an axis, linear between tests; None after the last."""
    at, ess = ([test[key] for test in tests] for key in (axis, "ess"))
    # The last step of a budget may fall a batch short of it
    if value > 1.01 * at[-1]:
        return None
    return float(np.interp(value, [0.0, *at], [0.0, *ess]))


def surface_row(
    method: str, calls: Sequence[float], seconds: Sequence[float], found: Sequence[Deviation]
) -> dict[str, Any]:
    """When a method came within the tolerance and stayed, and where it ended."""
    row: dict[str, Any] = {"method": method, "calls": calls[-1], "seconds": seconds[-1]}
    for measure in MEASURES:
        errors = [getattr(d, measure) for d in found]
        index = kept_from(errors, TOLERANCE)
        row[measure] = errors[-1]
        row[f"{measure}_calls"] = None if index is None else calls[index]
        row[f"{measure}_seconds"] = None if index is None else seconds[index]
    return row


def surface_curves(
    generator: Mapping[int, Sequence[Mapping[str, Any]]],
    metadynamics: Mapping[str, Mapping[str, Any]],
    reference: Reference,
) -> dict[str, tuple[list[float], list[float], list[Deviation]]]:
    """Calls, seconds and deviations of every method."""
    curves = {}
    for seed, runs in sorted(generator.items()):
        calls, seconds = ([run[f"surface_{key}"] for run in runs] for key in ("calls", "seconds"))
        found = [deviation(run["surface"], reference) for run in runs]
        curves[f"gencg-{seed}"] = (calls, seconds, found)
    for name, run in metadynamics.items():
        found = [deviation(surface, reference) for surface in run["surfaces"]]
        curves[name] = (run["calls"].tolist(), run["seconds"].tolist(), found)
    return curves


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    if not rows:
        return ""
    lines = [[*rows[0]], ["---"] * len(rows[0])]
    lines += [[_text(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_ess(
    generator: Mapping[int, Sequence[Mapping[str, Any]]],
    plain: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
) -> None:
    """ESS against calls and against seconds."""
    with style():
        figure, axes = new_figure(2)
        for ax, axis in zip(axes, ("calls", "seconds"), strict=True):
            for k, runs in enumerate(generator.values()):
                label = "gencg, one training per point" if k == 0 else None
                ax.plot(*_series(runs, axis), "o-", color=REWEIGHTED, label=label)
            for (name, tests), colour in zip(plain.items(), (RAW, ACCENT, EXACT) * 3, strict=False):
                ax.plot(*_series(tests, axis), "s--", color=colour, label=name)
            ax.set_xscale("log")
            ax.set_ylim(-0.02, 1.02)
            ax.set_xlabel({"calls": "energy calls", "seconds": "CPU seconds, one thread"}[axis])
            ax.set_ylabel("effective sample size at 300 K")
        axes[0].legend()
        figure.savefig(path)


def _series(runs: Sequence[Mapping[str, Any]], axis: str) -> tuple[list[float], list[float]]:
    return [run[axis] for run in runs], [run["ess"] for run in runs]


def draw_surfaces(
    curves: Mapping[str, tuple[list[float], list[float], list[Deviation]]], path: Path
) -> None:
    """Deviation against seconds, root mean square and largest."""
    with style():
        figure, axes = new_figure(2)
        for ax, measure in zip(axes, MEASURES, strict=True):
            others = iter((RAW, ACCENT, EXACT, "#CC79A7", "#E69F00", "#56B4E9") * 3)
            for name, (_, seconds, found) in curves.items():
                ours = name.startswith("gencg")
                errors = [getattr(d, measure) for d in found]
                colour = REWEIGHTED if ours else next(others)
                ax.plot(seconds, errors, "o-" if ours else "-", color=colour, label=name)
            ax.axhline(TOLERANCE, ls="--", color=EXACT, lw=1.0)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xlabel("CPU seconds, one thread")
            ax.set_ylabel(f"{measure} deviation (kJ/mol)")
            ax.set_title(f"cells below {DEPTH:g} kJ/mol")
        axes[0].legend(fontsize=8)
        figure.savefig(path)


def main() -> None:
    """Print the tables and write figures and numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"), help="[%(default)s]")
    parser.add_argument("--reference", type=Path, help=".npz of the converged phi, psi")
    given = parser.parse_args()
    generator, plain = read_generator(given.runs), read_plain(given.runs)
    rows = ess_rows(generator, plain)
    results: dict[str, Any] = {"ess": rows, "plain": plain}
    print(table(rows))
    draw_ess(generator, plain, given.runs / "ess.png")
    if given.reference:
        reference = read_reference(given.reference, temperature=TEMPERATURE)
        curves = surface_curves(generator, read_metadynamics(given.runs), reference)
        results["reference"] = repr(reference)
        results["surfaces"] = [surface_row(name, *curve) for name, curve in curves.items()]
        results["curves"] = {
            name: {"calls": calls, "seconds": seconds, "deviations": [vars(d) for d in found]}
            for name, (calls, seconds, found) in curves.items()
        }
        print(f"\n{reference}\n\n{table(results['surfaces'])}")
        draw_surfaces(curves, given.runs / "surface.png")
    (given.runs / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
