"""How flow, placement and energy grow with the molecule: ACE-(ALA)n-NME of 22 to 302 atoms.

Per sample: CPU seconds on one thread, drawn alone and in a training step (value and gradient), the
least of several repeats, and the peak memory of a training step. The peak is that of a forked
process; from one batch to a larger one it grows by the samples alone. "full" is the flow without
windows, every coordinate seeing all; neither sees contacts. Steps multiply matrices in bfloat16
where training does.

The exponent a of t = c n^a is fitted to the logarithms from 102 atoms on, where both blocks of the
flow have windows. The energy visits all pairs of atoms and is quadratic: no cut is made, so that it
stays exact.
"""

import argparse
import ctypes
import os
import resource
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mdtraj
import numpy as np
import torch

from experiments.benchmarks.peptides import polyalanine
from gencg.coordinates.internal import InternalCoordinates
from gencg.distributions.networks import products_in
from gencg.energies.openmm import minimise, read_system
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import DEFAULT_LOCALITY, SplineDecoder
from gencg.molecule import Molecule
from gencg.objectives.reverse_kl import ReverseKL
from gencg.systems.assembly import MAX_BARRIER, stiff_by_barrier
from gencg.systems.force_fields import create_system, load_force_field
from gencg.systems.molecules import PEPTIDE_FORCE_FIELD
from gencg.target import BoltzmannTarget
from gencg.training import Optimisation

RESIDUES = (1, 3, 5, 9, 14, 19, 29)
FITTED_FROM = 102
MEMORY_ATOMS = 150_000
FLOWS = {"local": DEFAULT_LOCALITY, "full": None}
COLUMNS = (
    "parameters, 1e6",
    "memory of a step, MB",
    "flow drawn, ms",
    "flow in a step, ms",
    "placement in a step, ms",
    "energy in a step, ms",
    "whole step, ms",
)


def build(n_residues: int) -> BoltzmannTarget:
    """Boltzmann density of a chain, its structure relaxed a little."""
    topology, positions = polyalanine(n_residues)
    system = create_system(load_force_field(PEPTIDE_FORCE_FIELD), topology, source="poly-alanine")
    energy = read_system(system)
    relaxed = minimise(system, positions, tolerance=10, max_iterations=100)
    molecule = Molecule(mdtraj.Topology.from_openmm(topology), np.asarray(relaxed))
    stiff = stiff_by_barrier(energy, molecule, MAX_BARRIER)
    return BoltzmannTarget(energy, InternalCoordinates(molecule, stiff_bonds=stiff), 300.0)


def cpu_seconds(function: Callable[[], object], *, repeats: int) -> float:
    """Least CPU time of one call, after one to warm up."""
    function()
    found = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        found.append(time.process_time() - started)
    return min(found)


def peak_megabytes(function: Callable[[], object]) -> float:
    """Peak memory of a process of its own that calls a function."""
    # What this process has freed goes back first: the child would use it again
    ctypes.CDLL(None).malloc_trim(0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        function()
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(write, str(kilobytes).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return int(pipe.read()) / 1024


def measure(
    target: BoltzmannTarget, model: CoarseGrainedModel, n: int, repeats: int
) -> list[float]:
    """The columns of the table, all but the first per sample."""
    rows, products = model.rows(n), Optimisation().products(next(model.parameters()))
    y0 = model.decoder(rows).rsample().detach()
    x0 = target.coordinates.inverse(y0)[0].detach()

    def step(objective: ReverseKL) -> None:
        model.zero_grad(set_to_none=True)
        with products_in(products):
            loss = objective.evaluate(model, target.beta).loss
        loss.backward()

    @torch.no_grad()
    def draw() -> None:
        model.decoder(rows).sample()

    def flow() -> None:
        with products_in(products):
            y, score, _ = model.decoder(rows).rsample_with_score()
        (y * score).sum().backward()

    def placement() -> None:
        x, log_det = target.coordinates.inverse(y0.clone().requires_grad_())
        (x.sum() + log_det.sum()).backward()

    def energy() -> None:
        target.energy(x0.clone().requires_grad_()).sum().backward()

    more = MEMORY_ATOMS // target.energy.event_shape[0]
    batches = [ReverseKL(target, n_samples=k) for k in (n, n + more)]
    peaks = [peak_megabytes(lambda batch=batch: step(batch)) for batch in batches]
    objective = ReverseKL(target, n_samples=n)
    calls = (draw, flow, placement, energy, lambda: step(objective))
    seconds = [cpu_seconds(call, repeats=repeats) for call in calls]
    n_parameters = sum(p.numel() for p in model.parameters())
    return [n_parameters / 1e6, (peaks[1] - peaks[0]) / more, *(1e3 * s / n for s in seconds)]


def exponent(n_atoms: list[int], values: list[float]) -> float:
    """Slope of log value over log n, from `FITTED_FROM` atoms on."""
    chosen = [i for i, n in enumerate(n_atoms) if n >= FITTED_FROM]
    x, y = (np.log([row[i] for i in chosen]) for row in (n_atoms, values))
    return float(np.polyfit(x, y, 1)[0])


def main(arguments: Any) -> None:
    """Print a row per chain and flow, and the exponents."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found: dict[str, list[list[float]]] = {name: [] for name in FLOWS}
    n_atoms = [12 + 10 * n for n in arguments.residues]
    print(f"| atoms | flow | {' | '.join(COLUMNS)} | energy's share |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for n, residues in zip(n_atoms, arguments.residues, strict=True):
        target = build(residues)
        for name, locality in FLOWS.items():
            model = CoarseGrainedModel(
                SplineDecoder(target.coordinates, locality=locality, contacts=False)
            )
            row = measure(target, model, arguments.batch_size, arguments.repeats)
            found[name].append(row)
            share = f"{100 * row[5] / row[6]:.0f} %"
            print(f"| {n} | {name} | {' | '.join(f'{v:.3g}' for v in row)} | {share} |", flush=True)
    if sum(n >= FITTED_FROM for n in n_atoms) > 1:
        for name, rows in found.items():
            fits = " | ".join(f"{exponent(n_atoms, list(c)):.2f}" for c in zip(*rows, strict=True))
            print(f"| exponent | {name} | {fits} | |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--residues", nargs="+", type=int, default=RESIDUES)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    main(parser.parse_args())
