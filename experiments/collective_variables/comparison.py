"""Metadynamics of several choices of variables, compared by when their free energies are right."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.collective_variables.crossings import difference, differences, settled
from experiments.peers.metadynamics import LEFT_OUT as LEFT_OUT  # the same share everywhere
from experiments.peers.metadynamics import TARGET
from gencg.analysis import torsion_angles
from gencg.export.trajectory import read_samples
from gencg.plots.style import ACCENT, EXACT, RAW, REWEIGHTED, new_figure, style
from gencg.run import RunFolder
from gencg.systems.registry import FORCE_FIELDS
from gencg.units import BOLTZMANN_CONSTANT

TOLERANCE = 1.0
"""Error of a free-energy difference that counts as right, in kJ/mol."""
BAR = 1.5
"""Time of the CVs over that of phi and psi that is asked for."""
PER_HILL = 5
"""Frames kept from a hill to the next."""
BLOCK = 50
"""Hills between two looks at the free energy, each with a checkpoint."""
BASELINE = "phi, psi"
"""Variables that the others are compared with."""
BOOTSTRAPS = 500

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """Free-energy differences that count as true, in kJ/mol.

    Attributes:
        values: By the names of `differences`.
        errors: Standard errors; NaN where unknown.
        source: Of each, in words.
    """

    values: dict[str, float]
    errors: dict[str, float]
    source: dict[str, str]


def reference_of(folder: RunFolder, population: float | None = None) -> Reference:
    """Differences by a run's weighted samples, alpha_L by parallel tempering where there is one.

    Args:
        folder: A finished run of alanine dipeptide.
        population: Of alpha_L, in place of that.

    Raises:
        ValueError: If the run is of another molecule, or not finished.
    """
    config, system = folder.config, folder.system()
    if config.target != TARGET:
        raise ValueError(f"{folder.path} must be a run of {TARGET}, got {config.target}")
    if folder.summary is None:
        raise ValueError(f"run {folder.path} is not finished; run its command again")
    assert system.molecule is not None
    samples = read_samples(folder.path)
    samples = samples.select(samples.valid)
    angles = torsion_angles(samples.x, [quad for _, quad in system.molecule.phi_psi()])
    kt = BOLTZMANN_CONSTANT * system.temperature
    found = from_samples(angles, samples.log_weights.double().numpy(), system.temperature)
    error = np.nan
    if population is None and tuple(config.forcefield) == FORCE_FIELDS[TARGET]:
        file = Path(__file__).parents[1] / "peptides" / f"{TARGET}.json"
        known = json.loads(file.read_text())["alpha_L"]["ALA2"]
        population, error = known["mean"], known["error"]
    if population is not None:
        found.values["alpha_L"] = difference(population, temperature=system.temperature)
        found.errors["alpha_L"] = float(kt * error / (population * (1 - population)))
        found.source["alpha_L"] = "parallel tempering" if np.isfinite(error) else "given"
    return found


def from_samples(angles: Array, log_weights: Array, temperature: float) -> Reference:
    """Differences by weighted phi, psi ``(n, 2)``, with errors by drawing the samples anew."""
    rng = np.random.default_rng(0)
    drawn = []
    with np.errstate(divide="ignore"):
        for _ in range(50):
            times = np.log(rng.poisson(1.0, len(log_weights)))
            drawn.append(differences(angles, log_weights + times, temperature=temperature))
    values = differences(angles, log_weights, temperature=temperature)
    errors = {name: float(np.std([row[name] for row in drawn], ddof=1)) for name in values}
    return Reference(values, errors, dict.fromkeys(values, "weighted samples of the run"))


def compare(results: dict[str, list[dict[str, Any]]], reference: Reference) -> dict[str, Any]:
    """Crossings, times and last errors of all replicas, and the ratios of times.

    Args:
        results: Of each choice of variables, an entry per replica with ``ps``, ``crossings``,
            ``times`` and the course of each free-energy difference by its name.
        reference: What is true.

    Returns:
        For each choice and difference: the time from which the median size of the replicas'
        errors stays within `TOLERANCE`; median and quartiles of the time from which a replica's
        own error does, and the share of replicas that are there at the end; standard errors by
        drawing replicas anew; the last errors. The ratio to `BASELINE` is that of the first time:
        the second one is near the end for any error that wanders as far as the tolerance.
    """
    found: dict[str, Any] = {
        "reference": vars(reference), "tolerance": TOLERANCE, "variables": {}, "ratios": {},
    }  # fmt: skip
    found_times: dict[str, dict[str, tuple[float, Array]]] = {}
    for name, replicas in results.items():
        row: dict[str, Any] = {
            "replicas": len(replicas),
            "ps": [r["ps"] for r in replicas],
            "crossings": [r["crossings"] for r in replicas],
        }
        found_times[name] = {}
        for quantity, value in reference.values.items():
            times = np.array([settled(r["times"], r[quantity], value, TOLERANCE) for r in replicas])
            errors = np.array([r[quantity] for r in replicas]) - value
            at, last, sizes = replicas[0]["times"], errors[:, -1], np.abs(errors)
            median = np.median(sizes, axis=0)
            right, drawn = settled(at, median, 0.0, TOLERANCE), _drawn_settled(at, sizes)
            found_times[name][quantity] = (right, drawn)
            row[quantity] = {
                "right_ps": right,
                "right_error_ps": _spread(drawn),
                "settled_ps": times.tolist(),
                "median_ps": float(np.median(times)),
                "quartiles_ps": [_quantile(times, q) for q in (0.25, 0.75)],
                "arrived": float(np.isfinite(times).mean()),
                "last_error": last.tolist(),
                "course": [[t, float(size)] for t, size in zip(at, median, strict=True)],
            }
        found["variables"][name] = row
    base = found_times.get(BASELINE)
    for name, own in found_times.items():
        if base is None or name == BASELINE:
            continue
        # Where neither arrives there is nothing to compare
        found["ratios"][name] = {
            quantity: {
                "ratio": time / base[quantity][0] if np.isfinite(base[quantity][0]) else np.nan,
                "error": _spread_of_ratio(drawn, base[quantity][1]),
                "reaches_bar": bool(
                    np.isfinite(base[quantity][0]) and time <= BAR * base[quantity][0]
                ),
            }
            for quantity, (time, drawn) in own.items()
        }
    return found


def _drawn_settled(times: Sequence[float], sizes: Array) -> Array:
    """When the median of sizes ``(n, n_times)`` is right for good, of replicas drawn anew."""
    rng = np.random.default_rng(0)
    picks = rng.integers(len(sizes), size=(BOOTSTRAPS, len(sizes)))
    courses = (np.median(sizes[pick], axis=0) for pick in picks)
    return np.array([settled(times, course, 0.0, TOLERANCE) for course in courses])


def _spread(drawn: Array) -> float:
    """Standard deviation; infinite or NaN where a tenth or more of the draws are not finite."""
    finite = np.isfinite(drawn)
    if finite.mean() < 0.9:
        return np.inf
    return float(drawn[finite].std()) if len(drawn) > 1 else np.nan


def _spread_of_ratio(drawn: Array, base: Array) -> float:
    """The same of the ratio of two times; infinite where either may never come."""
    both = np.isfinite(drawn) & np.isfinite(base)
    ratios = np.full(len(drawn), np.inf)
    ratios[both] = drawn[both] / base[both]
    return _spread(ratios)


def _quantile(times: Array, q: float) -> float:
    """Of times that may be infinite: one of them, never a mean."""
    return float(np.quantile(times, q, method="higher"))


def plain(value: Any) -> Any:
    """The same with None for numbers that are not finite, which JSON does not know."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def markdown(found: dict[str, Any]) -> str:
    """The comparison as a table, a row for each choice and difference."""
    rows = [
        "| variables | replicas x ns | crossings | difference | median error within "
        f"{TOLERANCE:g} kJ/mol from ps | over phi, psi | a replica's own: median (quartiles) "
        "| there at the end | last error, kJ/mol |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|---|")
    for name, row in found["variables"].items():
        begun = f"{name} | {row['replicas']} x {row['ps'][0] / 1000:.2f}"
        crossed = _mean(np.array(row["crossings"], dtype=np.float64), "")
        for quantity in found["reference"]["values"]:
            own = row[quantity]
            low, high = own["quartiles_ps"]
            cells = [begun, crossed, quantity]
            cells.append(f"{own['right_ps']:.4g} ± {own['right_error_ps']:.2g}")
            ratio = found["ratios"].get(name, {}).get(quantity)
            cells.append("" if ratio is None else f"{ratio['ratio']:.2f} ± {ratio['error']:.2f}")
            cells.append(f"{own['median_ps']:.4g} ({low:.4g}, {high:.4g})")
            cells.append(f"{own['arrived']:.0%}")
            cells.append(_mean(np.array(own["last_error"]), "+"))
            rows.append("| " + " | ".join(cells) + " |")
    values = found["reference"]
    lines = [
        f"{name}: {value:.2f} ± {values['errors'][name]:.2f} kJ/mol ({values['source'][name]})"
        for name, value in values["values"].items()
    ]
    return "\n".join([*rows, "", *lines, f"asked is a ratio of at most {BAR:g}"])


