"""Energies and gradients per second: batched `ForceField` against OpenMM, one thread.

Both evaluate the same System at the same perturbed structures in one process: `ForceField` in
float32 and float64, compiled; OpenMM configuration by configuration on its Reference (double
precision) and CPU (single precision) platforms, setPositions and getState included, because a
sampler pays for them too. Every variant is warmed up first (compilation is not timed) and the best
of several repeats counts. Before timing, float64 energies are checked against Reference to
1e-5 relative: a faster wrong number is no speed.

How OpenMM holds the solvent decides its time: ``implicit/*.xml`` arrives as a CustomGBForce, which
it interprets, ``amber96_obc.xml`` as its native GBSAOBCForce. The molecules called native are there
so that the ratio is also taken against OpenMM at its fastest; the table names the forces.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import openmm
import torch

from gencg import systems
from gencg.energies.openmm import energy_from_system
from gencg.systems.force_fields import create_system, load_force_field
from gencg.systems.structure import read_structure

ROOT = Path(__file__).parents[2]
MOLECULES = {
    "dipeptide": (
        Path(systems.__file__).parent / "data" / "alanine_dipeptide.pdb",
        ("amber96.xml", "implicit/obc1.xml"),
    ),
    "dipeptide-native": (
        Path(systems.__file__).parent / "data" / "alanine_dipeptide.pdb",
        ("amber96.xml", "amber96_obc.xml"),
    ),
    "pentapeptide": (
        ROOT / "tests" / "data" / "pentapeptide.pdb",
        ("amber14-all.xml", "implicit/obc2.xml"),
    ),
    "pentapeptide-native": (
        ROOT / "tests" / "data" / "pentapeptide.pdb",
        ("amber99sbildn.xml", "amber99_obc.xml"),
    ),
}
BATCHES = (1, 4, 16, 64, 256, 1024, 4096)


def best_seconds(call: Callable[[], Any], *, repeats: int, least: float) -> float:
    """Shortest wall time of a call in seconds, each repeat long enough to be measured."""
    call()
    started = time.perf_counter()
    call()
    times = max(1, int(least / max(time.perf_counter() - started, 1e-9)))
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(times):
            call()
        found.append((time.perf_counter() - started) / times)
    return min(found)


def context_of(system: Any, platform: str) -> Any:
    """A context on a platform, on one thread."""
    chosen = openmm.Platform.getPlatformByName(platform)
    settings = {"Threads": "1"} if platform == "CPU" else {}
    return openmm.Context(system, openmm.VerletIntegrator(0.001), chosen, settings)


def openmm_seconds(system: Any, x: torch.Tensor, platform: str, **timing: Any) -> float:
    """Seconds per energy and gradient of OpenMM."""
    context, frames = context_of(system, platform), x.double().numpy()[:64]

    def call() -> None:
        for frame in frames:
            context.setPositions(frame)
            state = context.getState(energy=True, forces=True)
            state.getPotentialEnergy(), state.getForces(asNumpy=True)

    return best_seconds(call, **timing) / len(frames)


def check(system: Any, energy: Any, x: torch.Tensor) -> None:
    """Refuse to time energies that differ."""
    context = context_of(system, "Reference")
    for frame, value in zip(x[:4], energy(x[:4]).tolist(), strict=True):
        context.setPositions(frame.numpy())
        reference = context.getState(energy=True).getPotentialEnergy()._value
        assert abs(value - reference) <= 1e-5 * max(abs(reference), 1.0), (value, reference)


def benchmark(name: str, batches: tuple[int, ...], **timing: Any) -> None:
    """Print the table of one molecule."""
    path, forcefield = MOLECULES[name]
    topology, positions = read_structure(path)
    system = create_system(load_force_field(forcefield), topology, source=str(path))
    energy = energy_from_system(system)
    noise = torch.randn(max(batches), *positions.shape, dtype=torch.float64)
    x = torch.as_tensor(np.asarray(positions), dtype=torch.float64) + 0.002 * noise
    check(system, energy, x)
    reference, cpu = (openmm_seconds(system, x, p, **timing) for p in ("Reference", "CPU"))
    print(f"{name}, {len(positions)} atoms, {' + '.join(forcefield)}")
    print("forces:", ", ".join(force.getName() for force in system.getForces()))
    print(f"OpenMM Reference {1e6 * reference:.1f} us, CPU {1e6 * cpu:.1f} us each\n")
    print("| batch | dtype | us each | per second | times Reference | times CPU |")
    print("|---|---|---|---|---|---|")
    for n in batches:
        for dtype in (torch.float32, torch.float64):
            part = x[:n].to(dtype)
            each = best_seconds(lambda part=part: energy.energy_and_gradient(part), **timing) / n
            kind = str(dtype).removeprefix("torch.")
            print(
                f"| {n} | {kind} | {1e6 * each:.1f} | {1 / each:.3g} | {reference / each:.2f} | "
                f"{cpu / each:.2f} |",
                flush=True,
            )
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--molecules", nargs="+", choices=MOLECULES, default=list(MOLECULES))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="least time of a repeat")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for molecule in given.molecules:
        benchmark(molecule, tuple(given.batches), repeats=given.repeats, least=given.seconds)
