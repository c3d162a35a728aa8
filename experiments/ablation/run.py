"""Better training per call: what each part of the default is worth, at equal energy calls.

Every variant changes one thing of `gencg.fit`. All energy calls of training count, those of chains
included; the measures are those of samples drawn afterwards with a seed of their own. A finished
run is read, not repeated; one that was stopped goes on, and its CPU time is that of the last part.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import gencg
from experiments.ablation.tables import figure, table
from experiments.ablation.variants import VARIANTS, Setting
from gencg.analysis.states import states
from gencg.analysis.torsions import ensemble_torsions
from gencg.ensemble import Ensemble
from gencg.importance import effective_sample_size, truncated
from gencg.systems import SYSTEMS, load
from gencg.systems.base import System
from gencg.target import BoltzmannTarget

STATE = {"alanine-dipeptide": "alpha_L", "double-well": "right", "mueller-brown": "product"}
"""The rare state whose population is reported."""


def one(
    system: str, name: str, *, calls: float, seed: int, n_samples: int, out: Path
) -> dict[str, Any]:
    """Train and measure, or read, one run."""
    stem = out / f"{system}-{name}-{calls:.3g}-{seed}"
    found = stem.with_name(f"{stem.name}.json")
    if found.exists():
        summary: dict[str, Any] = json.loads(found.read_text())
        return summary
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = stem.with_name(f"{stem.name}.checkpoint")
    problem = load(system)
    target = BoltzmannTarget(problem.energy, problem.coordinates, problem.temperature)
    options = VARIANTS[name](Setting(problem, target, seed, calls))
    head = {"system": system, "variant": name, "calls": calls, "seed": seed}
    began = time.process_time()
    try:
        result = gencg.fit(problem, energy_calls=calls, seed=seed, checkpoint=checkpoint, **options)
        cpu_seconds = time.process_time() - began
        ensemble = gencg.draw(
            result.model, target, n_samples, molecule=problem.molecule, seed=1000 + seed
        )
        summary = head | measures(problem, ensemble)
        summary |= {
            "energy_calls": result.energy_calls,
            "steps": result.state.step,
            "seconds": result.seconds,
            "cpu_seconds": cpu_seconds,
            "parameters": sum(p.numel() for p in result.model.parameters()),
        }
    except (ValueError, RuntimeError) as error:
        # A variant that cannot be trained is a result too
        summary = head | {"failed": str(error)}
    found.write_text(json.dumps(summary, indent=1))
    checkpoint.unlink(missing_ok=True)
    return summary


def measures(system: System, ensemble: Ensemble) -> dict[str, float]:
    """What the samples say about the generator; the divergence is in kT."""
    finite = ensemble.log_weights[ensemble.valid]
    found = {
        "ess": ensemble.ess,
        "ess_cut": float(
            effective_sample_size(truncated(ensemble.log_weights, largest=10.0).log())
        ),
        "reverse_kl": float(ensemble.log_z - finite.mean()),
        "log_z": ensemble.log_z,
        "log_z_error": ensemble.log_z_error,
        "pareto_k": ensemble.pareto_k,
        "n_invalid": ensemble.n_invalid,
    }
    state = STATE.get(system.name)
    if state is not None:
        masks = states(system, ensemble, ensemble_torsions(ensemble))
        mask = {state: torch.as_tensor(masks[state])}
        found["raw"], found["raw_error"] = ensemble.populations(mask, raw=True)[state]
        found["reweighted"], found["reweighted_error"] = ensemble.populations(mask)[state]
    return found


def main() -> None:
    """Run what is asked for, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--system", choices=SYSTEMS, default="alanine-dipeptide")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--calls", type=float, nargs="+", default=[1e6])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=50_000, help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="[%(default)s]")
    given = parser.parse_args()
    summaries = []
    for calls in given.calls:
        for seed in given.seeds:
            for name in given.variants:
                summary = one(
                    given.system,
                    name,
                    calls=calls,
                    seed=seed,
                    n_samples=given.samples,
                    out=given.out,
                )
                summaries.append(summary)
                print(json.dumps(summary), flush=True)
    text = table(summaries)
    (given.out / f"{given.system}.md").write_text(text + "\n")
    figure(summaries).savefig(given.out / f"{given.system}.png")
    print(text)


if __name__ == "__main__":
    main()
