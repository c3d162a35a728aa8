"""A reference in the making, with its checkpoints."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.peptides.parallel_tempering import ParallelTempering
from experiments.peptides.recorded import Reference, to_steps
from experiments.peptides.replicas import Counts
from gencg.checkpoint import load_checkpoint, save_checkpoint
from gencg.coordinates.internal import InternalCoordinates
from gencg.systems import load
from gencg.units import BOLTZMANN_CONSTANT


@dataclass(frozen=True)
class Settings:
    """What a reference is made with.

    Attributes:
        system: Name of the system.
        rungs: Different temperatures.
        hottest: Hottest temperature in K.
        cold: Replicas of each ladder at the system's temperature.
        ladders: Independent ladders.
        steps: Leapfrog steps of a trajectory.
        tune: Sweeps in which masses, steps and temperatures are chosen.
        burn_in: Sweeps after that, before anything is recorded.
        thin: Sweeps from one that is recorded to the next.
        block: Sweeps between two checkpoints, a multiple of `thin`.
        seed: Of all that is random.
    """

    system: str
    rungs: int
    hottest: float = 1000.0
    cold: int = 4
    ladders: int = 192
    steps: int = 3
    tune: int = 280
    burn_in: int = 1000
    thin: int = 1
    block: int = 100
    seed: int = 0


class Recording:
    """A reference in the making: the sampler, what it recorded, and the folder of both.

    Args:
        folder: Where; one that holds a recording of the same settings is gone on with.
        settings: What it is made with.

    Raises:
        ValueError: If the folder holds a recording of other settings, or `block` is no multiple
            of `thin`.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        if settings.block % settings.thin:
            raise ValueError(
                f"`block` must be a multiple of `thin`, got {settings.block} and {settings.thin}"
            )
        self.folder, self.settings = folder, settings
        self.system = load(settings.system)
        assert isinstance(self.system.coordinates, InternalCoordinates)
        self.coordinates: InternalCoordinates = self.system.coordinates
        hot = np.geomspace(self.system.temperature, settings.hottest, settings.rungs).tolist()
        self.sampler = ParallelTempering(
            self.system,
            [hot[0]] * (settings.cold - 1) + hot,
            n_ladders=settings.ladders,
            n_steps=settings.steps,
            seed=settings.seed,
        )
        assert self.system.molecule is not None
        self.labels = tuple(label for label, _ in self.system.molecule.phi_psi())
        self.columns = [self.system.coordinates.names.index(label) for label in self.labels]
        self.seconds, self.n_blocks, self.calls = 0.0, 0, 0
        self.scalars: dict[str, list[Any]] = {"energy": [], "virial": []}
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.pt").exists():
            self._resume()
        else:
            began = time.process_time()
            self.sampler.tune(settings.tune)
            self._spend(began)

    @property
    def n_burn_in(self) -> int:
        """Blocks of burn-in."""
        return -(-self.settings.burn_in // self.settings.block)

    def block(self) -> None:
        """A block of sweeps, recorded after burn-in, and its checkpoint."""
        began, rows = time.process_time(), []
        if self.n_blocks == self.n_burn_in:
            self.sampler.counts = Counts.none(len(self.sampler.beta))
        for i in range(self.settings.block):
            self.sampler.sweep()
            if i % self.settings.thin:
                continue
            y = self.sampler.replicas.y[: self.settings.cold]
            rows.append(to_steps(y[:, :, self.columns].numpy()))
        if self.n_blocks >= self.n_burn_in:
            with open(self.folder / "torsions.bin", "ab") as file:
                np.stack(rows).tofile(file)
            self._measure()
        self.n_blocks += 1
        self._spend(began)
        self._save()

    def _measure(self) -> None:
        r"""Energies of each ladder, and the virial of every atom over its exact value.

        .. math:: E\bigl[(x_i - x_j) \cdot \nabla_i U\bigr] = 3 k_B T

        for any two atoms, by partial integration in Cartesian space; j is the one before the
        atom that i is bonded to. A wrong volume of lengths or angles breaks it.
        """
        z, kt = self.coordinates.zmatrix, BOLTZMANN_CONSTANT * self.system.temperature
        atoms = list(z.atoms[2:])
        others = [z.grandparent[i] for i in atoms]
        cold = self.sampler.replicas.y[: self.settings.cold]
        x = self.coordinates.inverse(cold.flatten(0, 1))[0]
        energy, slope = self.system.energy.energy_and_gradient(x)
        arms = x[:, atoms] - x[:, others]
        virial = (arms * slope[:, atoms]).sum((1, 2)) / (3 * len(atoms) * kt)
        for name, value in (("energy", energy), ("virial", virial)):
            self.scalars[name].append(value.reshape(cold.shape[:2]).mean(0).tolist())

    def _spend(self, began: float) -> None:
        self.seconds += time.process_time() - began
        self.calls += self.system.energy.n_energy_calls
        self.system.energy.n_energy_calls = 0

    def _save(self) -> None:
        content = {
            "settings": dataclasses.asdict(self.settings),
            "sampler": self.sampler.state_dict(),
            **{name: getattr(self, name) for name in ("seconds", "n_blocks", "calls", "scalars")},
        }
        save_checkpoint(self.folder / "state.pt", content)

    def _resume(self) -> None:
        content = load_checkpoint(self.folder / "state.pt")
        mine = dataclasses.asdict(self.settings)
        if content["settings"] != mine:
            raise ValueError(
                f"folder {self.folder} holds a reference of other settings, "
                f"{content['settings']}; got {mine}; choose another --out"
            )
        self.sampler.load_state_dict(content["sampler"])
        for name in ("seconds", "n_blocks", "calls", "scalars"):
            setattr(self, name, content[name])
        # The starts were made again, and are counted already
        self.system.energy.n_energy_calls = 0
        if (self.folder / "torsions.bin").exists():
            # What was written after the last checkpoint is made again
            with open(self.folder / "torsions.bin", "ab") as file:
                file.truncate(2 * int(np.prod(self._shape)))

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        n = max(0, self.n_blocks - self.n_burn_in) * self.settings.block
        return n // self.settings.thin, self.settings.cold, self.settings.ladders, len(self.labels)

    def reference(self) -> Reference:
        """What has been recorded so far.

        Raises:
            ValueError: If that is nothing.
        """
        if not self._shape[0]:
            raise ValueError(f"{self.folder} is still in burn-in: give it more --minutes")
        raw = np.fromfile(self.folder / "torsions.bin", dtype=np.int16).reshape(self._shape)
        steps = raw.transpose(2, 0, 1, 3).reshape(self.settings.ladders, -1, len(self.labels))
        return Reference(self.system.name, self.labels, steps, self._about())

    def _about(self) -> dict[str, Any]:
        counts, n_ladders = self.sampler.counts, self.settings.ladders
        per_rung = counts.sweeps * n_ladders
        return {
            "description": self.system.description,
            "settings": dataclasses.asdict(self.settings),
            "temperatures": self.sampler.temperatures,
            "step_sizes": self.sampler.step.tolist(),
            "acceptance": (counts.accepted / counts.sweeps).tolist(),
            "outside": [round(v) for v in (counts.outside * n_ladders).tolist()],
            "trajectories_per_rung": per_rung,
            "exchange_rates": counts.exchange_rates.tolist(),
            "round_trips": counts.round_trips,
            "sweeps": counts.sweeps,
            "energy_calls": self.calls,
            "cpu_seconds": self.seconds,
            **{name: mean_and_error(values) for name, values in self.scalars.items()},
        }


def mean_and_error(values: list[list[float]]) -> dict[str, float]:
    """Mean of ``(n_blocks, n_ladders)`` numbers, and its error from the spread of the ladders."""
    means = np.mean(values, axis=0)
    return {"mean": float(means.mean()), "error": float(means.std(ddof=1) / len(means) ** 0.5)}
