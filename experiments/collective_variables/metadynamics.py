"""Metadynamics of the data-free CVs of a run, and of phi and psi, in OpenMM.

Both are well-tempered, with the same hills in the same force field and of the same length, several
seeds each. Compared are the free energies of 0 < phi < 126 degrees (alpha_L and C7ax) over the rest
and of alpha_R over the extended structures, from the trajectory reweighted by the bias of that
moment, its first fifth left out: from when on are they within a tolerance of the reference? The CVs
are asked to be there no later than 1.5 times what phi and psi take (`comparison`). What is done is
kept in the folder given, and a killed simulation goes on. `batched` runs many replicas at once.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import gencg
from experiments.collective_variables.comparison import (
    BLOCK,
    PER_HILL,
    compare,
    markdown,
    plain,
    reference_of,
)
from experiments.collective_variables.crossings import crossings, differences
from experiments.collective_variables.variables import exported
from experiments.peers.metadynamics import LEFT_OUT, Simulation
from gencg.analysis import torsion_angles
from gencg.export import openmm_cv
from gencg.run import RunFolder

Array = NDArray[np.float64]


class Biased(Simulation):
    """Metadynamics that keeps its variables, phi and psi, and goes on after a kill.

    Hills of the last block before a kill may be in the bias twice.

    Args:
        folder: Where; begun or gone on with.
        **given: Of `Simulation`.

    Raises:
        ValueError: If the steps between two hills cannot be divided by `PER_HILL`.
    """

    def __init__(self, folder: Path, **given: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(**given, hills=folder)
        if self.frequency % PER_HILL:
            raise ValueError(
                f"`stride` must be a multiple of {PER_HILL} steps, got {self.frequency} steps"
            )
        self.folder = folder
        self.quads = [quad for _, quad in given["molecule"].phi_psi()]
        self.step = given["step"]
        self.seen: dict[str, list[Any]] = {"variables": [], "angles": []}
        self.line: list[list[float]] = []
        if (folder / "samples.npz").exists():
            with np.load(folder / "samples.npz") as file:
                self.seen = {name: list(file[name]) for name in self.seen}
                self.line = file["line"].tolist()
            self._simulation.loadState(str(folder / "state.xml"))

    @property
    def picoseconds(self) -> float:
        """Simulated time."""
        return self.calls * self.step

    def run(self, n_hills: int) -> None:
        for _ in range(n_hills * PER_HILL):
            self._bias.step(self._simulation, self.frequency // PER_HILL)
            x = self._simulation.context.getState(positions=True).getPositions(asNumpy=True)
            self.seen["angles"].append(torsion_angles(x._value[None], self.quads)[0])
            self.seen["variables"].append(self._bias.getCollectiveVariables(self._simulation))

    def block(self) -> None:
        """Hills, a look at the free energy, and a checkpoint."""
        self.run(BLOCK)
        self.line.append([self.picoseconds, *self.differences().values()])
        kept = {name: np.array(values) for name, values in self.seen.items()}
        draft = self.folder / "draft.npz"
        np.savez(draft, line=self.line, **kept)
        self._simulation.saveState(str(self.folder / "state.xml"))
        draft.replace(self.folder / "samples.npz")

    def differences(self) -> dict[str, float]:
        """Free-energy differences in kJ/mol by the trajectory so far, weighted as of now."""
        begin = int(LEFT_OUT * len(self.seen["angles"]))
        angles = np.array(self.seen["angles"][begin:])
        log_weights = self.log_weights(np.array(self.seen["variables"][begin:]))
        return differences(angles, log_weights, temperature=self.temperature)

    def log_weights(self, z: Array) -> Array:
        r""":math:`\beta V(z)` of the present bias at variables ``(n, d)``, at the nearest point."""
        # Axes of OpenMM's grid are the variables in reverse
        bias = -np.array(self._bias.getFreeEnergy()._value).T / self._ratio
        index = []
        for column, variable in zip(z.T, self._bias.variables, strict=True):
            share = (column - variable.minValue) / (variable.maxValue - variable.minValue)
            n = variable.gridWidth - 1
            at = np.rint(share * n).astype(int)
            index.append(at % n if variable.periodic else np.clip(at, 0, n))
        kt = gencg.units.BOLTZMANN_CONSTANT * self.temperature
        return np.asarray(bias[tuple(index)] / kt)

    def result(self) -> dict[str, Any]:
        """Numbers of the simulation so far."""
        times, *courses = np.array(self.line).T.tolist()
        return {
            "ps": self.picoseconds,
            "crossings": crossings(np.array(self.seen["angles"])[:, 0]),
            "times": times,
            **dict(zip(self.differences(), courses, strict=True)),
        }


def simulate(folder: Path, ps: float, **given: Any) -> dict[str, Any]:
    """Metadynamics up to a length; what is in the folder counts."""
    biased = Biased(folder, **given)
    block = BLOCK * biased.frequency * biased.step
    total = round(ps / block)
    with tqdm(
        total=total, initial=len(biased.line), desc=folder.name, file=sys.stderr, mininterval=30
    ) as bar:
        while len(biased.line) < total:
            biased.block()
            bar.update()
    return biased.result()


def main() -> None:
    """Simulate what is missing, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="finished run of alanine-dipeptide with CVs")
    parser.add_argument("--ps", type=float, default=1000, help="of each  [%(default)g]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--population", type=float, help="of alpha_L  [of the reference's file]")
    parser.add_argument("--sigma", type=float, default=0.35, help="rad  [%(default)g]")
    parser.add_argument("--height", type=float, default=1.2, help="kJ/mol  [%(default)g]")
    parser.add_argument("--bias-factor", type=float, default=10.0, help="[%(default)g]")
    parser.add_argument("--stride", type=float, default=0.5, help="ps  [%(default)g]")
    parser.add_argument("--step", type=float, default=0.001, help="ps  [%(default)g]")
    parser.add_argument("--hydrogen-mass", type=float, help="Da  [their own]")
    parser.add_argument("--platform", default="CPU", help="[%(default)s]")
    parser.add_argument("--out", type=Path, required=True, help="folder, outside of a repository")
    given = parser.parse_args()
    os.environ["OPENMM_CPU_THREADS"] = "1"
    torch.set_num_threads(1)
    folder = RunFolder.open(given.run)
    try:
        reference = reference_of(folder, given.population)
    except ValueError as reason:
        parser.error(str(reason))
    system = folder.system()
    assert system.molecule is not None
    temperature = folder.config.temperature or system.temperature
    shared = {
        "molecule": system.molecule,
        "temperature": temperature,
        "sigma": given.sigma,
        "height": given.height,
        "bias_factor": given.bias_factor,
        "stride": given.stride,
        "step": given.step,
        "hydrogen_mass": given.hydrogen_mass,
        "platform": given.platform,
        "forcefield": tuple(folder.config.forcefield),
    }
    file = exported(given.run, given.out / "export")
    results: dict[str, list[dict[str, Any]]] = {given.run.name: [], "phi, psi": []}
    for seed in given.seeds:
        for name, short in ((given.run.name, "cvs"), ("phi, psi", "phi_psi")):
            variables = None
            if short == "cvs":
                n_atoms = system.molecule.n_atoms
                variables = openmm_cv.bias_variables(file, n_atoms=n_atoms)
            where = given.out / f"{short}-{seed}"
            results[name].append(
                simulate(where, given.ps, **shared, seed=seed, variables=variables)
            )
    found = compare(results, reference)
    print(markdown(found))
    settings = {name: str(value) for name, value in vars(given).items()}
    content = plain(found | {"settings": settings, "lines": results})
    (given.out / "metadynamics.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
