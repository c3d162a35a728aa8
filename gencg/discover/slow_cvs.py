"""Slow collective variables of a trained generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gencg.coordinates.metric import mass_metric
from gencg.discover.choose import (
    MIN_TRANSITION,
    Choice,
    choose_on_line,
    choose_on_torus,
    slowest_pair,
)
from gencg.ensemble import Ensemble, draw
from gencg.fit import FitResult
from gencg.models.cv_map import CollectiveMap
from gencg.models.flattened import FlattenedModel, balanced
from gencg.models.mixture import CoveringModel
from gencg.objectives.dirichlet import SoftSamples, Spectrum
from gencg.objectives.slow_modes import SlowFunctions, solve_heads, train_cv_map
from gencg.systems.base import System

MIN_POPULATION = 1e-3
"""Processes that move less than this are reported apart."""
FEWEST_SAMPLES = 500
"""Covering samples below which no function can be told from chance."""
BENT_GAIN = 0.9
"""A bent map is kept if it brings the held-out eigenvalues below this share of the straight one."""


@dataclass(frozen=True)
class SlowCVs:
    r"""Slow collective variables of a generator.

    Args:
        functions: The slow functions g(ξ(s)), normalised; `functions.map` is the CV map.
        names: A name for each CV, such as "phi(ALA2)".
        spectrum: Spectrum of functions of the CVs, with errors, on all samples.
        n_processes: Number of slow processes before the gap.
        gap: Ratio of the eigenvalues across the gap.
        eigenvalues: Eigenvalues of `functions` on held-out samples, ``(m,)``.
        linear: Whether the CVs are linear in the soft coordinates: the bent map was not slower.
        n_energy_calls: Energy calls spent on the covering samples.
        samples: The weighted samples behind it; None once restored from a file.
    """

    functions: SlowFunctions
    names: tuple[str, ...]
    spectrum: Spectrum
    n_processes: int
    gap: float
    eigenvalues: Tensor
    linear: bool
    n_energy_calls: int
    samples: SoftSamples | None = None

    @property
    def map(self) -> CollectiveMap:
        """The CV map."""
        return self.functions.map

    @property
    def n_cvs(self) -> int:
        """Number of collective variables."""
        return self.map.n_cvs

    @property
    def timescales(self) -> Tensor:
        """Overdamped times relative to the slowest, ``(m,)``; they order, they do not predict."""
        return self.eigenvalues[0] / self.eigenvalues

    @property
    def n_transition(self) -> float:
        """Effective samples that carry the least well carried of the slow processes."""
        wanted = self.spectrum.populations >= MIN_POPULATION
        carried = self.spectrum.n_transition[wanted][: self.n_processes]
        return float(carried.min()) if len(carried) else 0.0

    def __repr__(self) -> str:
        values = ", ".join(f"{v:.3g}" for v in self.eigenvalues.tolist())
        few = self.n_transition < MIN_TRANSITION
        doubt = (
            f"; only {self.n_transition:.0f} samples carry one, do not rely on it" if few else ""
        )
        return (
            f"SlowCVs({', '.join(self.names)}; {self.n_processes} slow processes, "
            f"eigenvalues {values}, gap {self.gap:.2g}{doubt})"
        )


def covering_model(result: FitResult, *, share: float = 0.5) -> CoveringModel:
    """The generator mixed with the soft blocks it had at hotter stages; see `CoveringModel`."""
    snapshots = result.snapshots
    return CoveringModel(result.model, snapshots, share=share if snapshots else 1.0)


def covering_samples(
    result: FitResult, n_samples: int, *, share: float = 0.5, seed: int = 0
) -> tuple[Ensemble, SoftSamples]:
    """Weighted samples that also cover the transition regions; see `CoveringModel`."""
    return _draw(result, covering_model(result, share=share), n_samples, seed=seed)


def flattened_samples(
    result: FitResult,
    covering: SoftSamples,
    rows: Tensor,
    n_samples: int,
    *,
    share: float,
    seed: int = 0,
) -> tuple[int, SoftSamples]:
    """Covering samples with as many more, spread evenly over given angles.

    Barriers are crossed by few covering samples, and the slow functions have all their slope
    there; see `FlattenedModel`. All samples are weighted by the mixture of both densities.

    Args:
        result: The trained generator.
        covering: Samples of its covering model, as from `covering_samples`.
        rows: Combine the soft coordinates into those to be even in, ``(d, k)``.
        n_samples: Further samples, one energy call each.
        share: Their share in all that were drawn, with and without weight.
        seed: Decides everything random.

    Returns:
        Energy calls spent, and all samples, mixed.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        n_candidates = min(100_000, max(20_000, 4 * n_samples))
        flat = FlattenedModel(covering_model(result), rows, n_candidates=n_candidates)
    ensemble, further = _draw(result, flat, n_samples, seed=seed)
    # The flattened model's own weights are for its own density, not for the covering one
    ratio = flat.log_ratio(further.s).double().cpu()
    weights = [
        balanced(covering.log_weights, flat.log_ratio(covering.s).double().cpu(), share),
        balanced(further.log_weights + ratio, ratio, share),
    ]
    together = SoftSamples(
        torch.cat([covering.s, further.s]),
        torch.cat([covering.metric, further.metric]),
        torch.cat(weights),
        covering.periodic,
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(together.s), generator=generator)
    return ensemble.n_energy_calls, together.take(order)


