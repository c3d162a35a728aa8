"""One table and one figure of all results: method by system, mean and standard error over seeds.

Reads ``experiments/*/results/*.json`` (`record.Result`) and writes the table between the markers of
docs/results.md. A method that has no result yet has no row: whatever `record` or an experiment
leaves in such a folder is in the next table.
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record import Result
from gencg.plots.style import ACCENT, EXACT, RAW, REWEIGHTED, new_figure, style

ROOT = Path(__file__).parent
PAGE = ROOT.parent / "docs/results.md"
BEGIN, END = "<!-- papers: begin -->", "<!-- papers: end -->"
SYSTEMS = (
    "double-well", "curved-wells", "mueller-brown", "gaussian-mixture", "alanine-dipeptide",
)  # fmt: skip
METHODS = (
    "gencg", "gencg, flow matching", "gaussian decoder", "linear bijection", "spline flow",
    "temperature annealed", "parallel tempering",
)  # fmt: skip
"""Order of the rows; methods of other names follow."""
STATE = {"alanine-dipeptide": "αL", "double-well": "right", "mueller-brown": "product"}
COLOURS = (REWEIGHTED, ACCENT, RAW, "#CC79A7", "#E69F00", "#56B4E9", EXACT)

Key = tuple[str, float, str, float]
"""System, temperature, method and budget of calls: what is averaged over seeds."""


def read_all(folders: Sequence[Path]) -> dict[Key, list[Result]]:
    """All results in folders, grouped and in the order of the table.

    Raises:
        ValueError: If a file holds no result, or a seed comes twice.
    """
    found: dict[Key, list[Result]] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            result = Result.read(path)
            key = (result.system, result.temperature, result.method, result.budget)
            if result.seed in [r.seed for r in found.get(key, [])]:
                raise ValueError(f"{path}: another file has seed {result.seed} of {key}")
            found.setdefault(key, []).append(result)
    return dict(sorted(found.items(), key=_place))


def _place(item: tuple[Key, list[Result]]) -> tuple[Any, ...]:
    (system, temperature, method, budget), _ = item
    return (*(_index(n, of) for n, of in ((system, SYSTEMS), (method, METHODS))), temperature,
            method, budget)  # fmt: skip


def _index(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard error from the spread of the seeds (nan for one)."""
    n = len(values)
    mean, error = float(np.mean(values)), math.nan
    if n > 1:
        error = float(np.std(values, ddof=1)) / math.sqrt(n)
        # Equal numbers differ by rounding
        error = error if error > 1e-12 * abs(mean) else 0.0
    return mean, error


def cell(results: Sequence[Result], value: Callable[[Result], float | None]) -> str:
    """Mean ± standard error of what the results have; a dash for nothing.

    A number that only some of the seeds have says of how many it is.
    """
    values = [v for r in results if (v := value(r)) is not None and math.isfinite(v)]
    if not values:
        return "–"
    mean, error = mean_and_error(values)
    text = _short(mean) if math.isnan(error) else f"{_like(mean, error)} ± {_short(error, 1)}"
    return text if len(values) == len(results) else f"{text} ({len(values)} of {len(results)})"


def _short(value: float, digits: int = 3) -> str:
    if value == 0:
        return "0"
    small = abs(value) < 1e-3 or abs(value) >= 1e4
    if small:
        return f"{value:.{max(digits - 2, 0)}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"


def _like(value: float, error: float) -> str:
    """A value to the digit of its error."""
    if error == 0 or abs(value) < 1e-3 or abs(value) >= 1e4:
        return _short(value)
    digits = min(max(-math.floor(math.log10(error)), 0), 6)
    return f"{value:.{digits}f}"


def measured(name: str) -> Callable[[Result], float | None]:
    """A measure of a result by name."""
    return lambda result: result.measures.get(name)


def state_error(result: Result) -> float | None:
    """Error of the watched state's reweighted population in percentage points, unsigned."""
    value, exact = (result.measures.get(f"state_{name}") for name in ("reweighted", "exact"))
    return None if value is None or exact is None else 100 * abs(value - exact)


