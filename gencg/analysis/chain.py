"""A chain of structures that changes little from one to the next."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from gencg.analysis.alignment import rmsd_matrix, superposed
from gencg.coordinates.internal import InternalCoordinates


def smoothest_chain(candidates: Sequence[Tensor], masses: Tensor) -> tuple[list[int], list[float]]:
    r"""One structure out of each group, so that neighbours differ least.

    .. math:: \min_{i_1, \dots, i_m} \sum_k d^2(x_{k, i_k},\, x_{k+1, i_{k+1}})

    with d the deviation after superposition, found by dynamic programming: the choice is the best
    of all chains, not the nearest to the last structure at each step.

    Args:
        candidates: Structures ``(n_k, n_atoms, 3)`` of each group, all of equal right to be
            chosen, such as drawn by weight.
        masses: Weights of the atoms in the deviation, ``(n_atoms,)``.

    Returns:
        Index within each group, and the deviation of each from the one before it.

    Raises:
        ValueError: If a group is empty.
    """
    for k, group in enumerate(candidates):
        if not len(group):
            raise ValueError(f"group {k + 1} of `candidates` is empty")
    total = torch.zeros(len(candidates[0]), dtype=torch.float64)
    back, steps = [], []
    for before, after in pairwise(candidates):
        distance = rmsd_matrix(before.double(), after.double(), masses)
        trial = total[:, None] + distance**2
        total, choice = trial.min(0)
        back.append(choice)
        steps.append(distance)
    chain = [int(total.argmin())]
    for choice in reversed(back):
        chain.append(int(choice[chain[-1]]))
    chain.reverse()
    deviations = [float(d[i, j]) for d, i, j in zip(steps, chain[:-1], chain[1:], strict=True)]
    return chain, deviations


def laid_on_each_other(
    x: Tensor, masses: Tensor, coordinates: InternalCoordinates | None = None
) -> Tensor:
    """Structures ``(n, n_atoms, 3)``, each turned onto the one before it.

    With `coordinates`, the atoms of symmetric rotors (the hydrogens of a CH3) take the labels
    that bring them nearest to those before: another name for the same configuration.
    """
    out = [x[0]]
    for frame in x[1:]:
        moved = superposed(frame[None], out[-1], masses)
        if coordinates is not None:
            moved = _relabelled(moved, out[-1], coordinates)
        out.append(moved[0])
    return torch.stack(out)


def _relabelled(x: Tensor, before: Tensor, coordinates: InternalCoordinates) -> Tensor:
    copies = torch.zeros(1, len(coordinates.rotors), dtype=torch.long)
    for r, rotor in enumerate(coordinates.rotors):
        trials = copies.repeat(rotor.n, 1)
        trials[:, r] = torch.arange(rotor.n)
        turned = coordinates.relabel(x.expand(rotor.n, -1, -1), trials)
        copies[0, r] = int((turned - before).square().sum((1, 2)).argmin())
    return coordinates.relabel(x, copies)
