"""What few heavy samples make of the ESS: with weights cut, and without the heaviest.

python -m experiments.peptides.weights alanine-hexapeptide
python -m experiments.peptides.weights runs/a runs/b --seeds 11 12

A line for each seed and generator, one that comes with gencg or that of a run.
"""

import argparse
from typing import Any

import torch
from torch import Tensor

import gencg
from gencg import pretrained
from gencg.fit import FitResult
from gencg.importance import effective_sample_size, truncated
from gencg.run import RunFolder, trained

CUT = 10.0
"""Weights are cut at this factor of their mean."""
WITHOUT = (1, 3, 10, 30)
"""How many of the heaviest are left out."""


def cut_ess(log_weights: Tensor, *, largest: float = CUT) -> float:
    """ESS with weights cut at a factor of their mean."""
    return float(effective_sample_size(truncated(log_weights, largest=largest).log()))


def tail(log_weights: Tensor) -> dict[str, Any]:
    """ESS as it is, with weights cut at ten, and without the heaviest samples."""
    heaviest_last = log_weights.sort().values
    left_out = {n: float(effective_sample_size(heaviest_last[:-n])) for n in WITHOUT}
    ess = float(effective_sample_size(log_weights))
    return {"ess": ess, "cut": cut_ess(log_weights), "without": left_out}


def generator(name: str) -> FitResult:
    """One that comes with gencg, or that of a run folder."""
    if name in pretrained.names():
        return pretrained.load(name)
    folder = RunFolder.open(name)
    return trained(folder.system(), folder)


def main() -> None:
    """Draw, and print the lines and the mean of each generator."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("generators", nargs="+", help="names of such that come with gencg, or runs")
    parser.add_argument("--samples", type=float, default=1e5, help="for each seed  [1e5]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13], help="[11 12 13]")
    given = parser.parse_args()
    for name in given.generators:
        result = generator(name)
        found = []
        for seed in given.seeds:
            ensemble = gencg.draw(
                result.model, result.target, int(given.samples),
                molecule=result.system.molecule, seed=seed,
            )  # fmt: skip
            numbers = tail(ensemble.log_weights)
            found.append(numbers["ess"])
            without = ", ".join(f"{n}: {ess:.3f}" for n, ess in numbers["without"].items())
            print(
                f"{name}, seed {seed}: ESS {numbers['ess']:.3f}, cut at ten {numbers['cut']:.3f}, "
                f"without the heaviest {without}",
                flush=True,
            )
        if len(found) > 1:
            ess = torch.tensor(found)
            error = float(ess.std()) / len(ess) ** 0.5
            print(f"{name}: {float(ess.mean()):.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
