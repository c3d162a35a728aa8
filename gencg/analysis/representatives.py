"""A structure that stands for a weighted state, and how far the state spreads around it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gencg.analysis.alignment import rmsd_matrix
from gencg.analysis.histogram import Array, to_array
from gencg.importance import resample_indices

MOST = 1500
"""Members that density and spread are judged on, drawn by weight."""


@dataclass(frozen=True)
class Representative:
    """One sample for a state.

    Attributes:
        sample: Its index.
        rmsd: Mean deviation of the state's structures from it after superposition, by weight, in
            nm; NaN where there are no structures.
        n_distinct: Different samples among those it was chosen from.
    """

    sample: int
    rmsd: float
    n_distinct: int


def representative(
    features: Any,
    log_weights: Tensor,
    members: NDArray[np.bool_],
    *,
    x: Tensor | None = None,
    masses: Any = None,
    width: float = 0.35,
    seed: int = 0,
) -> Representative:
    r"""The member around which the density of the state is highest.

    .. math:: i^* = \arg\max_i \sum_j \tilde w_j\, e^{-|f_i - f_j|^2 / 2 h^2},
              \qquad h = w \sqrt{d}

    over members drawn by weight, so that a sample of no weight, a strained structure, is not
    chosen.

    Args:
        features: Features f in which near means alike, ``(n, d)``, such as cosines and sines of
            torsions.
        log_weights: Log weights, ``(n,)``.
        members: Which samples are in the state, ``(n,)`` bool.
        x: Structures ``(n, n_atoms, 3)`` in nm, for the spread.
        masses: Masses of the atoms, 0 for those to leave out of the deviation.
        width: Width w of the kernel along one feature.
        seed: Decides which members are drawn.

    Raises:
        ValueError: If no member has weight.
    """
    index = torch.from_numpy(np.flatnonzero(members))
    log_w = log_weights[index]
    if not len(index) or not bool(torch.isfinite(log_w).any()):
        raise ValueError("`members` hold no sample with weight; draw more samples")
    drawn = index[resample_indices(log_w, MOST, seed)]
    candidates, counts = torch.unique(drawn, return_counts=True)
    f = torch.from_numpy(to_array(features)[candidates.numpy()])
    square = torch.cdist(f, f).square() / (width**2 * f.shape[1])
    density = torch.exp(-0.5 * square) @ counts.double()
    best = int(candidates[int(density.argmax())])
    rmsd = float("nan")
    if x is not None:
        few = candidates[torch.randperm(len(candidates), generator=_seeded(seed))[:500]]
        share = counts[torch.searchsorted(candidates, few)].double()
        distance = rmsd_matrix(x[best][None], x[few], torch.as_tensor(masses))[0]
        rmsd = float((distance.double() * share).sum() / share.sum())
    return Representative(best, rmsd, len(candidates))


def circle_features(values: Any, angles: Any) -> Array:
    """Angles as cosine and sine, other coordinates over their standard deviation, ``(n, d)``."""
    values, columns = to_array(values), []
    for column, angle in zip(values.T, angles, strict=True):
        if angle:
            columns += [np.cos(column), np.sin(column)]
        else:
            finite = column[np.isfinite(column)]
            columns.append(column / max(float(finite.std()), 1e-12))
    return np.stack(columns, 1)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