def draw(found: dict[str, Any], path: Path) -> None:
    """Median error over time of every choice, a panel for each difference.

    Args:
        found: What `compare` gave.
        path: File of the picture.
    """
    titles = {
        "alpha_L": r"$\alpha_L$ over the rest",
        "alpha_R": r"$\alpha_R$ over PPII and $\beta$",
    }
    colours = [REWEIGHTED, RAW, ACCENT, "#CC79A7", "#E69F00"]
    with style():
        figure, axes = new_figure(len(found["reference"]["values"]), sharey=True)
        for axis, quantity in zip(axes, found["reference"]["values"], strict=True):
            for k, (name, row) in enumerate(found["variables"].items()):
                course = np.array(row[quantity]["course"], dtype=np.float64)
                course[~np.isfinite(course)] = np.nan
                axis.plot(*course.T, color=colours[k % len(colours)], label=name.split(": ")[-1])
            axis.axhline(TOLERANCE, color=EXACT, linestyle="--", linewidth=1)
            axis.set(
                title=titles.get(quantity, quantity), xlabel="length of a replica, ps",
                yscale="log", yticks=[0.5, 1, 2, 5, 10], yticklabels=["0.5", "1", "2", "5", "10"],
            )  # fmt: skip
            axis.minorticks_off()
        axes[0].set_ylabel("median error, kJ/mol")
        axes[-1].legend(loc="upper right")
        figure.savefig(path)


def _mean(values: Array, sign: str) -> str:
    """Mean and standard error; the mean of finite ones, and how many are not."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "none finite"
    error = finite.std(ddof=1) / np.sqrt(len(finite)) if len(finite) > 1 else np.nan
    lost = len(values) - len(finite)
    return f"{finite.mean():{sign}.2f} ± {error:.2f}" + (f" ({lost} infinite)" if lost else "")
