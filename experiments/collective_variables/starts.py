"""Where long dynamics begin: equilibrium by parallel tempering, one ladder for each replica."""

import sys

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.peptides.parallel_tempering import ParallelTempering
from gencg.systems import System


def equilibrium(
    system: System,
    n_replicas: int,
    *,
    rungs: int,
    hottest: float = 1000.0,
    tune: int = 280,
    sweeps: int = 1000,
    seed: int = 0,
) -> Tensor:
    """Configurations at the system's temperature, ``(n_replicas, n_atoms, 3)`` in nm.

    Nothing of a generator is in them: half of the ladders of `ParallelTempering` begin at the
    reference structure, half at random torsions, and one configuration is taken of each.

    Args:
        system: A molecule in internal coordinates.
        n_replicas: Number of ladders.
        rungs: Temperatures up to `hottest`, in K.
        hottest: The highest.
        tune: Sweeps in which masses, steps and temperatures are chosen.
        sweeps: Sweeps after that. In the reference of alanine dipeptide (`experiments.peptides`) a
            ladder goes up and down once in 26.
        seed: Of all that is random.
    """
    ladder = np.geomspace(system.temperature, hottest, rungs).tolist()
    sampler = ParallelTempering(system, ladder, n_ladders=n_replicas, n_steps=3, seed=seed)
    sampler.tune(tune)
    for _ in tqdm(range(sweeps), desc="parallel tempering", file=sys.stderr, mininterval=10):
        sampler.sweep()
    with torch.no_grad():
        x, _ = system.coordinates.inverse(sampler.replicas.y[0])
    return x
