"""Metadynamics of many replicas in one batch: data-free CVs against phi and psi, and others.

Every replica is a well-tempered metadynamics of its own, with the hills, the force field and the
length of `metadynamics`, which runs the same in OpenMM; energies are gencg's. The exported
TorchScript file of a run gives its CVs. Beside phi and psi stand psi alone and the two largest
principal components of cosines and sines of all heavy torsions in the run's samples, as bad
choices. What is done is kept in the folder given, and a killed simulation goes on.
"""

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import gencg
from experiments.collective_variables.biased import BiasedEnergy, Variables, heavier_hydrogens
from experiments.collective_variables.comparison import (
    BLOCK,
    LEFT_OUT,
    PER_HILL,
    Reference,
    compare,
    draw,
    markdown,
    plain,
    reference_of,
)
from experiments.collective_variables.crossings import crossings, differences
from experiments.collective_variables.hills import Axis, Hills
from experiments.collective_variables.langevin import Langevin
from experiments.collective_variables.variables import of_run
from gencg.analysis import torsion_angles
from gencg.checkpoint import load_checkpoint, save_checkpoint
from gencg.run import RunFolder

SETTLE = 1000
"""Steps before the first hill, in which structure and velocities come to the temperature."""


@dataclass(frozen=True)
class Settings:
    """What all variables share.

    Attributes:
        replicas: Number of replicas.
        sigma: Width of the hills along an angle in rad.
        height: Of the first hill in kJ/mol.
        bias_factor: Of well-tempered metadynamics.
        stride: Time between two hills in ps.
        step: Time step in ps.
        hydrogen_mass: In amu, taken from heavy atoms.
        every: Steps between two kicks of the bias.
        friction: In 1/ps.
        seed: Of velocities and noise.
    """

    replicas: int = 64
    sigma: float = 0.35
    height: float = 1.2
    bias_factor: float = 10.0
    stride: float = 0.5
    step: float = 0.0025
    hydrogen_mass: float = 3.0
    every: int = 2
    friction: float = 1.0
    seed: int = 0

    @property
    def steps_per_frame(self) -> int:
        """Steps between two frames that are kept."""
        return round(self.stride / self.step) // PER_HILL


