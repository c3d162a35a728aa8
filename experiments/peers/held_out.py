"""What a generator is worth on fresh samples."""

from typing import Any

import gencg
from gencg.target import BoltzmannTarget


def held_out(model: Any, target: BoltzmannTarget, n_samples: int, *, seed: int) -> dict[str, float]:
    """ESS, log Z and the population at phi > 0, as drawn and reweighted.

    The reverse ESS cannot see a well that is never drawn; the population can.

    Args:
        model: What `gencg.draw` can draw from.
        target: Boltzmann density.
        n_samples: Fresh samples, not counted as calls of the training.
        seed: Seed of the draw, not that of the training.
    """
    ensemble = gencg.draw(model, target, n_samples, seed=seed)
    found = {
        "ess": ensemble.ess,
        "log_z": ensemble.log_z,
        "log_z_error": ensemble.log_z_error,
        "n_invalid": float(ensemble.n_invalid),
    }
    names = target.coordinates.names
    phi = next((k for k, name in enumerate(names) if name.startswith("phi(")), None)
    if phi is not None:
        states = {"phi_above_0": ensemble.y[:, phi] > 0}
        for name, raw in (("raw", True), ("reweighted", False)):
            p, error = ensemble.populations(states, raw=raw)["phi_above_0"]
            found |= {f"phi_above_0_{name}": p, f"phi_above_0_{name}_error": error}
    return found
