"""Long unbiased dynamics of a molecule, for evaluation only: nothing is ever trained on them.

Writes into the folder given ``settings.json``, ``state.pt``, ``frames.bin`` (float32 positions) and
``summary.json``, from which the same command goes on after a kill, and further with a larger
`--ps`.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.collective_variables.langevin import Langevin
from experiments.collective_variables.starts import equilibrium
from experiments.collective_variables.trajectories import Settings
from gencg.checkpoint import load_checkpoint, save_checkpoint


class Recording:
    """Dynamics in the making, and the folder they are written into.

    Args:
        folder: Where; one that holds dynamics of the same settings is gone on with.
        settings: What they are made with.

    Raises:
        ValueError: If the folder holds dynamics of other settings, or the target is a toy.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.system = settings.system()
        if self.system.molecule is None:
            raise ValueError(f"`target` must be a molecule, got {settings.target!r}")
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "settings.json").exists() and Settings.read(folder) != settings:
            raise ValueError(f"{folder} holds dynamics of other settings; choose another --out")
        settings.write(folder)
        self.n_frames, self.seconds = 0, 0.0
        found = (folder / "state.pt").exists()
        began = time.process_time()
        x = torch.zeros(settings.replicas, self.system.molecule.n_atoms, 3) if found else None
        if x is None:
            x = equilibrium(
                self.system,
                settings.replicas,
                rungs=settings.rungs,
                sweeps=settings.sweeps,
                seed=settings.seed,
            )
        self.dynamics = Langevin(
            self.system.energy,
            x.float(),
            torch.as_tensor(self.system.molecule.masses),
            temperature=self.system.temperature,
            time_step=settings.time_step,
            friction=settings.friction,
            seed=settings.seed + 1,
        )
        if found:
            state = load_checkpoint(folder / "state.pt")
            self.dynamics.load_state_dict(state["dynamics"])
            self.n_frames, self.seconds = state["n_frames"], state["seconds"]
            # What was written after the last checkpoint is written again
            os.truncate(folder / "frames.bin", self.n_frames * x[..., 0].numel() * 12)
        else:
            self.dynamics.run(settings.settle)
            self.seconds = time.process_time() - began
            (folder / "frames.bin").write_bytes(b"")
            self._save()

    @property
    def picoseconds(self) -> float:
        """Recorded time of each replica."""
        return self.n_frames * self.settings.interval

    def block(self) -> None:
        """Frames up to the next checkpoint."""
        began, frames = time.process_time(), []
        for _ in range(self.settings.block):
            self.dynamics.run(self.settings.stride)
            frames.append(self.dynamics.x.clone())
        written = torch.stack(frames)
        if not bool(torch.isfinite(written).all()):
            raise FloatingPointError(f"positions are not finite; `time_step` too long? {self}")
        with open(self.folder / "frames.bin", "ab") as file:
            written.numpy().tofile(file)
        self.n_frames += len(frames)
        self.seconds += time.process_time() - began
        self._save()

    def _save(self) -> None:
        state = {"dynamics": self.dynamics.state_dict()}
        save_checkpoint(
            self.folder / "state.pt", state | {"n_frames": self.n_frames, "seconds": self.seconds}
        )
        about = {
            "description": self.system.description,
            "temperature": self.system.temperature,
            "frames": self.n_frames,
            "interval_ps": self.settings.interval,
            "ps_per_replica": self.picoseconds,
            "total_ns": self.picoseconds * self.settings.replicas / 1000,
            "cpu_seconds": self.seconds,
        }
        draft = self.folder / "summary.draft"
        draft.write_text(json.dumps(about, indent=1) + "\n")
        draft.replace(self.folder / "summary.json")

    def __repr__(self) -> str:
        return f"Recording({self.system.name}, {self.settings.replicas} x {self.picoseconds:g} ps)"


def main() -> None:
    """Record until each replica is as long as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", help="as `gencg run` takes it")
    parser.add_argument("--forcefield", nargs="+", default=[], help="files  [the target's own]")
    parser.add_argument("--ps", type=float, default=1000.0, help="of each replica  [%(default)g]")
    parser.add_argument("--out", type=Path, required=True, help="folder, outside of a repository")
    for option in dataclasses.fields(Settings)[2:]:
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=type(option.default),
            default=option.default,
            help=f"[{option.default}]",
        )
    given = vars(parser.parse_args())
    out, length = given.pop("out"), given.pop("ps")
    settings = Settings(**given | {"forcefield": tuple(given["forcefield"])})
    torch.set_num_threads(1)
    recording = Recording(out, settings)
    total = round(length / settings.interval)
    with tqdm(
        total=total, initial=recording.n_frames, unit="frame", file=sys.stderr, mininterval=30
    ) as bar:
        while recording.n_frames < total:
            recording.block()
            bar.update(settings.block)
    print((out / "summary.json").read_text())


if __name__ == "__main__":
    main()
