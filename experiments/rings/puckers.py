"""Puckers of the rings of a run against replica-exchange dynamics of our own.

A pucker is the pattern of signs of a ring's torsions, up to where the ring begins and which way
round it goes: for six atoms that tells chairs from twist-boats and boats. Torsions below 15
degrees have no sign.
"""

import argparse
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.rings.dynamics import ReplicaExchange
from gencg.coordinates.symmetry import shortest_ring
from gencg.export.trajectory import read_samples
from gencg.geometry import dihedrals
from gencg.molecule import Molecule
from gencg.run import RunFolder

FLAT = math.radians(15.0)


def rings(molecule: Molecule) -> list[list[int]]:
    """The shortest ring through each bond, once each."""
    found: dict[frozenset[int], list[int]] = {}
    for i, j in molecule.bonds[molecule.ring_bonds].tolist():
        ring = shortest_ring(molecule, i, j)
        found.setdefault(frozenset(ring), ring)
    return list(found.values())


def puckers(x: Tensor, ring: list[int]) -> list[str]:
    """Signs of the torsions along a ring of each configuration, such as "+-+-+-"."""
    n = len(ring)
    quads = torch.tensor([[ring[(i + k) % n] for k in range(4)] for i in range(n)])
    torsion = dihedrals(x, quads)
    signs = torch.where(torsion.abs() < FLAT, 0, torsion.sign()).long().tolist()
    letters = {1: "+", -1: "-", 0: "0"}
    return ["".join(letters[s] for s in row) for row in signs]


def alike(pattern: str) -> str:
    """The first of the patterns that a turn or a reversal of the ring makes of this one."""
    turns = [pattern[k:] + pattern[:k] for k in range(len(pattern))]
    return min(turn for each in turns for turn in (each, each[::-1]))


def main() -> None:
    """Read a run, simulate, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run folder")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--ladders", type=int, default=64)
    parser.add_argument("--rungs", type=int, default=6)
    parser.add_argument("--hottest", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    given = parser.parse_args()
    folder = RunFolder.open(given.run)
    system = folder.system()
    molecule = system.molecule
    if molecule is None:
        parser.error(f"{given.run} is a toy")
    ensemble = read_samples(given.run / "samples.h5")
    ladder = np.geomspace(ensemble.temperature, given.hottest, given.rungs).tolist()
    dynamics = ReplicaExchange(
        system.energy,
        torch.as_tensor(molecule.positions),
        torch.as_tensor(molecule.masses),
        temperatures=ladder,
        n_ladders=given.ladders,
        seed=given.seed,
    )
    every = rings(molecule)
    found: list[list[Counter[str]]] = [[Counter() for _ in range(given.ladders)] for _ in every]
    read = 0
    for n, x in enumerate(dynamics.run(60 * given.minutes)):
        # A hundred exchanges, 5 ps, to settle
        if n < 100:
            continue
        read += 1
        for counts, ring in zip(found, every, strict=True):
            for count, pattern in zip(counts, puckers(x, ring), strict=True):
                count[alike(pattern)] += 1
    result = []
    for counts, ring in zip(found, every, strict=True):
        own = np.array([alike(p) for p in puckers(ensemble.x, ring)])
        weights = ensemble.weights.numpy()
        total = Counter()
        for count in counts:
            total.update(count)
        rows = {}
        for pattern, _ in total.most_common(6):
            share = np.array([count[pattern] / read for count in counts])
            inside = own == pattern
            p = float(weights[inside].sum())
            error = math.sqrt(float((weights**2 * (inside - p) ** 2).sum()))
            rows[pattern] = {
                "dynamics": float(share.mean()),
                "dynamics_error": float(share.std(ddof=1) / math.sqrt(len(share))),
                "raw": float(inside.mean()),
                "reweighted": p,
                "reweighted_error": error,
            }
        result.append({"ring": [molecule.names[k] for k in ring], "puckers": rows})
        print("-".join(molecule.names[k] for k in ring))
        for pattern, row in rows.items():
            print(
                f"  {pattern:>8}  dynamics {100 * row['dynamics']:.3f} ± "
                f"{100 * row['dynamics_error']:.3f} %, gencg {100 * row['reweighted']:.3f} ± "
                f"{100 * row['reweighted_error']:.3f} % (raw {100 * row['raw']:.3f} %)"
            )
    about = {
        "run": str(given.run), "n_calls": dynamics.n_calls, "exchanges_read": read,
        "swapped": dynamics.n_swapped / max(dynamics.n_tried, 1), "temperatures": ladder,
        "ps_per_ladder": (100 + read) * dynamics.exchange_every * dynamics.time_step,
    }  # fmt: skip
    print(json.dumps(about))
    if given.out:
        given.out.write_text(json.dumps({"about": about, "rings": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
