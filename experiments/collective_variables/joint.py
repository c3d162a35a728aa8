"""What the joint model loses against its generator, by how prior and soft decoder are fitted.

Fits them once with the options given and prints, and adds to ``joint.jsonl`` in the folder given:
the divergence left in kT, the ESS of the joint model's own soft coordinates with the generator as
the target (about the ratio of the joint to the all-atom ESS), both of those on samples with
energies, the bound gap, and CPU seconds. Stiff coordinates stay as they are.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from gencg import draw, pretrained
from gencg.checkpoint import load_checkpoint
from gencg.discover import restore_slow
from gencg.discover.refit import refit_soft, soft_ess
from gencg.fit import FitResult
from gencg.models.collective import collective_model
from gencg.models.cv_map import CollectiveMap
from gencg.objectives.bound_gap import bound_gap
from gencg.run import RunFolder, trained


def generator_of(name: str) -> tuple[FitResult, RunFolder | None]:
    """A generator that comes with gencg, or that of a run and its folder."""
    if name in pretrained.names():
        return pretrained.load(name), None
    folder = RunFolder.open(name)
    return trained(folder.system(), folder), folder


def map_of(result: FitResult, folder: RunFolder | None) -> CollectiveMap:
    """The CV map of a run; without one, or before its search, all phi and psi themselves.

    Raises:
        ValueError: If the molecule has no phi and psi.
    """
    if folder is not None and folder.cvs.exists():
        return restore_slow(load_checkpoint(folder.cvs)["slow"]).map
    coordinates = result.system.coordinates
    names = [coordinates.names[i] for i in coordinates.soft.nonzero()[:, 0].tolist()]
    chosen = [k for k, name in enumerate(names) if name.startswith(("phi(", "psi("))]
    if not chosen:
        raise ValueError(f"{result.system.name} has no phi and psi; give a run that found its CVs")
    rest = [k for k in range(len(names)) if k not in chosen]
    return CollectiveMap(
        torch.eye(len(names))[chosen + rest], n_cvs=len(chosen), periodic=True, n_steps=0
    )


def measure(
    result: FitResult,
    cv_map: CollectiveMap,
    *,
    n_samples: int,
    seed: int,
    resolution: float,
    width: int | None,
    **options: Any,
) -> dict[str, Any]:
    """Fit a joint model and tell how good it is.

    Args:
        result: The generator.
        cv_map: Map of its soft coordinates.
        n_samples: All-atom and joint samples, an energy call each.
        seed: Of everything random.
        resolution: Width of the encoder.
        width: Of hidden layers.
        **options: Of `refit_soft`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = collective_model(result.model, cv_map, resolution=resolution, width=width)
    began = time.process_time()
    left = refit_soft(model, result.model, seed=seed, **options)
    seconds = time.process_time() - began
    found: dict[str, Any] = {"divergence": left, "cpu_seconds": seconds}
    found["soft_ess"] = soft_ess(model, result.model, seed=seed)
    gap = bound_gap(model, seed=seed)
    found["bound_gap"] = 0.5 * (gap.lower + gap.upper)
    if n_samples:
        for name, drawn in (("ess", result.model), ("joint_ess", model)):
            molecule = result.system.molecule
            found[name] = draw(drawn, result.target, n_samples, molecule=molecule, seed=seed).ess
        found["ratio"] = found["joint_ess"] / found["ess"]
    return found


def main() -> None:
    """Fit, print and add to the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("generator", help="name of one that comes with gencg, or a run folder")
    parser.add_argument("--steps", type=int, default=5500, help="[%(default)s]")
    parser.add_argument("--batch-size", type=int, default=1024, help="[%(default)s]")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="[%(default)s]")
    parser.add_argument("--optimiser", default="muon", help="adam or muon  [%(default)s]")
    parser.add_argument("--finish", type=float, default=0.5, help="share of log-variance  [0.5]")
    parser.add_argument("--resolution", type=float, default=0.1, help="rad  [%(default)s]")
    parser.add_argument("--width", type=int, help="of hidden layers  [64 or 128]")
    parser.add_argument("--samples", type=int, default=20_000, help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder, outside of a repository")
    given = vars(parser.parse_args())
    name, out = given.pop("generator"), given.pop("out")
    torch.set_num_threads(1)
    result, folder = generator_of(name)
    options = {key: value for key, value in given.items() if key not in ("steps", "samples")}
    found = measure(
        result,
        map_of(result, folder),
        n_steps=given["steps"],
        n_samples=given["samples"],
        **options,
    )
    out.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"generator": name, **given, **found})
    with open(out / "joint.jsonl", "a") as file:
        file.write(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
