"""The committor between two states of a finished run, on covering samples drawn anew."""

from dataclasses import dataclass, replace

import torch

from gencg.analysis.committor import (
    Committor,
    MappedBasis,
    TransitionStates,
    committor,
    core,
    transition_states,
)
from gencg.discover import SlowCVs
from gencg.discover.covering import covering_model, soft_samples
from gencg.ensemble import Ensemble, draw
from gencg.fit import FitResult
from gencg.models.flattened import FlattenedModel, balanced
from gencg.objectives.dirichlet import Basis, FourierBasis, KernelBasis, SoftSamples
from gencg.objectives.pair_basis import PairBasis
from gencg.objectives.slow_modes import cv_samples
from gencg.run.execute import trained
from gencg.run.folder import RunFolder
from gencg.run.states import RunStates

ORDERS = {1: (12, 6), 2: (7, 5)}
"""Highest harmonics tried by the number of angles; the lowest held-out flux decides. Of more angles
it is the basis of the slow functions, whole and up to the fourth harmonic."""
FEWEST = 2000
"""Covering samples below which there is no use in trying."""


@dataclass(frozen=True, eq=False)
class Transition:
    """What `transition_between` finds.

    Attributes:
        committor: The committor from state a to state b.
        samples: The covering samples, all atoms, with their weights.
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
    ensemble, samples = _covering(result, slow, n_calls, seed)
    regions = [core(slow.functions, found.found, j, membership=membership) for j in (a, b)]
    best = committor(samples, _bases(found, samples), *regions, seed=seed)
    try:
        top = transition_states(best.values, samples.log_weights)
    except ValueError:
        top = None
    return Transition(best, ensemble, top, ensemble.n_energy_calls)


def _covering(
    result: FitResult, slow: SlowCVs, n_calls: int, seed: int
) -> tuple[Ensemble, SoftSamples]:
    """Covering samples and as many spread evenly over the CVs, all atoms, without the invalid.

    They are weighted by the mixture of both densities, as in `gencg.discover.flattened_samples`.
    """
    system, matrix = result.system, slow.map.matrix.double()
    rows = matrix[: 2 if slow.n_cvs > 1 or not slow.map.periodic else 1]
    model = covering_model(result)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flat = FlattenedModel(model, rows, n_candidates=min(100_000, max(20_000, 2 * n_calls)))
    half = n_calls // 2
    share = 1 - half / n_calls
    parts, n_drawn = [], 0
    for k, (density, n) in enumerate(((model, half), (flat, n_calls - half))):
        drawn = draw(
            density,  # type: ignore[arg-type]
            result.target,
            n,
            molecule=system.molecule,
            seed=seed + k,
            name=system.name,
        )
        n_drawn += drawn.n_energy_calls
        drawn = drawn.select(torch.isfinite(drawn.log_weights))
        ratio = flat.log_ratio(drawn.y[:, system.coordinates.soft]).double().cpu()
        base = drawn.log_weights + (ratio if k else 0.0)
        parts.append(replace(drawn, log_weights=balanced(base, [ratio], [share])))
    together = torch.randperm(
        sum(map(len, parts)), generator=torch.Generator().manual_seed(seed)
    )  # blocks of samples are alike for the bootstrap
    first, second = parts
    ensemble = replace(
        first,
        x=torch.cat([first.x, second.x])[together],
        y=torch.cat([first.y, second.y])[together],
        z=torch.cat([first.z, second.z])[together],
        energy=torch.cat([first.energy, second.energy])[together],
        log_weights=torch.cat([first.log_weights, second.log_weights])[together],
        valid=torch.cat([first.valid, second.valid])[together],
        n_energy_calls=n_drawn,
    )
    return ensemble, soft_samples(system, ensemble)


def _bases(found: RunStates, samples: SoftSamples) -> list[Basis]:
    """Functions of the collective variables, from the finest."""
    cv_map, d = found.slow.map, found.slow.n_cvs
    basis = getattr(found.slow.functions.heads, "basis", None)
    inner: list[Basis]
    if isinstance(basis, PairBasis) and d > 2:
        inner = [basis, basis.capped(4)]
    elif cv_map.periodic:
        inner = [FourierBasis(torch.eye(d), order=n) for n in ORDERS.get(d, (2,))]
    else:
        inside = cv_samples(cv_map, samples)
        inner = [
            KernelBasis.around(inside, n_centres=n) for n in ((60, 30) if d == 1 else (150, 60))
        ]
    return [MappedBasis(cv_map, basis) for basis in inner]
