"""The committor between two states of a finished run, on covering samples drawn anew."""

from dataclasses import dataclass

import torch

from gencg.analysis.committor import (
    Committor,
    MappedBasis,
    TransitionStates,
    committor,
    core,
    transition_states,
)
from gencg.discover import covering_samples
from gencg.discover.slow_cvs import flattened_samples
from gencg.ensemble import Ensemble
from gencg.objectives.dirichlet import Basis, FourierBasis, KernelBasis
from gencg.objectives.slow_modes import cv_samples
from gencg.run.execute import trained
from gencg.run.folder import RunFolder
from gencg.run.states import RunStates

ORDERS = {1: (12, 8, 5), 2: (8, 6, 4), 3: (3, 2)}
"""Highest harmonics tried by the number of angles; the lowest held-out flux decides."""
FEWEST = 2000
"""Covering samples below which there is no use in trying."""


@dataclass(frozen=True, eq=False)
class Transition:
    """What `transition_between` finds.

    Attributes:
        committor: The committor from state a to state b.
        samples: Half of the covering samples, all atoms.
        states: Those of them with a committor near 1/2; None where there are none.
        n_energy_calls: Energy calls spent on the covering samples.
    """

    committor: Committor
    samples: Ensemble
    states: TransitionStates | None
    n_energy_calls: int


def transition_between(
    folder: RunFolder,
    found: RunStates,
    a: int,
    b: int,
    *,
    n_calls: int = 40_000,
    membership: float = 0.8,
    seed: int = 0,
) -> Transition:
    """The committor between two states and the structures on top of the way.

    A finished run keeps no covering samples: they are drawn anew, one energy call each, half of
    them spread evenly over the first two collective variables.

    Args:
        folder: The run.
        found: Its states.
        a: State where the committor is 0, counted from 0.
        b: State where it is 1.
        n_calls: Covering samples, and energy calls.
        membership: Membership that bounds both states; see `gencg.analysis.committor.core`.
        seed: Decides everything random.

    Raises:
        ValueError: If there are too few calls, or the states are not two or have no core.
    """
    if n_calls < FEWEST:
        raise ValueError(f"the committor needs at least {FEWEST} energy calls, got {n_calls}")
    if a == b:
        raise ValueError(f"a committor is between two states, got state {a + 1} twice")
    slow, result = found.slow, trained(found.system, folder)
    half = n_calls // 2
    ensemble, covering = covering_samples(result, half, seed=seed)
    rows = slow.map.matrix[: min(slow.n_cvs, 2)].double()
    if len(rows) == 1 and slow.map.n_soft > 1 and not slow.map.periodic:
        rows = slow.map.matrix[:2].double()
    n_further, samples = flattened_samples(
        result, covering, rows, n_calls - half, share=1 - half / n_calls, seed=seed + 1
    )
    regions = [core(slow.functions, found.found, j, membership=membership) for j in (a, b)]
    tried = [
        committor(samples, basis, *regions, n_bootstraps=0, seed=seed) for basis in _bases(found, samples)
    ]
    best = min(tried, key=lambda c: c.held_out)
    best = committor(samples, best.basis, *regions, seed=seed)
    kept = torch.isfinite(ensemble.log_weights)
    q = torch.full((ensemble.n_samples,), torch.nan, dtype=torch.float64)
    q[kept] = best(covering.s)
    try:
        top = transition_states(q, ensemble.log_weights)
    except ValueError:
        top = None
    return Transition(best, ensemble, top, ensemble.n_energy_calls + n_further)


def _bases(found: RunStates, samples: object) -> list[Basis]:
    """Functions of the collective variables, from the finest."""
    cv_map, d = found.slow.map, found.slow.n_cvs
    if cv_map.periodic:
        inner: list[Basis] = [FourierBasis(torch.eye(d), order=n) for n in ORDERS.get(d, (1,))]
    else:
        inside = cv_samples(cv_map, samples)  # type: ignore[arg-type]
        inner = [
            KernelBasis.around(inside, n_centres=n) for n in ((60, 30) if d == 1 else (150, 60))
        ]
    return [MappedBasis(cv_map, basis) for basis in inner]
