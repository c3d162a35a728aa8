"""Torsions of an ensemble, and the distance between two Ramachandran maps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gencg import geometry
from gencg.analysis.histogram import Array, to_array, weighted_histogram, wrap


@dataclass(frozen=True)
class Torsions:
    """Torsion angles with their names.

    Attributes:
        labels: A name each, "phi(ALA2)" or the coordinate's own.
        values: Angles in radians in [-pi, pi), ``(n, n_torsions)``.
    """

    labels: tuple[str, ...]
    values: Array

    def __getitem__(self, label: str) -> Array:
        return np.asarray(self.values[:, self.labels.index(label)], dtype=np.float64)


def torsion_angles(positions: Any, quads: Sequence[Sequence[int]]) -> Array:
    """Torsion angles in radians in [-pi, pi) of quadruples of atoms, ``(n, n_torsions)``.

    Args:
        positions: ``(n, n_atoms, 3)``, tensor or array, in any unit of length.
        quads: Four atom indices each.

    Raises:
        ValueError: If `positions` has the wrong shape or a quadruple names a missing atom.
    """
    x = torch.as_tensor(positions, dtype=torch.float64).detach()
    if x.ndim != 3 or x.shape[-1] != 3:
        raise ValueError(f"`positions` must have shape (n, n_atoms, 3), got {tuple(x.shape)}")
    index = torch.as_tensor([list(quad) for quad in quads], dtype=torch.long).reshape(-1, 4)
    if ((index < 0) | (index >= x.shape[1])).any():
        raise ValueError(f"`quads` must name atoms below {x.shape[1]}, got {index.tolist()}")
    return wrap(geometry.dihedrals(x, index))


def ensemble_torsions(ensemble: Any, coordinates: Any = None) -> Torsions:
    """Torsions that describe an ensemble best: phi and psi, or else the soft torsions.

    Args:
        ensemble: Samples with `x`, `y` and `molecule`.
        coordinates: Map the samples were drawn in; names the soft torsions of a molecule without
            peptide bonds.

    Returns:
        phi and psi of each residue in turn, or the periodic soft coordinates in their order,
        rotors last; no torsion at all for a toy without angles.
    """
    pairs = [] if ensemble.molecule is None else ensemble.molecule.phi_psi()
    if pairs:
        labels, quads = zip(*pairs, strict=True)
        return Torsions(tuple(labels), torsion_angles(ensemble.x, quads))
    if coordinates is None:
        return Torsions((), np.zeros((ensemble.n_samples, 0)))
    soft = np.flatnonzero(to_array(coordinates.soft) * to_array(coordinates.periodic))
    # The turn of a CH3 group is the least interesting one
    chosen = sorted(soft.tolist(), key=lambda k: coordinates.names[k].startswith("rotor"))
    labels = tuple(coordinates.names[k] for k in chosen)
    return Torsions(labels, wrap(to_array(ensemble.y)[:, chosen]))


def residue_pairs(torsions: Torsions) -> dict[str, tuple[Array, Array]]:
    """phi and psi of each residue that has both, by the residue's name."""
    angles: dict[str, dict[str, Array]] = {}
    for label in torsions.labels:
        match = re.fullmatch(r"(phi|psi)\((.+)\)", label)
        if match:
            angles.setdefault(match[2], {})[match[1]] = torsions[label]
    return {name: (a["phi"], a["psi"]) for name, a in angles.items() if len(a) == 2}


def ramachandran_total_variation(
    angles: Any,
    reference: Any,
    *,
    log_weights: Any = None,
    reference_log_weights: Any = None,
    bins: int = 60,
) -> tuple[float, float]:
    r"""Total variation distance between two histograms of torsions, and its floor.

    .. math::

        \mathrm{TV} = \tfrac12 \sum_c |p_c - q_c|, \qquad
        \mathrm{floor} = \tfrac12 \sum_c \sqrt{\tfrac{2}{\pi}\,(\sigma^2(p_c) + \sigma^2(q_c))}

    The floor is what two samples of these sizes from one and the same density would show on
    average: a distance near it says the two agree.

    Args:
        angles: Torsions in radians, ``(n, 2)`` or ``(n,)``.
        reference: Torsions of the reference, ``(m, 2)`` or ``(m,)``.
        log_weights: Of `angles`; None: equal weights.
        reference_log_weights: Of `reference`; None: equal weights.
        bins: Cells along each torsion over the whole circle (6 degrees each at 60).

    Returns:
        The distance and the floor, both in [0, 1].
    """
    p = weighted_histogram(angles, log_weights, bins=bins)
    q = weighted_histogram(reference, reference_log_weights, bins=bins)
    if p.probabilities.ndim != q.probabilities.ndim:
        raise ValueError("`angles` and `reference` must hold the same number of torsions")
    distance = 0.5 * np.abs(p.probabilities - q.probabilities).sum()
    noise = np.sqrt(2 / np.pi * (p.errors**2 + q.errors**2))
    return float(distance), float(0.5 * noise.sum())
