"""Ensembles: samples of a generator with the weights that make their averages exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gencg import html, parallel
from gencg.coordinates.clashes import clashes, distant_pairs
from gencg.drawn import Parts, digest
from gencg.geometry import wrap
from gencg.importance import (
    effective_sample_size,
    log_partition,
    pareto_level,
    pareto_smooth,
    pareto_verdict,
    resample_indices,
    sample_size_verdict,
    thinned,
    weighted_average,
)
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.target import BoltzmannTarget
from gencg.units import BOLTZMANN_CONSTANT, check_temperature

if TYPE_CHECKING:
    from gencg.molecule import Molecule


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble:
    r"""Weighted samples of a Boltzmann distribution.

    The weights are :math:`\log w = -\beta U(x) + \log|\det \partial x / \partial y| - \log q(y|z)
    - \log q(z) + \log r(z|x)`, so that :math:`E[w] = Z` and weighted averages are averages over
    :math:`e^{-\beta U}/Z`. An average with ``raw=True`` takes every valid sample as it was drawn:
    what the generator says before it is corrected. All averages come with standard errors.

    Args:
        x: Configurations, ``(n, *event_shape)`` in nm.
        y: Coordinates, ``(n, dim)``.
        z: Collective variables, ``(n, n_cvs)``.
        energy: Energies, ``(n,)`` in kJ/mol.
        log_weights: :math:`\log w`, ``(n,)``; -inf where not valid.
        valid: Which samples are finite and belong to the described molecule, ``(n,)`` bool.
        temperature: Temperature in K.
        molecule: Topology of x; None for toys.
        n_energy_calls: Energy evaluations spent on these samples.
        name: Name of the system.

    Raises:
        ValueError: If the lengths differ, a valid sample has a weight of nan or +inf, or the
            temperature is not positive and finite.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    energy: Tensor
    log_weights: Tensor
    valid: Tensor
    temperature: float
    molecule: Molecule | None = None
    n_energy_calls: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        n = self.x.shape[0]
        for name in ("y", "z", "energy", "log_weights", "valid"):
            value = getattr(self, name)
            if value.shape[0] != n:
                raise ValueError(f"`{name}` must hold {n} samples as `x` does, got {len(value)}")
        weights = torch.where(self.valid, self.log_weights, -math.inf)
        if bool((weights.isnan() | weights.isposinf()).any()):
            raise ValueError("`log_weights` of valid samples must be finite or -inf")
        object.__setattr__(self, "log_weights", weights)

    @property
    def n_samples(self) -> int:
        """Number of samples, with and without weight."""
        return self.x.shape[0]

    @property
    def n_invalid(self) -> int:
        """Samples that are not finite or not the described molecule; they have no weight."""
        return int((~self.valid).sum())

    @cached_property
    def clashes(self) -> Tensor:
        """Valid samples with two atoms beyond 1-4 closer than 0.12 nm, ``(n,)`` bool.

        They are kept: the energy weighs them, near zero for any force field with repulsion.
        """
        if self.molecule is None:
            return torch.zeros(self.n_samples, dtype=torch.bool)
        return self.valid & clashes(self.x, distant_pairs(self.molecule))

    @property
    def n_clashes(self) -> int:
        """Samples with a clash, see `clashes`."""
        return int(self.clashes.sum())

    @property
    def weights(self) -> Tensor:
        """Normalised weights, ``(n,)``, summing to one."""
        return torch.softmax(self.log_weights, 0)

    @cached_property
    def ess(self) -> float:
        """Effective sample size as a fraction of the sample."""
        return float(effective_sample_size(self.log_weights))

    @cached_property
    def log_z(self) -> float:
        r"""Log partition function :math:`\log Z` over the coordinates y."""
        return float(log_partition(self.log_weights)[0])

    @cached_property
    def log_z_error(self) -> float:
        """Standard error of `log_z`."""
        return float(log_partition(self.log_weights)[1])

    @cached_property
    def pareto_k(self) -> float:
        r"""Shape :math:`\hat k` of the tail of the weights; above 0.7 the errors are too small."""
        return pareto_smooth(self.log_weights)[1]

    @property
    def verdict(self) -> str:
        """What `pareto_k` says about the averages, in words."""
        return pareto_verdict(self.pareto_k)

    @property
    def verdicts(self) -> list[tuple[str, str]]:
        """Level ("good", "fair", "poor", "open") and words on the sample size and the weights."""
        tail = f"weighted averages are {self.verdict}"
        if pareto_level(self.pareto_k) == "open":
            tail = self.verdict
        return [
            sample_size_verdict(self.ess, self.n_samples),
            (pareto_level(self.pareto_k), tail),
        ]

    def expectation(
        self, values: Tensor | Callable[[Tensor], Tensor], *, raw: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Average of `values` and its standard error, each of shape ``(*shape,)``.

        Args:
            values: Values ``(n, *shape)``, or a function of x that returns them.
            raw: Whether to leave the weights out.
        """
        if callable(values):
            values = values(self.x)
        return weighted_average(values, self._log_weights(raw))

    def populations(
        self, masks: Mapping[str, Tensor], *, raw: bool = False
    ) -> dict[str, tuple[float, float]]:
        """Probability of each state with its standard error.

        Args:
            masks: Which samples lie in the state, by its name, ``(n,)`` bool.
            raw: Whether to leave the weights out.
        """
        return {name: self._population(mask, raw) for name, mask in masks.items()}

    def free_energies(
        self, masks: Mapping[str, Tensor], *, raw: bool = False
    ) -> dict[str, tuple[float, float]]:
        r"""Free energy :math:`-k_B T \log p` of each state in kJ/mol with its standard error.

        A state without samples has infinite free energy and error.
        """
        result = {}
        for name, (p, error) in self.populations(masks, raw=raw).items():
            known = p > 0
            value = -self._kt * math.log(p) if known else math.inf
            result[name] = (value, self._kt * error / p if known else math.inf)
        return result

    def free_energy_difference(
        self, mask_a: Tensor, mask_b: Tensor, *, raw: bool = False
    ) -> tuple[float, float]:
        r"""Free energy of state b minus that of state a, with its standard error.

        .. math:: \Delta F = -k_B T \log \frac{p_b}{p_a}, \qquad
                  \mathrm{se} = k_B T \Big[\sum_i \tilde w_i^2
                  \Big(\frac{1_b(i)}{p_b} - \frac{1_a(i)}{p_a}\Big)^2\Big]^{1/2}

        Args:
            mask_a: Samples in state a, ``(n,)`` bool.
            mask_b: Samples in state b, ``(n,)`` bool.
            raw: Whether to leave the weights out.

        Returns:
            Difference and standard error in kJ/mol.

        Raises:
            ValueError: If a state has no sample with weight.
        """
        log_weights = self._log_weights(raw)
        p = {}
        for name, mask in {"mask_a": mask_a, "mask_b": mask_b}.items():
            p[name] = self._population(mask, raw)[0]
            if p[name] == 0:
                raise ValueError(f"`{name}` holds no sample with weight; draw more samples")
        influence = mask_b.double() / p["mask_b"] - mask_a.double() / p["mask_a"]
        error = weighted_average(influence, log_weights)[1]
        return -self._kt * math.log(p["mask_b"] / p["mask_a"]), self._kt * float(error)

    def select(self, index: Tensor) -> Ensemble:
        """Samples at `index` (integers or a mask), with their weights."""
        names = ("x", "y", "z", "energy", "log_weights", "valid")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def resample(self, n: int, seed: int = 0) -> Ensemble:
        """Ensemble of `n` samples of equal weight, drawn by weight; it keeps `log_z`."""
        chosen = self.select(resample_indices(self.log_weights, n, seed))
        return replace(chosen, log_weights=torch.full_like(chosen.log_weights, self.log_z))

    def thin(self, n: int, seed: int = 0) -> Ensemble:
        """`n` of the samples, each once, with weights that stand for all of them (`thinned`).

        It keeps `log_z`; what `raw` averages say of it is of no generator any more.
        """
        index, log_weights = thinned(self.log_weights, n, seed)
        return replace(self.select(index), log_weights=log_weights)

    def to_mdtraj(self) -> Any:
        """MDTraj trajectory of all samples, in their order, without time and unit cell.

        Raises:
            ValueError: If the ensemble has no molecule.
        """
        if self.molecule is None:
            raise ValueError("Ensemble has no molecule: a toy has no MDTraj trajectory; use `x`")
        return self.molecule.to_mdtraj(self.x)

    @property
    def _kt(self) -> float:
        return BOLTZMANN_CONSTANT * self.temperature

    def _log_weights(self, raw: bool) -> Tensor:
        equal = torch.where(self.valid, 0.0, -math.inf).to(self.log_weights)
        return equal if raw else self.log_weights

    def _population(self, mask: Tensor, raw: bool) -> tuple[float, float]:
        if mask.dtype != torch.bool or tuple(mask.shape) != (self.n_samples,):
            raise ValueError(
                f"a mask must be bool of shape ({self.n_samples},), "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        value, error = weighted_average(mask, self._log_weights(raw))
        return float(value), float(error)

    def __len__(self) -> int:
        return self.n_samples

    def __repr__(self) -> str:
        return (
            f"Ensemble(n={self.n_samples}, ess={self.ess:.3g}, "
            f"log_partition={self.log_z:.6g} ± {self.log_z_error:.1g}, "
            f"k_hat={self.pareto_k:.2g}, n_energy_calls={self.n_energy_calls:.2g})"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("samples", f"{self.n_samples:,}"),
            ("ESS", f"{self.ess:.3f}"),
            ("log Z", html.measured(self.log_z, self.log_z_error)),
            ("Pareto k", f"{self.pareto_k:.2f}"),
            ("temperature", f"{self.temperature:g} K"),
            ("energy calls", f"{self.n_energy_calls:,}"),
        ]
        if self.z.shape[1]:
            rows.insert(1, ("collective variables", str(self.z.shape[1])))
        if self.n_invalid:
            rows.append(("broken or inverted", f"{self.n_invalid:,}, without weight"))
        title = f"Ensemble of {self.name}" if self.name else "Ensemble"
        return html.card(title, rows, verdicts=self.verdicts)


def draw(
    model: CoarseGrainedModel,
    target: BoltzmannTarget,
    n_samples: int,
    *,
    molecule: Molecule | None = None,
    seed: int = 0,
    batch_size: int = 2000,
    name: str = "",
    parts: Parts | None = None,
) -> Ensemble:
    r"""Draw samples of `model` with their importance weights for `target`.

    Coordinates, energies and weights are computed in float64, whatever the dtype of the model.
    Rotors that the coordinates fold are drawn as one of their equal copies.

    Args:
        model: CoarseGrainedModel :math:`q(z)\, q(y|z)` with encoder :math:`r(z|y)`.
        target: Boltzmann density to weight for.
        n_samples: Number of samples.
        molecule: Topology of the configurations; None for toys.
        seed: Seed of the draw; the global random state is left as it was.
        batch_size: Samples evaluated at once, a matter of memory.
        name: Name of the ensemble.
        parts: Where to keep what is drawn so far, and what there is of it already; for one process
            on a CPU.

    Returns:
        The ensemble, on the CPU.

    Raises:
        ValueError: If `n_samples` or `batch_size` is not positive, or `parts` are given to several
            processes or a model on another device.
        RuntimeError: If more than half of the samples are not finite.
    """
    if n_samples < 1:
        raise ValueError(f"`n_samples` must be at least 1, got {n_samples}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    if parts is not None:
        if parallel.size() > 1 or model.rows(0).device.type != "cpu":
            raise ValueError("`parts` are for one process on a CPU; leave them out")
        parts.about |= {
            "seed": seed,
            "model": digest(model),
            "temperature": target.temperature,
            "name": name,
        }

    def propose(part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z, y, log_q = model.sample(part.stop - part.start)
        return z, y, log_q, model.log_encoder(z, y)

    return _collect(
        model,
        target,
        n_samples,
        propose,
        molecule=molecule,
        seed=seed,
        batch_size=batch_size,
        name=name,
        parts=parts,
    )


def decode(
    model: CoarseGrainedModel,
    target: BoltzmannTarget,
    z: Tensor | ArrayLike,
    n_samples: int,
    *,
    molecule: Molecule | None = None,
    seed: int = 0,
    batch_size: int = 2000,
    name: str = "",
) -> Ensemble:
    r"""Weighted configurations at given values of the collective variables: backmapping.

    Draws :math:`y \sim q(y|z)` at fixed z, with weights

    .. math:: \log w = \log \tilde p(y) + \log r(z|y) - \log q(y|z), \qquad
              E[w] = \int \tilde p(y)\, r(z|y)\, dy = Z\, p(z),

    so that weighted averages are averages over :math:`p(y|z) \propto \tilde p(y)\, r(z|y)` and
    :math:`-k_BT` times ``log_z`` is the free energy at z, up to a constant common to all z. With
    several rows the weights compare across rows: all samples together follow
    :math:`\sum_m p(y|z_m)\, p(z_m)`.

    Samples of the wrong hand or with a double bond turned have no weight (``valid``); those with
    two atoms on top of each other are told by ``clashes`` and weighed by their energy.

    Args:
        model: Model with collective variables.
        target: Boltzmann density to weight for.
        z: Values of the collective variables, ``(n_cvs,)`` or ``(m, n_cvs)``; angles in rad, on
            any turn.
        n_samples: Samples for each row of z; those of one row follow each other.
        molecule: Topology of the configurations; None for toys.
        seed: Seed of the draw; the global random state is left as it was.
        batch_size: Samples evaluated at once, a matter of memory.
        name: Name of the ensemble.

    Raises:
        ValueError: If the model has no collective variables, z has another shape or is not
            finite, or `n_samples` or `batch_size` is not positive.
        RuntimeError: If more than half of the samples are not finite.
    """
    rows = _checked_cvs(model, z)
    if n_samples < 1:
        raise ValueError(f"`n_samples` must be at least 1, got {n_samples}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
    context = rows.repeat_interleave(n_samples, 0).to(model.rows(0))

    def propose(part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z = context[part]
        decoder = model.decoder(z)
        y = decoder.rsample()
        return z, y, decoder.log_prob(y), model.log_encoder(z, y)

    return _collect(
        model,
        target,
        len(context),
        propose,
        molecule=molecule,
        seed=seed,
        batch_size=batch_size,
        name=name,
    )


def _checked_cvs(model: CoarseGrainedModel, z: Tensor | ArrayLike) -> Tensor:
    """Rows ``(m, n_cvs)`` of collective variables, angles on [-pi, pi)."""
    if model.n_cvs == 0:
        raise ValueError("`model` has no collective variables to decode from; fit it with n_cvs")
    rows = torch.as_tensor(z).detach().double()
    if rows.ndim not in (1, 2) or rows.shape[-1] != model.n_cvs or not len(rows):
        raise ValueError(
            f"`z` must have shape ({model.n_cvs},) or (m, {model.n_cvs}), the collective "
            f"variables of the model, got {tuple(rows.shape)}"
        )
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(f"`z` must be finite, got {rows.tolist()}")
    rows = rows.reshape(-1, model.n_cvs)
    return wrap(rows) if model.periodic_cvs else rows


Proposal = Callable[[slice], tuple[Tensor, Tensor, Tensor, Tensor]]


def _collect(
    model: CoarseGrainedModel,
    target: BoltzmannTarget,
    n_samples: int,
    propose: Proposal,
    *,
    molecule: Molecule | None,
    seed: int,
    batch_size: int,
    name: str,
    parts: Parts | None = None,
) -> Ensemble:
    """Ensemble of the samples that `propose` draws batch by batch."""
    n_calls = target.energy.n_energy_calls
    training = model.training
    model.train(False)
    try:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            batches = [] if parts is None else parts.take_up(n_samples, batch_size)
            n_calls -= 0 if parts is None else parts.n_calls
            for i in range(len(batches) * batch_size, n_samples, batch_size):
                part = slice(i, min(i + batch_size, n_samples))
                batches.append(_share(target, part, propose))
                if parts is not None and part.stop - i == batch_size:
                    parts.keep(batches[-1], target.energy.n_energy_calls - n_calls)
    finally:
        model.train(training)
    x, y, z, energy, log_weights, valid, finite = map(torch.cat, zip(*batches, strict=True))
    n_broken = int((~finite).sum())
    if 2 * n_broken > n_samples:
        raise RuntimeError(
            f"{n_broken} of {n_samples} samples are not finite: the model is broken; "
            "go back to an earlier checkpoint or train with a lower learning rate"
        )
    return Ensemble(
        x=x,
        y=y,
        z=z,
        energy=energy,
        log_weights=log_weights,
        valid=valid,
        temperature=target.temperature,
        molecule=molecule,
        n_energy_calls=int(parallel.total(torch.tensor(target.energy.n_energy_calls - n_calls))),
        name=name,
    )


def _share(target: BoltzmannTarget, part: slice, propose: Proposal) -> tuple[Tensor, ...]:
    """A batch, of which every process draws and weighs its rows; all have it in the end."""
    n = part.stop - part.start
    if n < parallel.size():
        return weigh(target, *propose(part))
    own = parallel.share(n)
    with parallel.whole_batch(n):
        proposed = propose(slice(part.start + own.start, part.start + own.stop))
    weighed = weigh(target, *proposed, noise=parallel.whole_batch(n))
    return tuple(parallel.gather(values, n) for values in weighed)


def weigh(
    target: BoltzmannTarget,
    z: Tensor,
    y: Tensor,
    log_q: Tensor,
    log_r: Tensor,
    *,
    noise: AbstractContextManager[Any] | None = None,
) -> tuple[Tensor, ...]:
    """Samples, energies, weights and what is valid and finite, float64 on the CPU.

    Args:
        target: Boltzmann density to weight for.
        z: Collective variables, ``(n, n_cvs)``.
        y: Coordinates, ``(n, dim)``.
        log_q: Log-density they were drawn with, ``(n,)``.
        log_r: Log-density of the encoder, ``(n,)``.
        noise: Where the copies of rotors are drawn, `parallel.whole_batch`.
    """
    z, y, log_q, log_r = z.double(), y.double(), log_q.double(), log_r.double()
    x, log_det = target.coordinates.inverse(y)
    # Copies first: a force field whose impropers know the labels gets exact weights too
    copies = getattr(target.coordinates, "random_copies", None)
    with noise or nullcontext():
        x = x if copies is None else copies(x)
    energy = target.energy(x)
    log_weights = -target.beta * energy + log_det + log_r - log_q
    # An infinite energy is an answer (weight zero); nan, or a weight of +inf, is not
    finite = torch.isfinite(y).all(-1) & ~(log_weights.isnan() | log_weights.isposinf())
    valid = target.coordinates.valid(x) & finite
    # Beyond a fence lies the same structure with two labels swapped: one of the two is counted
    fence = target.coordinates.fence(y)
    if fence is not None:
        valid &= fence <= 0
    log_weights = torch.where(valid, log_weights, -math.inf)
    return tuple(t.cpu() for t in (x, y, z, energy, log_weights, valid, finite))