class Metadynamics:
    """Metadynamics in the making, and the file it is kept in.

    Args:
        file: Where; one that holds metadynamics of the same settings is gone on with.
        system: The molecule.
        variables: What is biased.
        settings: What is shared.

    Raises:
        ValueError: If the system is a toy, the file holds other settings, or the steps between two
            hills are no multiple of `PER_HILL`.
    """

    def __init__(
        self, file: Path, system: gencg.System, variables: Variables, settings: Settings
    ) -> None:
        molecule = system.molecule
        if molecule is None:
            raise ValueError(f"`system` must be a molecule, got {system.name}")
        if abs(settings.steps_per_frame * PER_HILL * settings.step - settings.stride) > 1e-9:
            raise ValueError(
                f"`stride` must be a multiple of {PER_HILL} steps of {settings.step:g} ps, got "
                f"{settings.stride:g}"
            )
        self.file, self.settings, self.variables = file, settings, variables
        self.quads = [quad for _, quad in molecule.phi_psi()]
        self.temperature = system.temperature
        n = settings.replicas
        self.hills = Hills(
            variables.axes, n, height=settings.height, bias_factor=settings.bias_factor,
            temperature=system.temperature,
        )  # fmt: skip
        self.energy = BiasedEnergy(system.energy, variables, self.hills, every=settings.every)
        self.dynamics = Langevin(
            self.energy,
            torch.as_tensor(molecule.positions).float().expand(n, -1, -1),
            heavier_hydrogens(
                torch.as_tensor(molecule.masses), molecule.elements, molecule.neighbours,
                hydrogen_mass=settings.hydrogen_mass,
            ),
            temperature=system.temperature,
            time_step=settings.step,
            friction=settings.friction,
            seed=settings.seed,
        )  # fmt: skip
        self.seconds = 0.0
        # [frame, replica, angle]
        self.seen: dict[str, list[Tensor]] = {"variables": [], "angles": []}
        self.line: list[Any] = []
        about = dataclasses.asdict(settings)
        if not file.exists():
            self.dynamics.run(SETTLE)
            return
        content = load_checkpoint(file)
        if content["settings"] != about:
            raise ValueError(f"{file} holds metadynamics of other settings; choose another --out")
        self.dynamics.load_state_dict(content["dynamics"])
        self.hills.grid.copy_(content["grid"])
        self.energy.n_steps = self.dynamics.n_steps
        self.seen = {name: list(content[name]) for name in self.seen}
        self.line, self.seconds = content["line"], content["seconds"]

    @property
    def picoseconds(self) -> float:
        """Simulated time of each replica under the bias."""
        return (self.dynamics.n_steps - SETTLE) * self.settings.step

    def block(self) -> None:
        """Hills, a look at the free energies, and a checkpoint."""
        began = time.process_time()
        for _ in range(BLOCK):
            for _ in range(PER_HILL):
                self.dynamics.run(self.settings.steps_per_frame)
                angles = torsion_angles(self.dynamics.x, self.quads)
                self.seen["angles"].append(torch.as_tensor(angles).float())
                self.seen["variables"].append(self.variables(self.dynamics.x))
            self.hills.add(self.seen["variables"][-1])
        if not bool(torch.isfinite(self.dynamics.x).all()):
            raise FloatingPointError(f"positions are not finite; `step` too long? {self}")
        self.line.append([self.picoseconds, self.differences()])
        self.seconds += time.process_time() - began
        save_checkpoint(
            self.file,
            {
                "settings": dataclasses.asdict(self.settings),
                "dynamics": self.dynamics.state_dict(),
                "grid": self.hills.grid,
                **{name: torch.stack(values) for name, values in self.seen.items()},
                "line": self.line,
                "seconds": self.seconds,
            },
        )

    def differences(self) -> dict[str, list[float]]:
        """Free-energy differences in kJ/mol by each replica's trajectory, weighted as of now."""
        begin = int(LEFT_OUT * len(self.seen["angles"]))
        angles, z = (
            torch.stack(self.seen[name][begin:]).transpose(0, 1) for name in ("angles", "variables")
        )
        log_weights = self.hills.log_weights(z)
        rows = [
            differences(a, w, temperature=self.temperature)
            for a, w in zip(angles.double().numpy(), log_weights.double().numpy(), strict=True)
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def results(self, looks: int | None = None) -> list[dict[str, Any]]:
        """Numbers of each replica so far, or up to one of the looks at its free energies."""
        line = self.line[:looks]
        frames = len(line) * BLOCK * PER_HILL
        phi = torch.stack(self.seen["angles"][:frames])[..., 0].double().numpy()
        times = [t for t, _ in line]
        return [
            {
                "ps": times[-1],
                "crossings": crossings(phi[:, r]),
                "times": times,
                **{name: [look[name][r] for _, look in line] for name in line[0][1]},
            }
            for r in range(self.settings.replicas)
        ]

    def __repr__(self) -> str:
        n = self.settings.replicas
        return f"Metadynamics({self.variables.name}, {n} x {self.picoseconds:g} ps)"


def simulate(file: Path, ps: float, **given: Any) -> Metadynamics:
    """Metadynamics up to a length; what is in the file counts."""
    made = Metadynamics(file, **given)
    total = round(ps / (BLOCK * made.settings.stride))
    with tqdm(
        total=total, initial=len(made.line), desc=file.stem, file=sys.stderr, mininterval=30
    ) as bar:
        while len(made.line) < total:
            made.block()
            bar.update()
    return made


def main() -> None:
    """Simulate what is missing, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="finished run of a dipeptide with CVs")
    parser.add_argument("--ps", type=float, default=1000, help="of each replica  [%(default)g]")
    parser.add_argument("--population", type=float, help="of alpha_L  [of the reference's file]")
    parser.add_argument("--only", nargs="+", help="of cvs, phi_psi, slow, psi, pca  [all]")
    parser.add_argument("--out", type=Path, required=True, help="folder, outside of a repository")
    for option in dataclasses.fields(Settings):
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=type(option.default),
            default=option.default,
            help=f"[{option.default}]",
        )
    given = vars(parser.parse_args())
    folder = RunFolder.open(given.pop("run"))
    ps, out, population, only = (given.pop(name) for name in ("ps", "out", "population", "only"))
    settings = Settings(**given)
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    try:
        reference: Reference = reference_of(folder, population)
    except ValueError as reason:
        parser.error(str(reason))
    system = folder.system()
    choices = of_run(folder, out / "export", Axis(settings.sigma))
    done: list[Metadynamics] = []
    for short, variables in choices.items():
        if only is None or short in only:
            made = simulate(
                out / f"{short}.pt", ps, system=system, variables=variables, settings=settings
            )
            done.append(made)
            print(f"{made}: {made.seconds:.0f} CPU seconds", file=sys.stderr)
    # Of one length, where some went further before
    looks = min(len(made.line) for made in done)
    found = compare({made.variables.name: made.results(looks) for made in done}, reference)
    print(markdown(found))
    content = {**found, "settings": dataclasses.asdict(settings)}
    (out / "batched.json").write_text(json.dumps(plain(content), indent=1) + "\n")
    draw(found, out / "batched.png")


if __name__ == "__main__":
    main()
