"""Released figures: the command behind each, and the cheap ones measured again and compared.

python -m experiments.figures              # those of a minute or less
python -m experiments.figures --list       # all, with command and cost; only that they stand there
python -m experiments.figures --minutes 5  # and dearer ones
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.expectations import misses

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Figure:
    """A figure, or a few of one command.

    Attributes:
        page: Pages that it stands on.
        text: Texts by which it stands there, word for word.
        command: What is behind it.
        minutes: What that takes of one core.
        run: Arguments of `gencg run` that repeat it.
        measure: Function of this file that repeats it.
        quantities: What the new numbers are held to, as in expected.json.
        free: Given where measuring is free although the command is dear, with the reason.
    """

    page: tuple[str, ...]
    text: tuple[str, ...]
    command: str
    minutes: float
    run: tuple[str, ...] = ()
    measure: str = ""
    quantities: Mapping[str, Any] = field(default_factory=dict)
    free: Mapping[str, str] = field(default_factory=dict)

    @property
    def repeats(self) -> bool:
        """Whether this file can measure it."""
        return bool(self.run or self.measure)

    @property
    def price(self) -> float:
        """Minutes to measure it here."""
        return 0.0 if self.free else self.minutes


def figures() -> list[Figure]:
    """All of figures.toml."""
    entries = tomllib.loads((ROOT / "experiments" / "figures.toml").read_text())["figure"]
    lists = ("page", "text", "run")
    return [Figure(**{k: tuple(v) if k in lists else v for k, v in e.items()}) for e in entries]


def absent(figure: Figure) -> list[str]:
    """Texts that no longer stand on their pages, in words."""
    pages = {page: (ROOT / page).read_text() for page in figure.page}
    return [
        f"{page} does not say {text!r}"
        for page, content in pages.items()
        for text in figure.text
        if text not in content
    ]


def measured(figure: Figure) -> dict[str, Any]:
    """The numbers of now."""
    if figure.measure:
        return MEASURES[figure.measure]()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gencg", "run", *figure.run, "--out", f"{folder}/run"]
        done = subprocess.run([*command, "--json", "--quiet"], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def double_well_exact() -> dict[str, Any]:
    """log Z and right well of the double well, by quadrature."""
    import gencg

    known = gencg.systems.double_well().known
    return {"log_z": known["log_z"], "right": known["populations"]["right"]}


def molecules_table() -> dict[str, Any]:
    """Counts over the table of docs/molecules.md."""
    text = (ROOT / "docs" / "molecules.md").read_text()
    row = re.compile(r"^\| [\w-]+ \| \d+ \| \d+ \| ([\d.e-]+) \|", re.MULTILINE)
    ess = [float(value) for value in row.findall(text)]
    return {
        "n": len(ess),
        "n_20": sum(value >= 0.2 for value in ess),
        "n_75": sum(value >= 0.75 for value in ess),
        "median": statistics.median(ess),
    }


def pretrained() -> dict[str, Any]:
    """The tetrapeptide's generator that comes with the package."""
    import gencg

    name = "alanine-tetrapeptide"
    trained = gencg.pretrained.load(name)
    ensemble = gencg.draw(trained.model, trained.target, 10_000, molecule=trained.system.molecule)
    size = (gencg.pretrained.FOLDER / f"{name}.pt").stat().st_size
    return {"ess": ensemble.ess, "megabytes": size / 1e6}


def implicit_solvents() -> dict[str, Any]:
    """Energy of the dipeptide's reference by OpenMM's amber96_obc.xml, beside OBC1's."""
    import torch

    import gencg

    first = gencg.systems.alanine_dipeptide()
    other = gencg.systems.alanine_dipeptide(forcefield=("amber96.xml", "amber96_obc.xml"))
    x = torch.as_tensor(first.molecule.positions)[None]
    return {"difference": abs(float(first.energy(x) - other.energy(x)))}


def rounded_trajectory() -> dict[str, Any]:
    """Standard deviation in kT by which rounding to 0.001 nm moves energies of a tetrapeptide."""
    import torch

    import gencg
    from gencg.units import BOLTZMANN_CONSTANT

    trained = gencg.pretrained.load("alanine-tetrapeptide")
    ensemble = gencg.draw(trained.model, trained.target, 1000, molecule=trained.system.molecule)
    rounded = trained.system.energy(torch.round(ensemble.x, decimals=3))
    return {"kt": float((rounded - ensemble.energy).std()) / (BOLTZMANN_CONSTANT * 300)}


def waiting() -> dict[str, Any]:
    """CPU seconds until a command answers and until the package is there."""
    from experiments.benchmarks.waiting import starts

    return starts()


def units() -> dict[str, Any]:
    """kT and beta at 300 K."""
    from gencg.units import BOLTZMANN_CONSTANT, inverse_temperature

    return {"kt": BOLTZMANN_CONSTANT * 300, "beta": float(inverse_temperature(300))}


MEASURES: dict[str, Callable[[], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        double_well_exact, molecules_table, pretrained, implicit_solvents, rounded_trajectory,
        units, waiting,
    )
}  # fmt: skip


def main() -> None:
    """List, measure, compare."""
    parser = argparse.ArgumentParser(description="Released figures, measured again and compared.")
    parser.add_argument("--list", action="store_true", help="measure nothing")
    parser.add_argument("--minutes", type=float, default=1.0, help="dearest to measure  [1]")
    parser.add_argument("--only", choices=sorted(MEASURES), help="this one alone")
    given = parser.parse_args()
    failures: list[str] = []
    for figure in figures():
        if given.only and figure.measure != given.only:
            continue
        found = absent(figure)
        state = "stands"
        if figure.repeats and not given.list and figure.price <= given.minutes:
            found += misses({"folder": figure.command, **measured(figure)}, figure.quantities)
            state = "measured again"
        elif not given.list:
            state = "too dear" if figure.repeats else "by its command"
        state = "FAILED" if found else state
        print(f"{state:15} {figure.minutes:6.1f} min  {', '.join(figure.page)}: {figure.command}",
              flush=True)  # fmt: skip
        failures += found
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
