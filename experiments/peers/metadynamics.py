"""What a user would do instead: OpenMM's well-tempered metadynamics, given phi and psi.

The potential is that of gencg, without constraints. With `--hydrogen-mass 3`, which leaves
the distribution of positions as it is, steps of 3 fs are as stable as steps of 2 fs without. The
clock starts when system and context are built. Two surfaces are read at every stop: OpenMM's own,
from the bias, and the histogram of the trajectory reweighted with the bias of that moment, the
first fifth left out.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gencg
from experiments.peers.clock import Clock
from experiments.peers.surfaces import CELLS, grid_surface, sample_surface
from gencg.systems.force_fields import load_force_field
from gencg.systems.registry import FORCE_FIELDS, STRUCTURES
from gencg.systems.structure import read_structure
from gencg.units import BOLTZMANN_CONSTANT

GRID = 4 * CELLS + 1
"""Points of the bias along each torsion, four to a cell."""
GROWTH = 1.1
"""Ratio of the seconds of two stops."""
LEFT_OUT = 0.2
"""Share of the trajectory before it is reweighted."""
TARGET = "alanine-dipeptide"


class Simulation:
    """Metadynamics of phi and psi, or of other variables, on one thread.

    Args:
        molecule: Gives phi, psi and the structure to start from.
        temperature: Temperature in K.
        sigma: Width of the hills in rad.
        height: Height of the first hill in kJ/mol.
        bias_factor: Ratio of the temperature of phi and psi to that of the rest.
        stride: Time between two hills in ps.
        step: Time step in ps.
        hydrogen_mass: Mass of hydrogens in Da, taken from their heavy atoms; None for their own.
        platform: OpenMM platform.
        forcefield: Force-field files.
        seed: Seed of velocities and noise.
        variables: Bias variables of OpenMM in the place of phi and psi; `sigma` is not theirs.
        hills: Folder in which the bias is kept after every tenth hill, and found again.
    """

    def __init__(
        self,
        molecule: gencg.Molecule,
        *,
        temperature: float,
        sigma: float,
        height: float,
        bias_factor: float,
        stride: float,
        step: float,
        hydrogen_mass: float | None,
        platform: str,
        forcefield: tuple[str, ...],
        seed: int,
        variables: Sequence[Any] | None = None,
        hills: Path | None = None,
    ) -> None:
        import openmm
        from openmm import app

        topology, _ = read_structure(STRUCTURES[TARGET])
        system = load_force_field(forcefield).createSystem(
            topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False,
            hydrogenMass=hydrogen_mass,
        )  # fmt: skip
        self.frequency = round(stride / step)
        if variables is None:
            variables = [_torsion(quad, sigma) for _, quad in molecule.phi_psi()]
        self.temperature = temperature
        kept = {} if hills is None else {
            "saveFrequency": 10 * self.frequency, "biasDir": str(hills),
        }  # fmt: skip
        self._bias = app.Metadynamics(
            system, variables, temperature, bias_factor, height, self.frequency, **kept
        )
        integrator = openmm.LangevinMiddleIntegrator(temperature, 1.0, step)
        integrator.setRandomNumberSeed(seed + 1)
        properties = {"Threads": "1"} if platform == "CPU" else {}
        self._simulation = app.Simulation(
            topology, system, integrator, openmm.Platform.getPlatformByName(platform), properties
        )
        self._simulation.context.setPositions(molecule.positions)
        self._simulation.context.setVelocitiesToTemperature(temperature, seed + 1)
        self.torsions: list[Any] = []

    @property
    def calls(self) -> int:
        """Forces computed so far, one per step."""
        return int(self._simulation.currentStep)

    @property
    def potential_energy(self) -> float:
        """Energy of the present configuration in kJ/mol, bias included."""
        energy = self._simulation.context.getState(energy=True).getPotentialEnergy()
        return float(energy._value)

    def run(self, n_hills: int) -> None:
        """Go on until so many more hills are placed; phi and psi are kept at each."""
        for _ in range(n_hills):
            self._bias.step(self._simulation, self.frequency)
            self.torsions.append(self._bias.getCollectiveVariables(self._simulation))

    def surfaces(self) -> dict[str, Any]:
        """The surface of the bias and that of the reweighted trajectory, phi first."""
        free_energy = np.array(self._bias.getFreeEnergy()._value).T
        biased = -free_energy / self._ratio
        begin = int(LEFT_OUT * len(self.torsions))
        torsions = np.array(self.torsions)[begin:]
        # Points of the bias coincide at -pi and pi
        index = np.rint((torsions / np.pi + 1) / 2 * (GRID - 1)).astype(int) % (GRID - 1)
        log_weights = biased[index[:, 0], index[:, 1]] / (BOLTZMANN_CONSTANT * self.temperature)
        return {
            "bias": grid_surface(free_energy, temperature=self.temperature),
            "reweighted": sample_surface(torsions, log_weights, temperature=self.temperature),
        }

    @property
    def _ratio(self) -> float:
        """(T + dT) / dT of the well-tempered bias, F = -ratio V."""
        factor = float(self._bias.biasFactor)
        return factor / (factor - 1)


def _torsion(quad: tuple[int, ...], sigma: float) -> Any:
    import openmm
    from openmm import app

    force = openmm.CustomTorsionForce("theta")
    force.addTorsion(*quad, [])
    return app.BiasVariable(force, -np.pi, np.pi, sigma, True, gridWidth=GRID)


def record(simulation: Simulation, clock: Clock, *, seconds: float, first: float) -> dict[str, Any]:
    """Run for so many seconds; calls, seconds and surfaces at stops that grow apart."""
    stops: dict[str, list[Any]] = {"calls": [], "seconds": [], "bias": [], "reweighted": []}
    due = first
    while clock.seconds < seconds:
        simulation.run(10)
        if clock.seconds < due:
            continue
        with clock.paused():
            for name, surface in simulation.surfaces().items():
                stops[name].append(surface)
        stops["calls"].append(simulation.calls)
        stops["seconds"].append(clock.seconds)
        due = GROWTH * clock.seconds
    return {name: np.array(values) for name, values in stops.items()}


def main() -> None:
    """Run one simulation and write what it knew when."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="on one core  [%(default)g]")
    parser.add_argument("--sigma", type=float, default=0.35, help="rad  [%(default)g]")
    parser.add_argument("--height", type=float, default=1.2, help="kJ/mol  [%(default)g]")
    parser.add_argument("--bias-factor", type=float, default=10.0, help="[%(default)g]")
    parser.add_argument("--stride", type=float, default=0.501, help="ps  [%(default)g]")
    parser.add_argument("--step", type=float, default=0.003, help="ps  [%(default)g]")
    parser.add_argument("--hydrogen-mass", type=float, default=3.0, help="Da  [%(default)g]")
    parser.add_argument("--platform", default="CPU", help="[%(default)s]")
    parser.add_argument("--forcefield", nargs="+", default=[*FORCE_FIELDS[TARGET]])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="metadynamics", help="of the files  [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="[%(default)s]")
    given = parser.parse_args()
    path = given.out / f"{given.name}-{given.seed}"
    if path.with_suffix(".json").exists():
        return
    os.environ["OPENMM_CPU_THREADS"] = "1"
    given.out.mkdir(parents=True, exist_ok=True)
    system = gencg.systems.load(TARGET)
    assert system.molecule is not None
    clock = Clock()
    clock.start()
    simulation = Simulation(
        system.molecule,
        temperature=system.temperature,
        sigma=given.sigma,
        height=given.height,
        bias_factor=given.bias_factor,
        stride=given.stride,
        step=given.step,
        hydrogen_mass=given.hydrogen_mass,
        platform=given.platform,
        forcefield=tuple(given.forcefield),
        seed=given.seed,
    )
    stops = record(simulation, clock, seconds=given.seconds, first=given.seconds / 200)
    np.savez(path.with_suffix(".npz"), torsions=np.array(simulation.torsions), **stops)
    settings = {name: str(value) for name, value in vars(given).items()}
    found = {
        "calls": simulation.calls,
        "seconds": clock.seconds,
        "calls_per_second": simulation.calls / clock.seconds,
        "simulated_ns": simulation.calls * given.step / 1000,
        "settings": settings,
    }
    path.with_suffix(".json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