def _draw(
    result: FitResult, model: nn.Module, n_samples: int, *, seed: int
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
    return ensemble, soft_samples(system, ensemble)


def soft_samples(system: System, ensemble: Ensemble) -> SoftSamples:
    """Soft coordinates of an ensemble with their mass metric and weights."""
    coordinates = system.coordinates
    index = coordinates.soft.nonzero()[:, 0]
    kept = torch.isfinite(ensemble.log_weights)
    x, y, log_weights = ensemble.x[kept], ensemble.y[kept], ensemble.log_weights[kept]
    masses = None if system.molecule is None else torch.as_tensor(system.molecule.masses)
    metric = [mass_metric(coordinates, part, index, masses=masses) for part in torch.split(x, 4000)]
    periodic = bool(coordinates.periodic[index].all())
    return SoftSamples(y[:, index], torch.cat(metric), log_weights, periodic)


def find_slow_cvs(
    result: FitResult,
    *,
    n_cvs: int | str = "auto",
    n_samples: int = 60_000,
    min_population: float = MIN_POPULATION,
    bend: bool | None = None,
    seed: int = 0,
) -> SlowCVs:
    r"""Find smooth collective variables whose functions are the slowest of the molecule.

    1. Samples of the generator that also cover barriers, with exact weights; on the torus half of
       them spread evenly over the two coordinates that the first half showed to be slowest.
    2. Linear spectra of the Dirichlet form for every pair of soft coordinates (a kernel basis on
       the line); the gap of the slowest gives the number of slow processes.
    3. The smallest set of soft coordinates (or their sums and differences) whose functions
       reach these processes.
    4. Slow functions of these coordinates, straight and (if asked) bent by networks
       (`CollectiveMap`); the bent map is kept where it is clearly slower on held-out samples.

    Args:
        result: A trained generator without CVs.
        n_cvs: Their number, or "auto".
        n_samples: Energy calls spent on the covering samples.
        min_population: Processes that move less are not counted.
        bend: Whether to try a bent map; None tries it on the line. On the torus of the dipeptide
            bending gained less than its held-out noise.
        seed: Decides everything random.

    Raises:
        ValueError: If `n_cvs` is neither "auto" nor between 1 and the number of soft coordinates,
            there is no soft coordinate, or `n_samples` is below `FEWEST_SAMPLES`.
    """
    system = result.system
    soft = system.coordinates.soft.nonzero()[:, 0]
    n_soft = len(soft)
    if n_soft == 0:
        raise ValueError(f"{system.name} has no soft coordinates, and so no slow CVs")
    if n_samples < FEWEST_SAMPLES:
        raise ValueError(f"`n_samples` must be at least {FEWEST_SAMPLES}, got {n_samples}")
    if n_cvs != "auto" and not (isinstance(n_cvs, int) and 1 <= n_cvs <= n_soft):
        raise ValueError(
            f"`n_cvs` must be 'auto' or between 1 and {n_soft}, the number of soft coordinates "
            f"of {system.name}, got {n_cvs!r}"
        )
    periodic = bool(system.coordinates.periodic[soft].all())
    choose = choose_on_torus if periodic else choose_on_line
    n_covering = n_samples // 2
    ensemble, samples = covering_samples(result, n_covering, seed=seed)
    slowest = slowest_pair(samples) if periodic else choose(samples, 1, min_population).matrix[:2]
    n_further, samples = flattened_samples(
        result,
        samples,
        slowest,
        n_samples - n_covering,
        share=1 - n_covering / n_samples,
        seed=seed + 1,
    )
    choice = choose(samples, n_cvs, min_population)
    names = [system.coordinates.names[i] for i in soft.tolist()]
    m = choice.n_processes
    cv_names = _names(choice.matrix, names, choice.n_cvs, samples.periodic)
    functions, found, eigenvalues, linear = _solve_map(
        samples,
        choice,
        bend=not samples.periodic if bend is None else bend,
        min_population=min_population,
        seed=seed,
    )
    return SlowCVs(
        functions=functions,
        names=cv_names,
        spectrum=found,
        n_processes=m,
        gap=choice.gap,
        eigenvalues=eigenvalues,
        linear=linear,
        n_energy_calls=ensemble.n_energy_calls + n_further,
        samples=samples,
    )


def _solve_map(
    samples: SoftSamples, choice: Choice, *, bend: bool, min_population: float, seed: int
) -> tuple[SlowFunctions, Spectrum, Tensor, bool]:
    """Heads of the straight map, and of the bent one where it is clearly slower."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples.s), generator=generator)
    n_train = int(0.75 * len(order))
    train, held_out = samples.take(order[:n_train]), samples.take(order[n_train:])
    m = choice.n_processes
    solve = partial(solve_heads, n_functions=m, order=choice.order, min_population=min_population)
    trial = partial(solve, n_bootstraps=0)
    straight = _build_map(samples, choice, n_steps=0, seed=seed)
    best = (straight, *trial(straight, train, held_out)[1:])
    if bend:
        bent = _build_map(samples, choice, n_steps=1 if samples.periodic else 5, seed=seed)
        train_cv_map(bent, m, train, held_out, seed=seed)
        bent.standardise(_likely(samples))
        values = trial(bent, train, held_out)[1:]
        if float(values[1].sum()) < BENT_GAIN * float(best[2].sum()):
            best = (bent, *values)
    cv_map, _, eigenvalues = best
    functions, found, _ = solve(cv_map, samples, held_out)
    return functions, found, eigenvalues, cv_map is straight


def _build_map(samples: SoftSamples, choice: Choice, *, n_steps: int, seed: int) -> CollectiveMap:
    centre, scale = None, None
    if not samples.periodic:
        likely = _likely(samples)
        centre = likely.mean(0)
        scale = (likely - centre).square().sum(-1).mean().sqrt().expand(samples.n_soft)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cv_map = CollectiveMap(
            choice.matrix,
            n_cvs=choice.n_cvs,
            periodic=samples.periodic,
            centre=centre,
            scale=scale,
            n_steps=n_steps,
        )
    cv_map.standardise(_likely(samples))
    return cv_map


def _likely(samples: SoftSamples) -> Tensor:
    """Soft coordinates of the samples that carry weight, whatever their number in each well."""
    return samples.s[samples.log_weights > samples.log_weights.max() - 14.0]


def _names(matrix: Tensor, names: Sequence[str], n_cvs: int, periodic: bool) -> tuple[str, ...]:
    out = []
    for row in matrix[:n_cvs].tolist():
        nonzero = [(c, name) for c, name in zip(row, names, strict=True) if abs(c) > 1e-6]
        if periodic and len(nonzero) == 1:
            out.append(nonzero[0][1])
        else:
            out.append(" ".join(f"{c:+.2g} {name}" for c, name in nonzero).removeprefix("+"))
    return tuple(out)
