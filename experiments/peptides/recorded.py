"""Torsions that independent ladders recorded at 300 K, and what their spread says of the errors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.analysis import ramachandran_basins, ramachandran_total_variation, weighted_histogram
from gencg.analysis.torsions import Torsions, residue_pairs

Array = NDArray[np.float64]

BINS = (100, 36, 24)
"""Cells along each angle over the whole circle: 100 as in the literature, 10 and 15 degrees."""
TURN = 2**16
"""Steps of an angle in a file: 16 bits hold one turn and wrap as it does."""


def to_steps(angles: Any) -> NDArray[np.int16]:
    """Angles in radians as 16-bit fractions of a turn, to 1e-4 rad."""
    steps = np.round(np.asarray(angles, dtype=np.float64) * (TURN / (2 * np.pi)))
    return np.asarray((steps + TURN / 2) % TURN - TURN / 2, dtype=np.int16)


def to_radians(steps: NDArray[np.int16]) -> Array:
    """Angles in radians, in [-pi, pi)."""
    return np.asarray(steps * (2 * np.pi / TURN), dtype=np.float64)


@dataclass(frozen=True)
class Reference:
    """Backbone torsions of the coldest replicas, ladder by ladder.

    Ladders are independent of each other, their samples are not: all errors come from the spread
    between ladders, so that no correlation time has to be guessed.

    Args:
        system: Name of the system.
        labels: Name of each torsion, "phi(ALA2)".
        steps: As from `to_steps`, ``(n_ladders, n_samples, n_torsions)``.
        about: How it was made.
    """

    system: str
    labels: tuple[str, ...]
    steps: NDArray[np.int16]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def n_samples(self) -> int:
        """Samples of all ladders."""
        return int(np.prod(self.steps.shape[:2]))

    def write(self, path: Path) -> None:
        """Write a compressed ``.npz``."""
        about = json.dumps(self.about)
        np.savez_compressed(
            path, system=self.system, labels=self.labels, steps=self.steps, about=about
        )

    @classmethod
    def read(cls, path: Path) -> "Reference":
        """Read what `write` wrote."""
        with np.load(path) as file:
            labels = tuple(str(label) for label in file["labels"])
            about = json.loads(str(file["about"]))
            return cls(str(file["system"]), labels, file["steps"], about)

    @property
    def residues(self) -> tuple[str, ...]:
        """Residues with both phi and psi."""
        none = Torsions(self.labels, np.zeros((0, len(self.labels))))
        return tuple(residue_pairs(none))

    def angles(self, label: str) -> Array:
        """A torsion of all samples, ladder after ladder, ``(n,)``."""
        return to_radians(self.steps[..., self.labels.index(label)]).reshape(-1)

    def pair(self, residue: str) -> Array:
        """phi and psi of a residue, ladder after ladder, ``(n, 2)``."""
        return np.stack([self.angles(f"{name}({residue})") for name in ("phi", "psi")], -1)

    def by_ladder(self, values: Array) -> Array:
        """Values of all samples as ``(n_ladders, n_samples)``."""
        return values.reshape(len(self.steps), -1)

    def left_handed(self) -> dict[str, dict[str, float]]:
        """Population of alpha_L of each residue, with its standard error, and how it was found."""
        found = {}
        for residue in self.residues:
            mask = ramachandran_basins(*self.pair(residue).T)["alpha_L"]
            found[residue] = self.average(mask.astype(np.float64))
        return found

    def average(self, values: Array) -> dict[str, float]:
        r"""Mean of a quantity, from the means :math:`m_l` of n samples of each of L ladders.

        .. math:: \mathrm{se}^2 = \frac{\mathrm{Var}(m)}{L}, \qquad
                  g = \frac{n \mathrm{Var}(m)}{\mathrm{Var}(f)}

        Returns:
            The mean, its standard error, the statistical inefficiency g (samples per independent
            one), and the means by start, which agree once the starts are forgotten.
        """
        table = self.by_ladder(values)
        means = table.mean(1)
        spread = float(means.var(ddof=1))
        variance = float(table.var())
        return {
            "mean": float(means.mean()),
            "error": (spread / len(means)) ** 0.5,
            "inefficiency": table.shape[1] * spread / variance if variance else 1.0,
            "from_reference_structure": float(means[::2].mean()),
            "from_random_torsions": float(means[1::2].mean()),
        }

    def inefficiencies(self) -> dict[str, float]:
        """Statistical inefficiency of cosine and sine of every torsion, the larger of both."""
        return {
            label: max(self.average(f(angles))["inefficiency"] for f in (np.cos, np.sin))
            for label, angles in ((label, self.angles(label)) for label in self.labels)
        }

    def self_distance(self, bins: Sequence[int] = BINS) -> dict[str, list[dict[str, float]]]:
        r"""Noise of the Ramachandran maps, by comparing one half of the ladders with the other.

        The halves differ by twice the distance of the whole from the truth: each has twice the
        variance, and they err independently. The number of independent samples follows from the
        distance :math:`f` that halves of n samples each would have if all were independent,
        :math:`n_\mathrm{eff} = 2 n (f / d)^2`.
        """
        # Starts take turns, so that each half holds both
        order = np.arange(len(self.steps)) // 2 % 2
        halves = [Reference(self.system, self.labels, self.steps[order == k]) for k in (0, 1)]
        found: dict[str, list[dict[str, float]]] = {}
        for residue in self.residues:
            one, other = (half.pair(residue) for half in halves)
            for b in bins:
                distance, floor = ramachandran_total_variation(one, other, bins=b)
                effective = self.n_samples * (floor / distance) ** 2
                found.setdefault(residue, []).append(
                    {"bins": b, "noise": distance / 2, "effective_samples": effective}
                )
        return found

    def cell_errors(self, residue: str, *, bins: int) -> Array:
        """Standard errors of the cells of a map, ``(bins, bins)``, from all ladders."""
        angles = self.pair(residue).reshape(len(self.steps), -1, 2)
        cells = [weighted_histogram(ladder, bins=bins).probabilities for ladder in angles]
        return np.asarray(np.std(cells, axis=0, ddof=1) / len(cells) ** 0.5, dtype=np.float64)
