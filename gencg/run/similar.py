"""What molecules of similar size reached: a coarse expectation from the measured table."""

import csv
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("molecules.csv")
"""Atoms, soft coordinates and ESS of the molecules of docs/molecules.md."""
N_SIMILAR = 8
CLASSES = ((0.75, "good"), (0.2, "usable"), (0.0, "poor"))
"""Classes of the ESS: at least this, and its name."""
CAVEAT = "MMFF94 in vacuum, 1e6 energy calls, one seed; two molecules of one size may differ much"


@dataclass(frozen=True)
class Similar:
    """Molecules of similar size in the table.

    Args:
        ess_class: Class of their median.
        median: Median of their ESS.
        lowest: Their lowest ESS.
        highest: Their highest.
        names: Which ones, the most similar first.
        beyond: Whether the molecule is larger than any of the table.
        caveat: What the table holds, and how little it says.
    """

    ess_class: str
    median: float
    lowest: float
    highest: float
    names: tuple[str, ...]
    beyond: bool
    caveat: str = CAVEAT


def similar_molecules(n_atoms: int, n_soft: int) -> Similar:
    """The molecules of the table that are nearest in log size and soft coordinates.

    Args:
        n_atoms: Atoms of the molecule.
        n_soft: Its coordinates that are sampled between states.
    """
    rows = _table()

    def distance(row: tuple[str, int, int, float]) -> float:
        _, atoms, soft, _ = row
        # Squares: a factor of two in atoms weighs as much as three soft coordinates
        return (math.log2(atoms / n_atoms)) ** 2 + ((soft - n_soft) / 3) ** 2

    nearest = sorted(rows, key=distance)[:N_SIMILAR]
    values = [ess for *_, ess in nearest]
    median = statistics.median(values)
    return Similar(
        ess_class=next(name for least, name in CLASSES if median >= least),
        median=median,
        lowest=min(values),
        highest=max(values),
        names=tuple(name for name, *_ in nearest),
        beyond=n_atoms > max(r[1] for r in rows) or n_soft > max(r[2] for r in rows),
    )


def _table() -> list[tuple[str, int, int, float]]:
    with open(TABLE, newline="") as file:
        return [
            (row["name"], int(row["n_atoms"]), int(row["n_soft"]), float(row["ess"]))
            for row in csv.DictReader(file)
        ]
