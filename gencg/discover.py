"""From a trained generator to slow collective variables and the joint model."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gencg.coordinates.metric import mass_metric
from gencg.ensemble import Ensemble, draw
from gencg.fit import FitResult, Optimisation, Reporter, fit
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import CollectiveDecoder, collective_model
from gencg.models.cv_map import CollectiveMap
from gencg.models.decoders import SplineDecoder
from gencg.models.mixture import CoveringModel
from gencg.objectives.dirichlet import (
    Basis,
    FourierBasis,
    KernelBasis,
    SoftSamples,
    Spectrum,
    spectral_gap,
    spectrum,
)
from gencg.objectives.slow_modes import SlowFunctions, solve_heads, train_cv_map
from gencg.systems.base import System
from gencg.tempering import NoTempering

MIN_POPULATION = 1e-3
"""Processes that move less than this are reported apart."""
MAX_CVS = 3
"""The most collective variables that "auto" chooses."""
BENT_GAIN = 0.9
"""A bent map is kept if it brings the held-out eigenvalues below this share of the straight one."""
SAME = 1.15
"""A further coordinate is not worth having while no eigenvalue falls by this factor."""


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
        samples: The weighted samples behind it.
        ensemble: The covering ensemble the samples came from.
    """

    functions: SlowFunctions
    names: tuple[str, ...]
    spectrum: Spectrum
    n_processes: int
    gap: float
    eigenvalues: Tensor
    linear: bool
    samples: SoftSamples
    ensemble: Ensemble

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

    def __repr__(self) -> str:
        values = ", ".join(f"{v:.3g}" for v in self.eigenvalues.tolist())
        return (
            f"SlowCVs({', '.join(self.names)}; {self.n_processes} slow processes, "
            f"eigenvalues {values}, gap {self.gap:.2g})"
        )


