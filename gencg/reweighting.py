"""Two levels: an ensemble of a cheap energy, reweighted to an expensive one."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencg.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gencg.coordinates.base import CoordinateMap
from gencg.energies.base import Energy
from gencg.ensemble import Ensemble
from gencg.importance import log_partition_ratio
from gencg.targeted import Shift
from gencg.units import BOLTZMANN_CONSTANT, inverse_temperature

logger = logging.getLogger("gencg")

MAX_FAILED = 0.5
"""Share of the samples that may have no energy; beyond it the energy is not one of them."""
SAME = 1e-3
"""Difference in kJ/mol up to which an energy computed again is the one of a checkpoint."""

Reporter = Callable[[int, int], None]
"""Called with the number of energies computed, and that of all to be computed."""


@dataclass(frozen=True, repr=False)
class Reweighting:
    r"""An ensemble of one energy U as one of another, U'.

    The free-energy difference is that of the energies as they count here: a constant in either,
    such as the offset of a `TbliteEnergy`, goes into it.

    Args:
        before: The samples with their weights for U.
        ensemble: The same samples, where they were shifted to, with energies and weights for U'.
            Its own ``log_z_error`` leaves out what thinning has averaged; use that of this class.
        pool_error: Standard error of log Z of the ensemble that `before` was thinned from; 0
            where it was not.
    """

    before: Ensemble
    ensemble: Ensemble
    pool_error: float = 0.0

    @property
    def log_z_difference(self) -> tuple[float, float]:
        r""":math:`\log Z' - \log Z` and its standard error (`log_partition_ratio`)."""
        value, error = log_partition_ratio(self.ensemble.log_weights, self.before.log_weights)
        return float(value), float(error)

    @property
    def free_energy_difference(self) -> tuple[float, float]:
        r""":math:`F' - F = -k_B T (\log Z' - \log Z)` in kJ/mol and its standard error."""
        kt = BOLTZMANN_CONSTANT * self.ensemble.temperature
        value, error = self.log_z_difference
        return -kt * value, kt * error

    @property
    def log_z_error(self) -> float:
        r"""Standard error of :math:`\log Z'`.

        After thinning the errors of the first level and of the difference in quadrature, their
        covariance left out.
        """
        if self.pool_error == 0:
            return self.ensemble.log_z_error
        return math.hypot(self.pool_error, self.log_z_difference[1])

    @property
    def overlap(self) -> float:
        r"""Effective sample size of the second step alone, as a fraction.

        .. math:: \frac{E_p[r]^2}{E_p[r^2]}, \qquad r = w' / w

        with averages over the distribution p of U: what a perfect ensemble of the first level
        would keep.
        """
        w, log_r = self.before.weights, self.ensemble.log_weights - self.before.log_weights
        counted = ~log_r.isnan() & (w > 0)
        log_w, log_r = w[counted].log(), log_r[counted]
        if not len(log_r):
            return 0.0
        means = [torch.logsumexp(log_w + k * log_r, 0) for k in (1, 2)]
        return float(torch.exp(2 * means[0] - means[1]).nan_to_num(0.0))

    @property
    def n_failed(self) -> int:
        """Samples of the first level without an energy of the second; they have no weight."""
        return int(self._failed.sum())

    @property
    def failed_weight(self) -> float:
        """Weight of these samples in the first level: what may be missing."""
        return float(self.before.weights[self._failed].sum())

    def numbers(self) -> dict[str, Any]:
        """What there is to report, as plain values by name."""
        e, (difference, error) = self.ensemble, self.free_energy_difference
        return {
            "n_samples": e.n_samples,
            "temperature": e.temperature,
            "ess": e.ess,
            "overlap": self.overlap,
            "free_energy_difference": difference,
            "free_energy_difference_error": error,
            "log_z": e.log_z,
            "log_z_error": self.log_z_error,
            "pareto_k": e.pareto_k,
            "verdict": e.verdict,
            "n_failed": self.n_failed,
            "failed_weight": self.failed_weight,
            "energy_calls": e.n_energy_calls,
        }

    @property
    def _failed(self) -> Tensor:
        return self.before.valid & self.ensemble.energy.isnan()

    def __repr__(self) -> str:
        e, (difference, error) = self.ensemble, self.free_energy_difference
        return (
            f"Reweighting(n={e.n_samples}, ess={e.ess:.3g}, overlap={self.overlap:.3g}, "
            f"free_energy_difference={difference:.6g} ± {error:.1g}, k_hat={e.pareto_k:.2g}, "
            f"n_failed={self.n_failed}, n_energy_calls={e.n_energy_calls})"
        )


def reweight(
    ensemble: Ensemble,
    energy: Energy,
    *,
    n_samples: int | None = None,
    shift: Shift | None = None,
    seed: int = 0,
    batch_size: int = 64,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    reporters: Sequence[Reporter] = (),
) -> Reweighting:
    r"""Give the samples of one energy weights for another one, at the same temperature.

    .. math:: w'_i = w_i\, e^{-\beta (U'(x_i) - U(x_i))}

    with weighted averages over :math:`e^{-\beta U'} / Z'`: importance sampling in two steps, of
    which the second is exponential averaging. With `n_samples`, U' is asked at that many of the
    samples alone, chosen by their weights so that they stand for all (`Ensemble.thin`).

    The two energies have to agree on every stiff coordinate: where their means differ by
    :math:`\delta_k` widths, the effective sample size falls as :math:`e^{-\sum_k \delta_k^2}`. A
    `shift` takes most of it back,

    .. math:: w'_i = w_i\, e^{-\beta (U'(x'_i) - U(x_i))}\,
              \left|\det \frac{\partial x'}{\partial y'}\right|_i
              \left|\det \frac{\partial x}{\partial y}\right|_i^{-1},
              \qquad y'_i = y_i + d

    and training on to the second energy (`gencg.fit` with `model`) nearly all.

    Args:
        ensemble: Weighted samples of U.
        energy: U'. Its calls are counted; a sample for which it is nan has no weight.
        n_samples: How many samples to ask; by default every valid one.
        shift: Where samples go before they are asked, such as `stiff_shift` of the coordinates
            that the ensemble was drawn in.
        seed: Seed of the choice, and of the copies of rotors after a shift.
        batch_size: Configurations per call.
        checkpoint: File to write the energies to; if it exists, the reweighting goes on from it.
        checkpoint_seconds: Wall time between two writings; it is written as well when an
            interrupt or an error ends the reweighting.
        reporters: Called with the number of energies computed and that of all.

    Raises:
        ValueError: If shapes differ, no sample has weight, or a number is not positive.
        CheckpointError: If `checkpoint` is damaged, or of other samples or another energy.
        RuntimeError: If more than half of the samples have no energy.
    """
    if tuple(ensemble.x.shape[1:]) != energy.event_shape:
        raise ValueError(
            f"`energy` takes configurations of shape {energy.event_shape}, `ensemble` has "
            f"{tuple(ensemble.x.shape[1:])}; build it for the same molecule"
        )
    for name, value in (("n_samples", n_samples), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}")
    if shift is not None and not _drawn_in(ensemble, shift.coordinates):
        raise ValueError("`shift` has other coordinates than those that `ensemble` was drawn in")
    if bool(ensemble.log_weights.isneginf().all()):
        raise ValueError("`ensemble` has no sample with weight, so there is nothing to reweight")
    before = ensemble if n_samples is None else ensemble.thin(n_samples, seed)
    moved, log_volume = _moved(before, shift, seed)
    task = _Task(moved.x[before.valid], energy, None if checkpoint is None else Path(checkpoint))
    values = task.run(batch_size, checkpoint_seconds, reporters)
    n_failed = int(values.isnan().sum())
    if n_failed > MAX_FAILED * len(values):
        raise RuntimeError(
            f"{n_failed} of {len(values)} samples have no energy: check what it was built with, "
            "such as charge and unpaired electrons, and whether the samples are of that molecule"
        )
    return Reweighting(
        before=before,
        ensemble=_reweighted(moved, values, log_volume, task.n_calls),
        pool_error=0.0 if n_samples is None else ensemble.log_z_error,
    )


def _drawn_in(ensemble: Ensemble, coordinates: CoordinateMap) -> bool:
    """Whether a sample's y means its x: in shape, up to rigid motion and equal labels."""
    x, y = ensemble.x[ensemble.valid][:1], ensemble.y[ensemble.valid][:1]
    if y.shape[1] != coordinates.dim:
        return False
    again, _ = coordinates.inverse(y)
    if again.shape != x.shape:
        return False
    if x.ndim == 3:
        x, again = (torch.pdist(points[0]).sort().values for points in (x, again))
    return bool(torch.allclose(x, again, rtol=0, atol=1e-6))


def _moved(ensemble: Ensemble, shift: Shift | None, seed: int) -> tuple[Ensemble, Tensor]:
    """Samples after the shift, still with their energies, and the change of their log volume."""
    if shift is None:
        return ensemble, torch.zeros_like(ensemble.energy)
    y, x, log_volume = shift(ensemble.y, seed=seed)
    # What loses its handedness on the way has no weight
    kept = shift.coordinates.valid(x) & torch.isfinite(log_volume)
    log_weights = torch.where(kept, ensemble.log_weights, -math.inf)
    return replace(ensemble, x=x, y=y, log_weights=log_weights), log_volume


def _reweighted(moved: Ensemble, values: Tensor, log_volume: Tensor, n_calls: int) -> Ensemble:
    """The samples with energies of the second level, given for the valid ones."""
    energy = torch.full_like(moved.energy, math.nan)
    energy[moved.valid] = values
    valid = moved.valid & ~energy.isnan()
    beta = inverse_temperature(moved.temperature)
    # A weight of zero stays one: the difference of two infinite energies is no number
    counted = valid & ~moved.log_weights.isneginf()
    step = torch.where(counted, log_volume - beta * (energy - moved.energy), 0.0)
    log_weights = torch.where(counted, moved.log_weights + step, -math.inf)
    return replace(
        moved, energy=energy, log_weights=log_weights, valid=valid, n_energy_calls=n_calls
    )


class _Task:
    """Energies of samples one batch after the other, in a file that an interrupt leaves whole."""

    def __init__(self, x: Tensor, energy: Energy, path: Path | None) -> None:
        self.x, self.energy, self.path = x, energy, path
        self.values = x.new_zeros(0)
        self.n_calls = 0
        if path is not None and path.exists():
            self._resume(path)

    def run(
        self, batch_size: int, checkpoint_seconds: float, reporters: Sequence[Reporter]
    ) -> Tensor:
        saved = time.monotonic()
        try:
            while len(self.values) < len(self.x):
                batch = self.x[len(self.values) : len(self.values) + batch_size]
                with torch.no_grad():
                    values = self.energy(batch).to(self.values)
                self.values = torch.cat([self.values, values])
                self.n_calls += len(batch)
                for report in reporters:
                    report(len(self.values), len(self.x))
                if time.monotonic() - saved > checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
        finally:
            self._save()
        return self.values

    @property
    def _state(self) -> dict[str, Any]:
        content = self.x.cpu().contiguous().numpy().tobytes()
        return {"kind": "reweighting", "samples": hashlib.sha256(content).hexdigest()}

    def _save(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            numbers = {"energies": self.values, "n_energy_calls": self.n_calls}
            save_checkpoint(self.path, self._state | numbers)

    def _resume(self, path: Path) -> None:
        content = load_checkpoint(path)
        if any(content.get(name) != value for name, value in self._state.items()):
            raise CheckpointError(
                f"checkpoint {path} is not of these samples (another ensemble, number or seed); "
                "use the settings it was made with, another file or --override"
            )
        values: Tensor = content["energies"]
        self.values, self.n_calls = values, content["n_energy_calls"]
        known = torch.nonzero(torch.isfinite(values))[:1, 0]
        if len(known):
            # The energy cannot say what it is; what it computes can
            with torch.no_grad():
                again = self.energy(self.x[known]).to(values)
            self.n_calls += 1
            if bool(((again - values[known]).abs() <= SAME).logical_not().any()):
                raise CheckpointError(
                    f"checkpoint {path} is of another energy: {float(values[known]):.6g} kJ/mol "
                    f"there, {float(again):.6g} here; use the settings it was made with, another "
                    "file or --override"
                )
