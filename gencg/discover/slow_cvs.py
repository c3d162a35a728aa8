"""Slow collective variables of a trained generator."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from gencg import html
from gencg.coordinates.internal import InternalCoordinates
from gencg.coordinates.pairs import describing_pairs
from gencg.discover.choose import Choice, choose_on_line, choose_on_torus
from gencg.discover.covering import covering_samples, flat_groups, flattened_samples
from gencg.discover.processes import MIN_TRANSITION
from gencg.fit import FitResult
from gencg.models.cv_map import BENT, CollectiveMap
from gencg.objectives.dirichlet import SoftSamples, Spectrum
from gencg.objectives.slow_modes import (
    SlowFunctions,
    SlowModes,
    SpectralHeads,
    solve_heads,
    train_cv_map,
)
from gencg.objectives.slow_network import DESCRIPTORS, NetworkCheck, network_check
from gencg.systems.base import System

MIN_POPULATION = 1e-3
"""Processes that move less than this are reported apart."""
FEWEST_SAMPLES = 500
"""Covering samples below which no function can be told from chance."""
SURE = 0.75
"""Share of resamplings that a choice has to survive."""
SAME_FUNCTION = 0.95
"""Correlation with resamplings from which on a slow function is determined."""
BEYOND = 1.25
"""Factor by which networks may be slower than the basis before it is said."""
MISSED = 1.5
"""A process is missed where its held-out eigenvalue is above the reference by this factor."""
STOPPING = 6 / 7
"""Share of the training samples that moves a bent map; the rest says when to stop."""
BENT_GAIN = 0.9
"""A bent map is kept if the held-out times of the straight one are below this share of its own."""

UNIT_SPEED = {True: 0.3, False: 0.1}
"""Weight of the speed term of a bent map by whether the coordinates are angles. On the line a
variable that follows a bent valley cannot have the same speed everywhere."""


def _nothing() -> Tensor:
    return torch.zeros(0, dtype=torch.float64)


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
        support: Share of resamplings of the samples that have the gap at the same place; NaN on
            the line.
        frequency: Share of disjoint parts of the samples in which each CV is chosen again,
            ``(n_cvs,)``; empty on the line.
        reference: Eigenvalues of the slow processes in functions of all soft angles, ``(m,)``;
            empty on the line.
        shares: Share of each soft angle in each of these, ``(m, k)``; see `Processes`.
        network: What networks of all soft angles find beyond; None where not asked.
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
    support: float = math.nan
    frequency: Tensor = field(default_factory=_nothing)
    reference: Tensor = field(default_factory=_nothing)
    shares: Tensor = field(default_factory=_nothing)
    network: NetworkCheck | None = None
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
        return float(self.spectrum.n_transition[self.places].min())

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the samples do not determine, in words; empty where they do."""
        out = []
        if self.n_transition < MIN_TRANSITION:
            out.append(f"only {self.n_transition:.0f} samples carry a slow process")
        for name, share in zip(self.names, self.frequency.tolist(), strict=False):
            if share < SURE:
                out.append(
                    f"{name} is chosen in {share:.0%} of parts of the samples only: this CV is "
                    "not determined by the data"
                )
        for k, value in enumerate(self.agreement.tolist()):
            if value < SAME_FUNCTION:
                out.append(
                    f"slow function {k + 1} changes between resamplings (correlation "
                    f"{value:.2f}): it is not determined by the data"
                )
        if self.support < SURE:
            out.append(
                f"the number of slow processes is the same in {self.support:.0%} of resamplings"
            )
        # Both on all samples: on held-out ones a function that is not determined is faster, too
        own = self.spectrum.eigenvalues[self.places]
        n = min(len(own), len(self.reference))
        short = len(self.reference) - n
        short += int((own[:n] > MISSED * self.reference[:n]).sum())
        if short:
            out.append(
                f"{short} of {len(self.reference)} slow processes of all soft torsions are not "
                "functions of these CVs; more of them would reach these (--cvs)"
            )
        faster = int((self.eigenvalues > MISSED * own).sum())
        if faster:
            out.append(
                f"{faster} of {len(own)} slow functions are faster by half or more on held-out "
                "samples: more samples would settle them"
            )
        if self.network is not None:
            gains = self.network.gains.tolist()
            out += [
                f"networks find process {k + 1} slower by a factor of {gains[k]:.2g} than the "
                "basis holds"
                for k in self.network.beyond(BEYOND)
            ]
        return tuple(out)

    @property
    def agreement(self) -> Tensor:
        """Correlation of each slow function with itself in a resampling, ``(m,)``."""
        found = self.spectrum
        return found.agreement[self.places] if len(found.agreement) else _nothing()

    @property
    def places(self) -> list[int]:
        """Place of each slow function in the spectrum."""
        heads = self.functions.heads
        assert isinstance(heads, SpectralHeads)
        same = (heads.vectors[:, :, None] == self.spectrum.vectors[:, None]).all(0)
        return [int(row.nonzero()[0, 0]) for row in same]

    @property
    def error_bars(self) -> Tensor:
        r"""Standard error of each slow function in units of its own spread, ``(m,)``.

        Two functions of variance 1 and correlation c are :math:`\sqrt{2 - 2c}` apart.
        """
        return (2 - 2 * self.agreement).clamp_min(0).sqrt()

    def _repr_html_(self) -> str:
        rows = [(f"variable {k + 1}", name) for k, name in enumerate(self.names)]
        times = ", ".join(f"{t:.3g}" for t in self.timescales.tolist())
        rows += [
            ("slow processes", str(self.n_processes)),
            ("gap after them", f"{self.gap:.2g}"),
            ("relative times", f"{times} (overdamped; they order, they do not predict)"),
            ("energy calls", f"{self.n_energy_calls:,}"),
        ]
        words = [("fair", doubt) for doubt in self.doubts]
        good = [("good", "resampling finds the same variables and functions")]
        return html.card("Slow collective variables", rows, verdicts=words or good)

    def __repr__(self) -> str:
        values = ", ".join(f"{v:.3g}" for v in self.eigenvalues.tolist())
        doubt = f"; {'; '.join(self.doubts)}" if self.doubts else ""
        return (
            f"SlowCVs({', '.join(self.names)}; {self.n_processes} slow processes, "
            f"eigenvalues {values}, gap {self.gap:.2g}{doubt})"
        )