def covering_samples(
    result: FitResult, n_samples: int, *, share: float = 0.5, seed: int = 0
) -> tuple[Ensemble, SoftSamples]:
    """Weighted samples that also cover the transition regions; see `CoveringModel`."""
    system, model = result.system, result.model
    covering = CoveringModel(model, result.snapshots, share=share if result.snapshots else 1.0)
    ensemble = draw(
        covering,  # type: ignore[arg-type]
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

    1. Samples of the generator that also cover barriers, with exact weights.
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
        ValueError: If `n_cvs` is neither "auto" nor between 1 and the number of soft coordinates.
    """
    system = result.system
    soft = system.coordinates.soft.nonzero()[:, 0]
    n_soft = len(soft)
    if n_cvs != "auto" and not (isinstance(n_cvs, int) and 1 <= n_cvs <= n_soft):
        raise ValueError(
            f"`n_cvs` must be 'auto' or between 1 and {n_soft}, the number of soft coordinates "
            f"of {system.name}, got {n_cvs!r}"
        )
    ensemble, samples = covering_samples(result, n_samples, seed=seed)
    names = [system.coordinates.names[i] for i in soft.tolist()]
    choose = _choose_on_torus if samples.periodic else _choose_on_line
    choice = choose(samples, n_cvs, min_population)
    m = choice.n_processes
    cv_names = _names(choice.matrix, names, choice.n_cvs, samples.periodic)
    functions, found, eigenvalues, linear = _solve_map(
        samples, choice, bend=not samples.periodic if bend is None else bend, seed=seed
    )
    return SlowCVs(
        functions=functions,
        names=cv_names,
        spectrum=found,
        n_processes=m,
        gap=choice.gap,
        eigenvalues=eigenvalues,
        linear=linear,
        samples=samples,
        ensemble=ensemble,
    )


@dataclass(frozen=True)
class _Choice:
    matrix: Tensor
    n_cvs: int
    n_processes: int
    gap: float
    spectrum: Spectrum


def _choose_on_torus(samples: SoftSamples, n_cvs: int | str, min_population: float) -> _Choice:
    k = samples.n_soft
    rows = torch.eye(k)
    sets = {d: list(itertools.combinations(range(k), d)) for d in (1, 2)}
    fewer = _thin(samples, 20_000)

    def solve(index: Sequence[int], of: SoftSamples, order: int = 5) -> Spectrum:
        order = order if len(index) < 3 else 2
        return spectrum(of, FourierBasis(rows[list(index)], order=order), n_bootstraps=0)

    pairs = {index: solve(index, fewer, 4) for index in sets[min(2, k)]}
    first = max(pairs, key=lambda index: _score(pairs[index], 4))
    full = spectrum(samples, FourierBasis(rows[list(first)], order=5))
    n_processes, gap = spectral_gap(
        full.eigenvalues, full.populations, min_population=min_population
    )
    wanted = 1 if n_cvs == "auto" else int(n_cvs)
    best = max(sets[1], key=lambda index: _score(solve(index, fewer), n_processes))
    while True:
        if len(best) == wanted and n_cvs != "auto":
            break
        if len(best) >= min(k, MAX_CVS if n_cvs == "auto" else wanted):
            break
        larger = _grow(best, k, pairs if len(best) == 1 else None)
        found = {index: pairs.get(index) or solve(index, fewer) for index in larger}
        better = max(found, key=lambda index: _score(found[index], n_processes))
        now = solve(best, fewer, 4 if len(best) < 3 else 2).eigenvalues[:n_processes]
        then = found[better].eigenvalues[:n_processes]
        short = len(now) < len(then)
        if n_cvs == "auto" and not short and float((now / then).max()) < SAME:
            break
        best = better
    chosen = spectrum(samples, FourierBasis(rows[list(best)], order=5 if len(best) < 3 else 2))
    reported = full if len(best) <= 2 and set(best) <= set(first) else chosen
    order = [*best, *(i for i in range(k) if i not in best)]
    return _Choice(rows[order], len(best), n_processes, gap, reported)


def _grow(
    best: tuple[int, ...], k: int, pairs: dict[tuple[int, ...], Spectrum] | None
) -> list[tuple[int, ...]]:
    """Sets with one more member; from one to two, all pairs may compete."""
    if pairs is not None:
        return list(pairs)
    return [tuple(sorted((*best, i))) for i in range(k) if i not in best]


def _choose_on_line(samples: SoftSamples, n_cvs: int | str, min_population: float) -> _Choice:
    basis: Basis = KernelBasis.around(samples)
    found = spectrum(samples, basis)
    n_processes, gap = spectral_gap(
        found.eigenvalues, found.populations, min_population=min_population
    )
    d = 1 if n_cvs == "auto" else int(n_cvs)
    # Directions along which the slow functions change, most first
    weights = samples.weights[:, None, None, None].double()
    slopes = found.slopes[:, :n_processes]
    scatter = (weights * slopes[..., :, None] * slopes[..., None, :]).sum(0)
    scatter = (scatter / found.eigenvalues[:n_processes, None, None]).sum(0)
    directions = torch.linalg.eigh(scatter)[1].flip(-1).T.contiguous()
    return _Choice(directions, d, n_processes, gap, found)


def _solve_map(
    samples: SoftSamples, choice: _Choice, *, bend: bool, seed: int
) -> tuple[SlowFunctions, Spectrum, Tensor, bool]:
    """Heads of the straight map, and of the bent one where it is clearly slower."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples.s), generator=generator)
    n_train = int(0.75 * len(order))
    train, held_out = samples.take(order[:n_train]), samples.take(order[n_train:])
    m = choice.n_processes
    straight = _build_map(samples, choice, n_steps=0, seed=seed)
    best = (straight, *solve_heads(straight, train, held_out, m)[1:])
    if bend:
        bent = _build_map(samples, choice, n_steps=1 if samples.periodic else 5, seed=seed)
        train_cv_map(bent, m, train, held_out, seed=seed)
        bent.standardise(_likely(samples))
        values = solve_heads(bent, train, held_out, m)[1:]
        if float(values[1].sum()) < BENT_GAIN * float(best[2].sum()):
            best = (bent, *values)
    cv_map, _, eigenvalues = best
    functions, found, _ = solve_heads(cv_map, samples, held_out, m)
    return functions, found, eigenvalues, cv_map is straight


def _build_map(samples: SoftSamples, choice: _Choice, *, n_steps: int, seed: int) -> CollectiveMap:
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


def fit_joint(
    result: FitResult,
    slow: SlowCVs,
    *,
    resolution: float = 0.1,
    n_refit_steps: int = 1500,
    energy_calls: float = 3e5,
    batch_size: int = 512,
    optimisation: Optimisation | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    reporters: Sequence[Reporter] = (),
    announce: Callable[[str], None] = lambda text: None,
) -> FitResult:
    r"""Train prior, decoder and encoder together, around a generator and its slow CVs.

    Prior and soft decoder are first fitted to fresh samples of the generator's soft block
    (forward KL, no energy calls); then the joint reverse KL bound moves everything but the
    encoder, with path gradients at a low rate.

    Args:
        result: The trained generator.
        slow: Its slow CVs.
        resolution: Width of the encoder, in rad for angles and in CV units on the line.
        n_refit_steps: Steps of the forward fit.
        energy_calls: Budget of the joint training; 0 leaves it out.
        batch_size: Configurations per step.
        optimisation: Learning rate and averaging of the joint training.
        seed: Decides everything random.
        checkpoint: As in `fit`.
        reporters: As in `fit`.
        announce: Called with a line of text where a stage begins.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = collective_model(result.model, slow.map, resolution=resolution)
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    announce("fitting prior and decoder to the generator's soft coordinates")
    refit_soft(model, result.model, n_steps=n_refit_steps, seed=seed)
    announce("training the joint model")
    return fit(
        result.system,
        temperature=result.target.temperature,
        energy_calls=energy_calls,
        batch_size=batch_size,
        tempering=NoTempering(),
        optimisation=optimisation or Optimisation(learning_rate=2e-4, warm_up=50, averaging=0.2),
        model=model,
        seed=seed + 1,
        checkpoint=checkpoint,
        reporters=reporters,
    )


def refit_soft(
    model: CoarseGrainedModel,
    generator: CoarseGrainedModel,
    *,
    n_steps: int = 1500,
    batch_size: int = 2048,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> float:
    r"""Forward KL of prior and soft decoder to the generator's soft coordinates.

    .. math:: \min\; -E_{s \sim q_0(s)}\, E_{z \sim r(z|s)}\left[\log q(z) + \log q(s|z)\right]

    The samples are drawn afresh in every step and cost no energy call.

    Returns:
        The last loss minus the generator's own entropy estimate: the divergence left, in kT.
    """
    decoder, source = model.decoder, generator.decoder
    assert isinstance(decoder, CollectiveDecoder)
    assert isinstance(source, SplineDecoder)
    soft, space = source.flow.soft, source.flow.stiff.space
    trained = [
        *model.prior.parameters(),
        *decoder.flow.near.parameters(),
        *decoder.flow.rest.parameters(),
    ]
    optimiser = torch.optim.Adam(trained, lr=learning_rate)
    rows = generator.rows(batch_size)
    last = math.nan
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(n_steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
            with torch.no_grad():
                eps = source(rows).base.rsample()[:, : space.n_soft]
                s, log_det = soft(eps, rows)
                log_q = soft.log_base(eps) - log_det
                y = s.new_zeros(batch_size, len(space.order))
                y[:, space.soft_index] = s
                encoder = model.encoder(y)
                z = encoder.rsample()
                log_r = encoder.log_prob(z)
            log_model = model.prior(rows).log_prob(z) + decoder.soft_log_prob(s, z)
            loss = (log_q + log_r - log_model).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 10.0)
            optimiser.step()
            last = float(loss.detach())
    return last


def _thin(samples: SoftSamples, n: int) -> SoftSamples:
    return samples.take(torch.arange(min(n, len(samples.s))))


def _score(found: Spectrum, n: int) -> float:
    """Sum of the timescales of the first n processes."""
    return float((1 / found.eigenvalues[:n].clamp_min(1e-12)).sum())


def _names(matrix: Tensor, names: Sequence[str], n_cvs: int, periodic: bool) -> tuple[str, ...]:
    out = []
    for row in matrix[:n_cvs].tolist():
        nonzero = [(c, name) for c, name in zip(row, names, strict=True) if abs(c) > 1e-6]
        if periodic and len(nonzero) == 1:
            out.append(nonzero[0][1])
        else:
            out.append(" ".join(f"{c:+.2g} {name}" for c, name in nonzero).removeprefix("+"))
    return tuple(out)
