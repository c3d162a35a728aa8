"""Weighted samples that also cover the transitions: hot soft blocks, and evenly spread angles."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencg.coordinates.metric import mass_metric
from gencg.discover.processes import couplings
from gencg.ensemble import Ensemble, draw
from gencg.fit import FitResult
from gencg.geometry import distances
from gencg.models.flattened import Candidates, FlattenedModel, balanced
from gencg.models.mixture import CoveringModel
from gencg.objectives.dirichlet import GAP, SoftSamples
from gencg.systems.base import System

MAX_GROUPS = 6
"""Most groups of angles in which samples are spread evenly."""


def covering_model(result: FitResult, *, share: float = 0.5) -> CoveringModel:
    """The generator mixed with the soft blocks it had at hotter stages; see `CoveringModel`."""
    snapshots = result.snapshots
    return CoveringModel(result.leading.model, snapshots, share=share if snapshots else 1.0)


def covering_samples(
    result: FitResult,
    n_samples: int,
    *,
    share: float = 0.5,
    seed: int = 0,
    pairs: Tensor | None = None,
) -> tuple[Ensemble, SoftSamples]:
    """Weighted samples that also cover the transition regions; see `CoveringModel`.

    Args:
        result: The trained generator.
        n_samples: Number of samples, an energy call each.
        share: Of the model's own soft block.
        seed: Decides everything random.
        pairs: Atoms whose distances are wanted, too, ``(d, 2)``.

    Returns:
        The samples, and their soft coordinates with metric and weights.
    """
    return _draw(result, covering_model(result, share=share), n_samples, seed=seed, pairs=pairs)


def flat_groups(samples: SoftSamples, min_population: float) -> list[Tensor]:
    """Groups of one or two soft angles to spread samples evenly in, slowest first.

    Each angle is in one group: with the angle that it is most strongly coupled to, or two by two
    with others of none. Groups beyond the last gap of the slowest function that each has are left
    out.

    Args:
        samples: Covering samples of angles.
        min_population: Processes that move less are not looked at.

    Returns:
        Rows that combine the soft angles, ``(1 or 2, k)`` each, `MAX_GROUPS` at most.
    """
    coupled, alone = couplings(samples, min_population)
    groups: list[tuple[float, list[int]]] = []
    taken: set[int] = set()
    for c in sorted(coupled, key=lambda c: -c.gain):
        if not taken & set(c.pair):
            groups.append((c.slowest, list(c.pair)))
            taken |= set(c.pair)
    single = sorted((i for i in range(len(alone)) if i not in taken), key=lambda i: alone[i])
    groups += [(alone[single[k]], single[k : k + 2]) for k in range(0, len(single), 2)]
    groups.sort(key=lambda group: group[0])
    slowest = [value for value, _ in groups][: 2 * MAX_GROUPS]
    wide = [k for k in range(1, len(slowest)) if slowest[k] >= GAP * max(slowest[k - 1], 1e-300)]
    n = min(wide[-1] if wide else len(slowest), MAX_GROUPS)
    rows = torch.eye(samples.n_soft)
    return [rows[index] for _, index in groups[:n]]


def flattened_samples(
    result: FitResult,
    covering: SoftSamples,
    groups: Sequence[Tensor],
    n_samples: int,
    *,
    n_covering: int,
    seed: int = 0,
    pairs: Tensor | None = None,
) -> tuple[int, SoftSamples]:
    """Covering samples with as many more, spread evenly over given angles.

    Barriers are crossed by few covering samples, and the slow functions have all their slope
    there; see `FlattenedModel`. Each group of angles gets an equal part; all samples are weighted
    by the mixture of all densities.

    Args:
        result: The trained generator.
        covering: Samples of its covering model, as from `covering_samples`.
        groups: Rows that combine the soft coordinates into those to be even in, ``(d, k)`` each.
        n_samples: Further samples, one energy call each.
        n_covering: How many were drawn for `covering`, with and without weight.
        seed: Decides everything random.
        pairs: As in `covering_samples`.

    Returns:
        Energy calls spent, and all samples, mixed.
    """
    covers = covering_model(result)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = Candidates(covers, min(100_000, max(20_000, 4 * n_samples)))
        flat = [FlattenedModel(covers, rows, candidates=drawn) for rows in groups]
    parts = [len(part) for part in torch.arange(n_samples).tensor_split(len(flat))]
    shares = [n / (n_samples + n_covering) for n in parts]

    def ratios(s: Tensor) -> list[Tensor]:
        return [model.log_ratio(s).double().cpu() for model in flat]

    calls = 0
    every = [covering]
    weights = [balanced(covering.log_weights, ratios(covering.s), shares)]
    for k, (model, n) in enumerate(zip(flat, parts, strict=True)):
        ensemble, further = _draw(result, model, n, seed=seed + k, pairs=pairs)
        calls += ensemble.n_energy_calls
        every.append(further)
        found = ratios(further.s)
        # The flattened model's own weights are for its own density, not for the covering one
        weights.append(balanced(further.log_weights + found[k], found, shares))
    together = SoftSamples.join(every, torch.cat(weights))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(together.s), generator=generator)
    return calls, together.take(order)


def _draw(
    result: FitResult, model: nn.Module, n_samples: int, *, seed: int, pairs: Tensor | None = None
) -> tuple[Ensemble, SoftSamples]:
    system = result.system
    ensemble = draw(
        model,  # type: ignore[arg-type]
        result.target,
        n_samples,
        molecule=system.molecule,
        seed=seed,
        name=system.name,
    )
    return ensemble, soft_samples(system, ensemble, pairs=pairs)


def soft_samples(system: System, ensemble: Ensemble, *, pairs: Tensor | None = None) -> SoftSamples:
    """Soft coordinates of an ensemble with their mass metric and weights.

    Args:
        system: What was sampled.
        ensemble: The samples.
        pairs: Atoms whose distances are wanted, too, ``(d, 2)``.
    """
    coordinates = system.coordinates
    index = coordinates.soft.nonzero()[:, 0]
    kept = torch.isfinite(ensemble.log_weights)
    x, y, log_weights = ensemble.x[kept], ensemble.y[kept], ensemble.log_weights[kept]
    masses = None if system.molecule is None else torch.as_tensor(system.molecule.masses)
    metric = torch.cat(
        [
            mass_metric(coordinates, part, index, masses=masses, pairs=pairs)
            for part in torch.split(x, 4000)
        ]
    )
    periodic, k = bool(coordinates.periodic[index].all()), len(index)
    return SoftSamples(
        y[:, index],
        metric[:, :k, :k].contiguous(),
        log_weights,
        periodic,
        None if pairs is None else distances(x, pairs),
        None if pairs is None else metric,
    )
