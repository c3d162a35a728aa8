"""Using a finished run: its samples, CVs of trajectories, structures at a CV value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gencg.config import IN_TWO_STAGES
from gencg.discover import SlowCVs
from gencg.ensemble import Ensemble
from gencg.fit import FitResult
from gencg.run.collective import has_joint, restored
from gencg.run.execute import trained
from gencg.run.folder import RunFolder
from gencg.systems.base import System
from gencg.units import BOLTZMANN_CONSTANT


@dataclass(frozen=True)
class CollectiveRun:
    """The model with collective variables that a run holds.

    Args:
        result: The joint model, or that of a one-stage run.
        names: A name for each CV.
        slow: The slow CVs; None for a one-stage model.
        log_z: Log partition function of the run over all z; None while it is not finished.
    """

    result: FitResult
    names: tuple[str, ...]
    slow: SlowCVs | None
    log_z: float | None

    @property
    def periodic(self) -> bool:
        """Whether the CVs are angles."""
        return self.result.model.periodic_cvs

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the CVs with their unit."""
        return tuple(f"{name} (rad)" if self.periodic else name for name in self.names)

    @property
    def slow_columns(self) -> tuple[str, ...]:
        """Names of the slow functions, the slowest first."""
        n = 0 if self.slow is None else len(self.slow.eigenvalues)
        return tuple(f"slow {k + 1}" for k in range(n))

    def cvs(self, trajectory: Any, *, slow: bool = False) -> NDArray[np.float64]:
        """CVs of a trajectory, ``(n, n_cvs)``; with `slow`, the slow functions follow them.

        Raises:
            ValueError: If the trajectory is of something else, or slow functions are asked of a
                model that has none.
        """
        if slow and self.slow is None:
            raise ValueError("a one-stage model has no slow functions; leave --slow out")
        z: NDArray[np.float64] = self.result.model.encode(trajectory)
        if not slow or self.slow is None:
            return z
        with torch.no_grad():
            values = self.slow.functions.of_cvs(torch.from_numpy(z))
        return np.concatenate([z, values.double().numpy()], axis=1)

    def backmap(
        self, z: Sequence[float], n_samples: int, *, seed: int, degrees: bool = False
    ) -> Ensemble:
        """Weighted structures at one value of the CVs.

        Args:
            z: Value of each CV, angles in rad.
            n_samples: Number of samples.
            seed: Seed of the draw.
            degrees: Whether the angles are in degrees instead.

        Raises:
            ValueError: If z has another length or is not finite, degrees are given for CVs that
                are no angles, or no sample carries weight.
        """
        if len(z) != len(self.names):
            raise ValueError(
                f"`cv` must give {len(self.names)} number{'s' * (len(self.names) != 1)}, for "
                f"{', '.join(self.columns)}, got {len(z)}"
            )
        if degrees and not self.periodic:
            raise ValueError(f"`degrees` is for angles, but {', '.join(self.names)} is none")
        value = torch.tensor(list(z), dtype=torch.float64)
        ensemble: Ensemble = self.result.model.decode(
            torch.deg2rad(value) if degrees else value, n_samples, seed=seed
        )
        if not bool(torch.isfinite(ensemble.log_weights).any()):
            raise ValueError(
                f"none of the {n_samples} samples at {list(z)} carries weight: the generator "
                "does not reach there; choose a CV value that the run's report shows populated"
            )
        return ensemble

    def backmap_summary(self, ensemble: Ensemble) -> dict[str, Any]:
        r"""Numbers of a backmapped ensemble.

        ``free_energy`` is :math:`-k_B T \log p(z)` in kJ/mol, with :math:`p(z)` per rad or CV
        unit of each CV: differences between two values of z do not depend on the unit. It is
        None while the run has no partition function to compare with.
        """
        known = self.log_z is not None
        log_density = ensemble.log_z - self.log_z if self.log_z is not None else math.nan
        kt = BOLTZMANN_CONSTANT * ensemble.temperature
        return {
            "n_samples": ensemble.n_samples,
            "cv": dict(zip(self.names, ensemble.z[0].tolist(), strict=True)),
            "ess": ensemble.ess,
            "free_energy": -kt * log_density if known else None,
            "free_energy_error": kt * ensemble.log_z_error if known else None,
            "density": math.exp(log_density) if known else None,
            "clashes": ensemble.n_clashes / ensemble.n_samples,
            "lost_stereo": ensemble.n_invalid / ensemble.n_samples,
        }


def with_cvs(system: System, folder: RunFolder) -> CollectiveRun:
    """The model with CVs of a run.

    Raises:
        ValueError: If the run has none, or has not come so far.
    """
    config, summary = folder.config, folder.summary or {}
    if config.decoder not in IN_TWO_STAGES:
        result = trained(system, folder)
        names = tuple(f"z{k + 1}" for k in range(result.model.n_cvs))
        return CollectiveRun(result, names, None, summary.get("log_z"))
    if not config.discovers:
        raise ValueError(
            f"run {folder.path} was made without collective variables (--cvs 0); make another "
            "with --cvs auto"
        )
    slow, joint = restored(trained(system, folder), folder)
    return CollectiveRun(joint, slow.names, slow, summary.get("joint_log_z"))


def sampler(system: System, folder: RunFolder) -> FitResult:
    """What a run draws from: its joint model, or the generator where there is none.

    Raises:
        ValueError: If training is not done.
    """
    result = trained(system, folder)
    return restored(result, folder)[1] if has_joint(folder) else result
