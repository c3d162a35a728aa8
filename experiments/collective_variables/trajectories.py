"""A folder of long dynamics: what it was made with, and its frames."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gencg.systems import System, load


@dataclass(frozen=True)
class Settings:
    """What dynamics are made with.

    Attributes:
        target: As `gencg run` takes it.
        forcefield: Force-field files; none for the target's own.
        replicas: Side by side.
        time_step: In ps.
        friction: In 1/ps.
        stride: Steps from a frame to the next.
        block: Frames between two checkpoints.
        settle: Steps before the first frame.
        rungs: Temperatures of the parallel tempering that gives the starts.
        sweeps: Its sweeps after tuning.
        seed: Of all that is random.
    """

    target: str
    forcefield: tuple[str, ...] = ()
    replicas: int = 256
    time_step: float = 1e-3
    friction: float = 1.0
    stride: int = 500
    block: int = 40
    settle: int = 10_000
    rungs: int = 6
    sweeps: int = 1000
    seed: int = 0

    @property
    def interval(self) -> float:
        """Time between frames in ps."""
        return self.stride * self.time_step

    def system(self) -> System:
        """What is simulated."""
        options = {"forcefield": self.forcefield} if self.forcefield else {}
        return load(self.target, **options)

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """Those of a folder.

        Raises:
            FileNotFoundError: If it holds no dynamics.
        """
        given = json.loads((folder / "settings.json").read_text())
        return cls(**given | {"forcefield": tuple(given["forcefield"])})

    def write(self, folder: Path) -> None:
        """Write ``settings.json``."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        (folder / "settings.json").write_text(text + "\n")


@dataclass(frozen=True)
class Trajectories:
    """Frames of replicas that each are one unbroken trajectory.

    Attributes:
        settings: What they were made with.
        system: What was simulated.
        x: Positions in nm, ``(n_frames, n_replicas, n_atoms, 3)`` float32, on disk.
        about: Numbers that were kept with them.
    """

    settings: Settings
    system: System
    x: NDArray[np.float32]
    about: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Trajectories":
        """All frames up to the last checkpoint of a folder."""
        settings = Settings.read(folder)
        system = settings.system()
        assert system.molecule is not None
        about = json.loads((folder / "summary.json").read_text())
        shape = (about["frames"], settings.replicas, system.molecule.n_atoms, 3)
        x = np.memmap(folder / "frames.bin", np.float32, "r", shape=shape)
        return cls(settings, system, x, about)

    def each(self, function: Any, *, chunk: int = 20_000) -> NDArray[np.float64]:
        """A function of positions ``(n, n_atoms, 3)`` of all, as ``(n_replicas, n_frames, d)``."""
        n_frames, n_replicas = self.x.shape[:2]
        rows = max(1, chunk // n_replicas)
        parts = []
        for begin in range(0, n_frames, rows):
            x = torch.from_numpy(np.array(self.x[begin : begin + rows])).double()
            values = np.asarray(function(x.flatten(0, 1)))
            parts.append(values.reshape(len(x), n_replicas, values.shape[-1]))
        return np.concatenate(parts).swapaxes(0, 1)