def log_z_error(result: Result) -> float | None:
    """Deviation of log Z from the known value, unsigned; None at temperatures without one."""
    value = result.measures.get("log_z_deviation")
    return None if value is None else abs(value)


COLUMNS: dict[str, Callable[[Result], float | None]] = {
    "energy calls": lambda r: r.energy_calls,
    "CPU s": lambda r: r.seconds,
    "ESS": measured("ess"),
    "log Z error": log_z_error,
    "TV raw": measured("tv_raw"),
    "TV reweighted": measured("tv_reweighted"),
    "state error, %": state_error,
    "slow time kept": measured("kept"),
    "VAMP-2": measured("vamp_2"),
    "bound gap, kT": measured("bound_gap"),
}


def markdown(found: Mapping[Key, Sequence[Result]]) -> str:
    """The table, one row per method, system, temperature and budget."""
    head = ["system", "method", "seeds", *COLUMNS]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for (system, temperature, method, _), results in found.items():
        where = f"{system}, {temperature:.0f} K" if system == "alanine-dipeptide" else system
        star = "" if all(r.full for r in results) else " *"
        row = [where, method + star, str(len(results))]
        for name, value in COLUMNS.items():
            if name == "energy calls":
                row.append(f"{np.mean([r.energy_calls for r in results]):.3g}".replace("e+0", "e"))
            else:
                row.append(cell(results, value))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def put(page: str, text: str) -> str:
    """A page with what stands between the markers replaced.

    Raises:
        ValueError: If the page does not hold both markers once, in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page must hold {BEGIN} and {END} once each, in this order")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def draw(found: Mapping[Key, Sequence[Result]], path: Path) -> None:
    """ESS of every method on every system, and total variation, raw against reweighted."""
    systems = [s for s in SYSTEMS if any(key[0] == s for key in found)]
    names = list(dict.fromkeys(key[2] for key in found))
    with style():
        figure, axes = new_figure(2, width=6.4, height=3.8)
        for (system, _, method, _), results in found.items():
            place = systems.index(system) + 0.11 * (names.index(method) - len(names) / 2)
            colour = COLOURS[names.index(method) % len(COLOURS)]
            for result in results:
                ess = result.measures.get("ess")
                if ess:
                    axes[0].plot(place, max(ess, 1e-5), "o", color=colour, ms=4)
                pair = [result.measures.get(f"tv_{name}") for name in ("raw", "reweighted")]
                if None not in pair:
                    axes[1].plot([place] * 2, pair, "-", color=colour, lw=0.8)
                    axes[1].plot(place, pair[0], "o", color=colour, ms=4, mfc="white")
                    axes[1].plot(place, pair[1], "o", color=colour, ms=4)
        for k, name in enumerate(names):
            axes[0].plot([], [], "o", color=COLOURS[k % len(COLOURS)], label=name)
        axes[0].set_ylabel("effective sample size")
        axes[1].set_ylabel("total variation")
        axes[1].set_title("open: as drawn, full: reweighted", fontsize=10)
        for ax in axes:
            ax.set_yscale("log")
            ax.set_xticks(range(len(systems)), [s.replace("-", "\n") for s in systems], fontsize=9)
        axes[0].legend(fontsize=8, loc="lower left")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=80)


def main() -> None:
    """Write table and figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folders", type=Path, nargs="+", help="[experiments/*/results]")
    parser.add_argument("--page", type=Path, default=PAGE, help="[%(default)s]")
    figure = PAGE.parent / "figures/methods.png"
    parser.add_argument("--figure", type=Path, default=figure, help="[%(default)s]")
    parser.add_argument("--print", action="store_true", help="print the table, write nothing")
    given = parser.parse_args()
    try:
        found = read_all(given.folders or sorted(ROOT.glob("*/results")))
        if not found:
            parser.error("no results in the folders; run the experiments first")
        text = markdown(found)
        if given.print:
            print(text)
            return
        given.page.write_text(put(given.page.read_text(), text))
    except ValueError as error:
        sys.exit(str(error))
    draw(found, given.figure)
    print(f"{len(found)} rows in {given.page}")


if __name__ == "__main__":
    main()
