"""Names of states: the few coordinates that tell them apart, and their values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.analysis.cv_names import shorter
from gencg.analysis.histogram import Array, to_array, wrap
from gencg.analysis.torsions import Torsions

BoolArray = NDArray[np.bool_]

TOLD_APART = 0.95
"""Total variation distance along a coordinate at which it tells two states apart."""
AS_GOOD = 0.02
"""How much less than the best coordinate of a pair one may tell, where none reaches that."""
DIRECTED = 0.5
"""Mean resultant length below which an angle has no value worth a name."""
BINS = 24


@dataclass(frozen=True)
class Marks:
    """The coordinates that tell states apart.

    Attributes:
        labels: Their names, in the order of the candidates.
        angles: Which are angles.
        values: Average of each in each state, ``(n_states, n_marks)``, circular for angles.
        spreads: Standard deviations, for angles :math:`\\sqrt{-2 \\ln R}`, same shape.
        separation: Largest total variation distance along one of them, for each pair of states,
            ``(n_states, n_states)``.
    """

    labels: tuple[str, ...]
    angles: tuple[bool, ...]
    values: Array
    spreads: Array
    separation: Array

    def name(self, state: int) -> str:
        """A state's name, such as "phi(ALA2) +55, psi(ALA2) +40", angles in degrees.

        Angles that go all around in this state are left out.
        """
        broad = np.sqrt(-2 * np.log(DIRECTED))
        parts = []
        for k, (label, angle) in enumerate(zip(self.labels, self.angles, strict=True)):
            if angle and self.spreads[state, k] > broad:
                continue
            value = self.values[state, k]
            parts.append(f"{shorter(label)} {_degrees(value) if angle else f'{value:+.2g}'}")
        return ", ".join(parts) or "no mark of its own"

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each state; equal ones are numbered."""
        names = [self.name(j) for j in range(len(self.values))]
        seen: dict[str, int] = {}
        for j, name in enumerate(names):
            if names.count(name) > 1:
                seen[name] = seen.get(name, 0) + 1
                names[j] = f"{name} ({seen[name]})"
        return tuple(names)


def tell_apart(
    coordinates: Torsions,
    angles: Sequence[bool],
    labels: Any,
    weights: Any,
    *,
    n_states: int,
    n_max: int = 4,
) -> Marks:
    r"""Choose the fewest coordinates that tell every two states apart.

    Two states are told apart along a coordinate where the total variation distance of their
    weighted histograms reaches `TOLD_APART`, or nearly the largest distance of this pair where none
    reaches that. Coordinates are taken one by one: the one that tells most pairs apart that were
    not yet, among equals the one of the largest distances.

    Args:
        coordinates: Candidates with their names.
        angles: Which of them are angles in radians.
        labels: State of each sample, ``(n,)``; -1 for none.
        weights: Normalised weights, ``(n,)``.
        n_states: Number of states.
        n_max: The most coordinates to name.

    Raises:
        ValueError: If there is no candidate, or a state has no weight.
    """
    values, w, state = coordinates.values, to_array(weights), np.asarray(labels)
    if values.shape[1] == 0:
        raise ValueError("`coordinates` must hold at least one, to name states by")
    histograms = np.stack(
        [
            _histograms(column, angle, w, state, n_states)
            for column, angle in zip(values.T, angles, strict=True)
        ]
    )
    distance = 0.5 * np.abs(histograms[:, :, None] - histograms[:, None]).sum(-1)
    pairs = list(combinations(range(n_states), 2))
    table = np.stack([distance[:, a, b] for a, b in pairs], 1)  # (n_coordinates, n_pairs)
    enough = np.minimum(TOLD_APART, table.max(0) - AS_GOOD)
    chosen: list[int] = []
    open_pairs = np.ones(len(pairs), dtype=bool)
    while open_pairs.any() and len(chosen) < min(n_max, len(table)):
        told = (table >= enough) & open_pairs
        score = told.sum(1) + table[:, open_pairs].sum(1) / (len(pairs) + 1)
        score[chosen] = -1.0
        best = int(np.argmax(score))
        chosen.append(best)
        open_pairs &= ~told[best]
    chosen.sort()
    picked = [
        [_average(values[state == j, k], w[state == j], angles[k]) for k in chosen]
        for j in range(n_states)
    ]
    found = np.asarray(picked, dtype=np.float64)
    return Marks(
        labels=tuple(coordinates.labels[k] for k in chosen),
        angles=tuple(angles[k] for k in chosen),
        values=found[..., 0],
        spreads=found[..., 1],
        separation=distance[chosen].max(0),
    )


def basin_names(
    masks: Mapping[str, BoolArray], labels: Any, weights: Any, *, n_states: int, share: float = 0.1
) -> tuple[str, ...]:
    """Which named basins hold each state: "beta + PPII", those with less than `share` left out.

    Args:
        masks: Which samples lie in which basin, from `gencg.analysis.states`; of several residues
            the name of the residue comes first, and every state gets one entry for each of them.
        labels: State of each sample, ``(n,)``.
        weights: Normalised weights, ``(n,)``.
        n_states: Number of states.
        share: Smallest share of a state that a basin is named for.
    """
    w, state = to_array(weights), np.asarray(labels)
    groups: dict[str, list[str]] = {}
    for name in masks:
        residue, _, _ = name.rpartition(" ")
        groups.setdefault(residue, []).append(name)
    out = []
    for j in range(n_states):
        mine = state == j
        total = w[mine].sum()
        parts = []
        for residue, names in groups.items():
            shares = {n: float(w[mine & masks[n]].sum() / total) if total > 0 else 0 for n in names}
            kept = [n for n in sorted(shares, key=lambda n: -shares[n]) if shares[n] >= share]
            short = " + ".join(n.rpartition(" ")[2] for n in kept)
            parts.append(f"{residue} {short}".strip())
        out.append(", ".join(parts))
    return tuple(out)


def _degrees(value: float) -> str:
    rounded = 5 * round(float(np.degrees(value)) / 5)
    return "180" if abs(rounded) == 180 else f"{rounded:+d}" if rounded else "0"


def _histograms(values: Array, angle: bool, w: Array, state: Any, n_states: int) -> Array:
    """Weighted histogram of each state, ``(n_states, BINS)``."""
    if angle:
        low, high, values = -np.pi, np.pi, wrap(values)
    else:
        alive = values[(w > 0) & (state >= 0)]
        low, high = float(alive.min()), float(alive.max())
    cell = np.clip(((values - low) / max(high - low, 1e-12) * BINS).astype(int), 0, BINS - 1)
    rows = [np.bincount(cell[state == j], w[state == j], BINS) for j in range(n_states)]
    mass = np.array([row.sum() for row in rows])
    if (mass <= 0).any():
        raise ValueError(f"state {int(np.argmin(mass)) + 1} has no sample with weight")
    return np.asarray(np.stack(rows) / mass[:, None])


def _average(values: Array, w: Array, angle: bool) -> tuple[float, float]:
    """Weighted mean and standard deviation, circular for angles."""
    w = w / w.sum()
    if angle:
        mean = complex(w @ np.exp(1j * values))
        spread = np.sqrt(-2 * np.log(min(max(abs(mean), 1e-12), 1.0)))
        return float(np.angle(mean)), float(spread)
    mean_value = float(w @ values)
    return mean_value, float(np.sqrt(w @ (values - mean_value) ** 2))