def find_slow_cvs(
    result: FitResult,
    *,
    n_cvs: int | str = "auto",
    n_samples: int = 60_000,
    min_population: float = MIN_POPULATION,
    bend: bool | None = None,
    networks: bool = True,
    descriptors: str = "torsions",
    seed: int = 0,
) -> SlowCVs:
    r"""Find smooth collective variables whose functions are the slowest of the molecule.

    1. Samples of the generator that also cover barriers, with exact weights; half of them spread
       evenly over the pairs of angles that the first half showed to be slow together.
    2. The slow functions of all soft angles, in harmonics and products of coupled pairs
       (`find_processes`; a kernel basis on the line); the gap tells how many processes there
       are, and networks of all soft angles whether the basis is good enough (`network_check`).
    3. The fewest soft angles whose functions reach these processes.
    4. Slow functions of these coordinates, straight and (where these miss a process) bent by
       networks (`CollectiveMap`); the bent map is kept where it is clearly slower on held-out
       samples.

    Args:
        result: A trained generator without CVs.
        n_cvs: Their number, or "auto".
        n_samples: Energy calls spent on the covering samples.
        min_population: Processes that move less are not counted.
        bend: Whether to try a bent map; None tries it on the line, and where straight angles, as
            many as asked, miss a process.
        networks: Whether to check the basis with networks of all soft angles.
        descriptors: What these networks see: "torsions", "distances" between heavy atoms four
            bonds apart or more (`describing_pairs`), or "both".
        seed: Decides everything random.

    Raises:
        ValueError: If `n_cvs` is neither "auto" nor between 1 and the number of soft coordinates,
            there is no soft coordinate, `n_samples` is below `FEWEST_SAMPLES`, or there are no
            distances that `descriptors` asks for.
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
    pairs = distances_of(system, descriptors)
    periodic = bool(system.coordinates.periodic[soft].all())
    choose = choose_on_torus if periodic else choose_on_line
    n_covering = n_samples // 2
    ensemble, samples = covering_samples(result, n_covering, seed=seed, pairs=pairs)
    n_further, samples = flattened_samples(
        result,
        samples,
        flat_groups(samples, min_population)
        if periodic
        else [choose(samples, 1, min_population).matrix[:2]],
        n_samples - n_covering,
        n_covering=n_covering,
        seed=seed + 1,
        pairs=pairs,
    )
    choice = choose(samples, n_cvs, min_population)
    processes = choice.processes
    functions, found, eigenvalues, linear = _solve_map(
        samples,
        choice,
        # "auto" takes as many angles as the processes need
        bend=False if bend is None and processes is not None and n_cvs == "auto" else bend,
        min_population=min_population,
        seed=seed,
    )
    check = None
    if networks and processes is not None:
        check = network_check(
            samples, processes.spectrum, processes.slow, seed=seed, descriptors=descriptors
        )
    return SlowCVs(
        functions=functions,
        names=_names(
            choice.matrix,
            [system.coordinates.names[i] for i in soft.tolist()],
            choice.n_cvs,
            samples.periodic,
            bent=not linear,
        ),
        spectrum=found,
        n_processes=choice.n_processes,
        gap=choice.gap,
        eigenvalues=eigenvalues,
        linear=linear,
        n_energy_calls=ensemble.n_energy_calls + n_further,
        support=math.nan if processes is None else processes.support,
        frequency=choice.frequency,
        reference=_nothing() if processes is None else processes.eigenvalues,
        shares=_nothing() if processes is None else processes.shares[processes.slow],
        network=check,
        samples=samples,
    )


def distances_of(system: System, descriptors: str) -> Tensor | None:
    """Pairs of atoms whose distances networks are to see, ``(d, 2)``; None for torsions alone.

    Raises:
        ValueError: If `descriptors` is no such word, or the system has no such distances.
    """
    if descriptors not in DESCRIPTORS:
        raise ValueError(
            f"`descriptors` must be one of {', '.join(DESCRIPTORS)}, got {descriptors!r}"
        )
    if descriptors == "torsions":
        return None
    coordinates = system.coordinates
    known = isinstance(coordinates, InternalCoordinates)
    pairs = describing_pairs(coordinates) if isinstance(coordinates, InternalCoordinates) else None
    if pairs is None or not len(pairs):
        why = "no heavy atoms four bonds apart" if known else "no internal coordinates"
        raise ValueError(
            f"`descriptors` {descriptors} needs distances, and {system.name} has {why}; "
            "leave it out"
        )
    return pairs


def _solve_map(
    samples: SoftSamples, choice: Choice, *, bend: bool | None, min_population: float, seed: int
) -> tuple[SlowFunctions, Spectrum, Tensor, bool]:
    """Heads of the straight map, and of the bent one where it is clearly slower."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(samples.s), generator=generator)
    n_train = int(0.75 * len(order))
    train, held_out = samples.take(order[:n_train]), samples.take(order[n_train:])
    m = choice.n_processes
    solve = partial(
        solve_heads,
        n_functions=m,
        basis=choice.basis,
        min_population=min_population,
        n_modes=8 if m < 3 else 3 * m + 4,
    )
    trial = partial(solve, n_bootstraps=0)
    straight = _build_map(samples, choice, n_steps=0, seed=seed)
    best = (straight, *trial(straight, train, held_out)[1:])
    # As many CVs as coordinates are the whole space, however bent
    bends = choice.n_cvs < samples.n_soft
    if bends and (_falls_short(best[2], choice) if bend is None else bend):
        bent = _build_map(samples, choice, n_steps=1 if samples.periodic else 5, seed=seed)
        # With a process for each CV there is none to give up, and near the end the sum is steeper
        rate = choice.rate if samples.periodic or m > choice.n_cvs else None
        loss = SlowModes(rate=rate, unit_speed=UNIT_SPEED[samples.periodic])
        # What stops it is not what judges it
        own = torch.arange(n_train)
        n_moving = int(STOPPING * n_train)
        moving, stopping = train.take(own[:n_moving]), train.take(own[n_moving:])
        train_cv_map(bent, m, moving, stopping, loss=loss, seed=seed)
        bent.standardise(_likely(samples))
        values = trial(bent, train, held_out)[1:]
        if float((1 / best[2]).sum()) < BENT_GAIN * float((1 / values[1]).sum()):
            best = (bent, *values)
    cv_map, _, eigenvalues = best
    functions, found, _ = solve(cv_map, samples, held_out)
    return functions, found, eigenvalues, cv_map is straight


def _falls_short(eigenvalues: Tensor, choice: Choice) -> bool:
    """Whether straight CVs miss a process that functions of all soft angles have."""
    if choice.processes is None:
        return True
    reference = choice.processes.eigenvalues
    n = min(len(reference), len(eigenvalues))
    return n < len(reference) or bool((eigenvalues[:n] > MISSED * reference[:n]).any())


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


def _names(
    matrix: Tensor, names: Sequence[str], n_cvs: int, periodic: bool, *, bent: bool
) -> tuple[str, ...]:
    """Names after the straight combination; of a bent one that is not all it is."""
    out = []
    for row in matrix[:n_cvs].tolist():
        nonzero = [(c, name) for c, name in zip(row, names, strict=True) if abs(c) > 1e-6]
        if periodic and len(nonzero) == 1:
            out.append(nonzero[0][1])
        else:
            out.append(" ".join(f"{c:+.2g} {name}" for c, name in nonzero).removeprefix("+"))
    return tuple(f"{BENT}{name}" for name in out) if bent else tuple(out)
