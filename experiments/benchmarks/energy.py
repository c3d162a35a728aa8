"""Energies and gradients per second and core: batched `ForceField` against OpenMM.

ACE-(ALA)n-NME in vacuum and three implicit solvents; `ForceField` in float32 and, for the largest
batch, float64, against the better of OpenMM's Reference (double) and CPU (single precision, one
thread) platforms, setPositions and getState included, because a sampler pays for them too.

All are timed in turn within one process, several rounds of them, and the shortest *CPU* time of all
rounds counts: other work on the machine lengthens wall time, and hits neighbours in a round alike.
Warm-up and compilation are not timed. Before timing, float64 energies are held against Reference.

How OpenMM holds the solvent decides its time: ``implicit/*.xml`` arrives as a CustomGBForce, which
it interprets, ``amber96_obc.xml`` as its native GBSAOBCForce. "obc native" is the fair ratio.

The roofline: operations of one energy and gradient, counted in ``native.cpp`` (additions,
multiplications, comparisons, selections, divisions and roots one each), over the multiply-adds per
second that the same vectors reach (``peak.cpp``). No force field reaches 1, since it is not made of
multiply-adds alone.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import openmm
import torch

from experiments.benchmarks.peptides import polyalanine
from gencg.energies.forcefield import ForceField
from gencg.energies.openmm import minimise, read_system
from gencg.native import load_library
from gencg.systems.force_fields import create_system, load_force_field

RESIDUES = {22: 1, 42: 3, 62: 5, 152: 14, 302: 29}
SOLVENTS = {
    "vacuum": ("amber96.xml",),
    "obc native": ("amber96.xml", "amber96_obc.xml"),
    "obc1": ("amber96.xml", "implicit/obc1.xml"),
    "gbn2": ("amber96.xml", "implicit/gbn2.xml"),
}
BATCHES = (1, 16, 128, 1024, 8192)

# Operations of an energy and gradient, by row and by pair, as they stand in native.cpp
OPERATIONS = {"bonds": 29, "angles": 135, "torsions": 203}
PAIR, BORN_PAIR, NECK = 40, 230, 40
PEAKS = ("multiply_adds", "inverse_roots", "exponentials", "logarithms")


def build(n_atoms: int, solvent: str) -> tuple[Any, torch.Tensor]:
    """System and relaxed positions ``(n_atoms, 3)`` of a chain."""
    topology, positions = polyalanine(RESIDUES[n_atoms])
    system = create_system(load_force_field(SOLVENTS[solvent]), topology, source="poly-alanine")
    return system, torch.as_tensor(minimise(system, positions, tolerance=10, max_iterations=100))


def distorted(x: torch.Tensor, n: int, dtype: torch.dtype) -> torch.Tensor:
    """Batch of n structures with 0.002 nm of noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, *x.shape, generator=generator, dtype=dtype)
    return x.to(dtype) + 0.002 * noise


def openmm_call(system: Any, frames: Any, platform: str) -> Callable[[], list[float]]:
    """Energies and forces of some frames by OpenMM, on one thread."""
    settings = {"Threads": "1"} if platform == "CPU" else {}
    chosen = openmm.Platform.getPlatform(platform)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), chosen, settings)

    def call() -> list[float]:
        values = []
        for frame in frames:
            context.setPositions(frame)
            state = context.getState(energy=True, forces=True)
            state.getForces(asNumpy=True)
            values.append(state.getPotentialEnergy()._value)
        return values

    return call


def least_seconds(
    calls: dict[str, Callable[[], Any]], *, rounds: int, least: float
) -> dict[str, float]:
    """Shortest CPU seconds of each call over rounds in which all take turns."""
    for call in calls.values():
        call()
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            spent = 0.0
            while spent < least:
                started = time.process_time()
                call()
                taken = time.process_time() - started
                found[name], spent = min(found[name], taken), spent + max(taken, 1e-6)
    return found


def operations(energy: ForceField, solvent: str) -> int:
    """Operations of one energy and gradient."""
    n_atoms = energy.event_shape[0]
    rows = sum(n * len(energy.modules[name].atoms) for name, n in OPERATIONS.items())
    pair = PAIR if solvent == "vacuum" else BORN_PAIR + NECK * (solvent == "gbn2")
    return rows + pair * n_atoms * (n_atoms - 1) // 2


def measured_peaks(*, rounds: int, n: int = 1_000_000) -> dict[str, float]:
    """Operations per second of one core in float32; a multiply-add counts as two."""
    library = load_library(Path(__file__).with_name("peak.cpp"))
    calls = {name: lambda name=name: getattr(library, name)(ctypes.c_int64(n)) for name in PEAKS}
    seconds = least_seconds(calls, rounds=rounds, least=0.05)
    each = 12 * n * library.lanes_float32()
    return {name: each * (2 if name == "multiply_adds" else 1) / seconds[name] for name in PEAKS}


