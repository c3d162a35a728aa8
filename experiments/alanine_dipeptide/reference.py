"""Frames of the dipeptide at any temperature by parallel tempering, for evaluation only.

`experiments.peptides.reference` keeps torsions alone, at the system's own temperature. Here whole
frames are kept too, for what the paper of 2020 draws beside them: bond lengths, radius of gyration
and RMSD, at its 330 K. Nothing is trained on them.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.peptides.parallel_tempering import ParallelTempering
from experiments.peptides.recorded import to_radians, to_steps
from gencg.analysis import ramachandran_basins, torsion_angles
from gencg.importance import effective_sample_size, resample_indices
from gencg.systems import System, load
from gencg.units import inverse_temperature

TARGET = "alanine-dipeptide"
HOTTEST = 1000.0
"""Top of the ladder in K."""


@dataclass(frozen=True)
class Frames:
    """What a simulation left.

    Args:
        temperature: In K.
        x: Frames in nm, ``(n_frames, n_atoms, 3)``.
        ladder: Torsions phi, psi as from `to_steps`, ``(n_ladders, n, 2)``; the ladders are
            independent of each other.
        about: How it was made.
    """

    temperature: float
    x: Tensor
    ladder: NDArray[np.int16]
    about: dict[str, Any]

    @property
    def angles(self) -> NDArray[np.float64]:
        """phi and psi of all samples in rad, ``(n, 2)``."""
        return to_radians(self.ladder).reshape(-1, 2)

    @property
    def alpha_l(self) -> tuple[float, float]:
        """Population of alpha_L, and its standard error from the spread between ladders."""
        phi, psi = self.angles.T
        means = ramachandran_basins(phi, psi)["alpha_L"].reshape(len(self.ladder), -1).mean(1)
        error = means.std(ddof=1) / len(means) ** 0.5 if len(means) > 1 else float("nan")
        return float(means.mean()), float(error)

    def at(self, temperature: float, system: System, *, seed: int = 0) -> "Frames":
        r"""The frames at another temperature, drawn again by their weights.

        .. math:: w \propto e^{-(\beta' - \beta) U(x)}

        Torsions are those of the frames then, and the ladders are forgotten.

        Args:
            temperature: In K, not far from that of the frames.
            system: What was simulated, one energy call for each frame.
            seed: Of the draw.
        """
        step = inverse_temperature(temperature) - inverse_temperature(self.temperature)
        log_weights = -step * system.energy(self.x)
        n = int(effective_sample_size(log_weights) * len(self.x))
        x = self.x[resample_indices(log_weights, n, seed)]
        quads = [quad for _, quad in system.molecule.phi_psi()]  # type: ignore[union-attr]
        about = self.about | {"reweighted_from": self.temperature}
        return Frames(temperature, x, to_steps(torsion_angles(x, quads))[None], about)

    def write(self, path: Path) -> None:
        """Write a compressed ``.npz``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            temperature=self.temperature,
            x=self.x.float().numpy(),
            ladder=self.ladder,
            about=json.dumps(self.about),
        )

    @classmethod
    def read(cls, path: Path) -> "Frames":
        """Read what `write` wrote."""
        with np.load(path) as file:
            x = torch.from_numpy(file["x"]).double()
            about = json.loads(str(file["about"]))
            return cls(float(file["temperature"]), x, file["ladder"], about)


def simulate(
    system: System,
    *,
    temperature: float,
    calls: float | None = None,
    minutes: float | None = None,
    rungs: int = 6,
    cold: int = 4,
    ladders: int = 192,
    n_frames: int = 20_000,
    tune: int = 280,
    burn_in: int = 1000,
    seed: int = 0,
) -> Frames:
    """Simulate until the energy calls or the CPU minutes are spent, whatever of tuning included.

    Args:
        system: A molecule with one pair phi, psi.
        temperature: Of the coldest rung in K.
        calls: Energy calls in all; None where `minutes` decide.
        minutes: CPU minutes in all; None where `calls` decide.
        rungs: Different temperatures.
        cold: Replicas of each ladder at the coldest.
        ladders: Independent ladders.
        n_frames: Whole frames kept, about.
        tune: Sweeps in which masses, steps and temperatures are chosen.
        burn_in: Sweeps after that before anything is recorded.
        seed: Of all that is random.

    Raises:
        ValueError: If neither or both of `calls` and `minutes` are given, or they do not suffice
            for one recorded sweep.
    """
    if (calls is None) == (minutes is None):
        raise ValueError(f"give either `calls` or `minutes`, got {calls} and {minutes}")
    began, energy = time.process_time(), system.energy
    before = energy.n_energy_calls
    hot = np.geomspace(temperature, HOTTEST, rungs).tolist()
    sampler = ParallelTempering(
        system, [hot[0]] * (cold - 1) + hot, n_ladders=ladders, n_steps=3, seed=seed
    )

    def spent() -> float:
        """Share of the budget that is spent."""
        if calls is not None:
            return (energy.n_energy_calls - before) / calls
        assert minutes is not None
        return (time.process_time() - began) / (60 * minutes)

    labels = [name for name, _ in system.molecule.phi_psi()]  # type: ignore[union-attr]
    columns = [system.coordinates.names.index(label) for label in labels]
    sampler.tune(tune)
    for _ in range(burn_in):
        sampler.sweep()
    first, torsions, frames, kept = spent(), [], [], 0.0
    while spent() < 1:
        sampler.sweep()
        y = sampler.replicas.y[:cold]
        torsions.append(to_steps(y[:, :, columns].numpy()))
        # Frames are kept evenly over what is left of the budget
        if (spent() - first) / (1 - first) * n_frames >= kept:
            frames.append(system.coordinates.inverse(y.flatten(0, 1).double())[0].float())
            kept += cold * ladders
    if not torsions:
        raise ValueError(f"the budget ends in burn-in: {first:.0%} of it are spent there")
    table = np.stack(torsions).transpose(2, 0, 1, 3).reshape(ladders, -1, len(labels))
    about = {
        "system": system.description,
        "temperatures": sampler.temperatures,
        "acceptance": (sampler.counts.accepted / sampler.counts.sweeps).tolist(),
        "round_trips": sampler.counts.round_trips,
        "energy_calls": energy.n_energy_calls - before,
        "cpu_seconds": time.process_time() - began,
        "seed": seed,
    }
    return Frames(temperature, torch.cat(frames).double(), table, about)


def main() -> None:
    """Simulate and write the frames."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--temperature", type=float, default=300.0, help="in K  [300]")
    parser.add_argument("--minutes", type=float, default=3.0, help="CPU time in all  [3]")
    parser.add_argument("--out", type=Path, required=True, help=".npz, outside of a repository")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = simulate(load(TARGET), temperature=given.temperature, minutes=given.minutes)
    found.write(given.out)
    print(json.dumps(found.about | {"n": len(found.angles), "alpha_L": found.alpha_l}, indent=2))


if __name__ == "__main__":
    main()