def benchmark(
    n_atoms: int, solvent: str, batches: list[int], *, peak: float, rounds: int, least: float
) -> None:
    """Print the rows of one molecule in one solvent."""
    system, x = build(n_atoms, solvent)
    energy = read_system(system)
    frames = distorted(x, max(1, 200 // n_atoms), torch.float64)
    calls: dict[str, Callable[[], Any]] = {
        platform: openmm_call(system, frames.numpy(), platform) for platform in ("Reference", "CPU")
    }
    reference = torch.tensor(calls["Reference"](), dtype=torch.float64)
    assert torch.allclose(energy(frames), reference, rtol=1e-8, atol=1e-5), "another energy"
    cases = [(n, torch.float32) for n in batches] + [(max(batches), torch.float64)]
    for n, dtype in cases:
        part = distorted(x, n, dtype)
        calls[f"{n} {dtype}"] = lambda part=part: energy.energy_and_gradient(part)
    seconds = least_seconds(calls, rounds=rounds, least=least)
    theirs = {p: seconds[p] / len(frames) for p in ("Reference", "CPU")}
    best = min(theirs.values())
    for n, dtype in cases:
        each = seconds[f"{n} {dtype}"] / n
        share = operations(energy, solvent) / each / peak
        print(
            f"| {n_atoms} | {solvent} | {n} | {str(dtype).removeprefix('torch.')} "
            f"| {1e6 * each:.2f} | {1 / each:.3g} "
            f"| {1e6 * theirs['Reference']:.0f} | {1e6 * theirs['CPU']:.0f} | {best / each:.1f} "
            f"| {share:.2f} |",
            flush=True,
        )


def resident(kind: str) -> float:
    """Resident memory of this process in MB: ``VmRSS`` now, ``VmHWM`` its peak (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(status[kind].split()[0]) / 1e3


def memory(n_atoms: int, solvent: str, batch: int) -> None:
    """Print the memory of an evaluation beyond its input, in MB."""
    system, x = build(n_atoms, solvent)
    energy, batch_x = read_system(system), distorted(x, batch, torch.float32)
    energy.energy_and_gradient(batch_x[:1])
    # Linux: the peak starts again from what is resident now
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    value, gradient = energy.energy_and_gradient(batch_x)
    grown, output = resident("VmHWM") - before, (value.nbytes + gradient.nbytes) / 1e6
    print(f"| {n_atoms} | {solvent} | {batch} | {grown:.1f} | {output:.1f} |", flush=True)


def accuracy(n_atoms: int, solvent: str) -> None:
    """Print what float32 changes, at positions which both can hold."""
    system, x = build(n_atoms, solvent)
    energy, single = read_system(system), distorted(x, 256, torch.float32)
    value, gradient = energy.energy_and_gradient(single)
    exact, exact_gradient = energy.energy_and_gradient(single.double())
    error = value.double() - exact
    relative = (gradient - exact_gradient).norm() / exact_gradient.norm()
    print(
        f"| {n_atoms} | {solvent} | {exact.mean():.0f} | {error.mean():.1e} | {error.std():.1e} "
        f"| {relative:.1e} |",
        flush=True,
    )


def main(arguments: argparse.Namespace) -> None:
    """All tables in one run."""
    peaks = measured_peaks(rounds=arguments.rounds)
    print("one core, float32, 1e9 per second:", end=" ")
    print(", ".join(f"{name} {value / 1e9:.1f}" for name, value in peaks.items()), end="\n\n")
    print("| atoms | solvent | batch | dtype | us each | per second | Reference us | CPU us "
          "| times OpenMM's best | share of peak |\n" + "|---" * 10 + "|")  # fmt: skip
    for n_atoms in arguments.atoms:
        for solvent in arguments.solvents:
            benchmark(
                n_atoms, solvent, arguments.batches, peak=peaks["multiply_adds"],
                rounds=arguments.rounds, least=arguments.seconds,
            )  # fmt: skip
    print(
        "\n| atoms | solvent | batch | peak MB beyond the input | of it output |\n"
        + "|---" * 5
        + "|"
    )
    for n_atoms in (min(arguments.atoms), max(arguments.atoms)):
        for batch in arguments.batches[-2:]:
            # Each in a process of its own: the peak of a process never falls
            command = [sys.executable, "-m", "experiments.benchmarks.energy", "--memory"]
            subprocess.run([*command, f"{n_atoms}", "gbn2", f"{batch}"], check=True)
    print(
        "\n| atoms | solvent | energy | error of float32: mean | s.d. | force, relative |\n"
        + "|---" * 6
        + "|"
    )
    for n_atoms in arguments.atoms:
        accuracy(n_atoms, arguments.solvents[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--atoms", nargs="+", type=int, choices=RESIDUES, default=list(RESIDUES))
    parser.add_argument("--solvents", nargs="+", choices=SOLVENTS, default=list(SOLVENTS))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="least time of a round")
    parser.add_argument("--memory", nargs=3, metavar=("ATOMS", "SOLVENT", "BATCH"),
                        help="only the memory of one evaluation")  # fmt: skip
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        memory(int(given.memory[0]), given.memory[1], int(given.memory[2]))
    else:
        main(given)
