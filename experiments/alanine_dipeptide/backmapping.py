"""Backmapping of a finished run: does each CV value give back the state it was taken from?

1. At the centre of every basin of the free energy, `decode` draws weighted structures; their share
   of weight in that basin is printed. A structure belongs to the basin of the sample of the run
   whose CVs are nearest.
2. Structures are decoded at values z drawn from the prior, weighted by p(z)/q(z); the averages of
   the cosine and sine of every soft torsion are held against those of the ensemble drawn without
   collective variables.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencg.analysis.basins import Basin, find_basins
from gencg.ensemble import Ensemble
from gencg.export.trajectory import read_samples
from gencg.importance import weighted_average
from gencg.run import CollectiveRun, RunFolder, sample, trained, with_cvs

LEAST_SHARE = 0.95
"""Share of the decoded weight that must lie in the basin."""


def in_basins(run: CollectiveRun, ensemble: Ensemble, n_samples: int) -> list[dict[str, Any]]:
    """Share of the weight decoded at the centre of each basin that lies in it."""
    basins = find_basins(ensemble.z, ensemble.log_weights, periodic=run.periodic)
    rows = []
    for basin in basins:
        decoded = run.backmap(basin.centre, n_samples, seed=0)
        belongs = _belongs(run, decoded, ensemble, basin)
        rows.append(
            {
                "centre": [round(v, 3) for v in basin.centre],
                "population": basin.population,
                "share": float((decoded.weights * belongs).sum()),
                "ess": decoded.ess,
                "clashes": decoded.n_clashes,
                "invalid": decoded.n_invalid,
            }
        )
    return rows


def _belongs(run: CollectiveRun, decoded: Ensemble, ensemble: Ensemble, basin: Basin) -> Tensor:
    """Whether the nearest weighted sample of the run lies in the basin, ``(n,)``."""
    model = run.result.model
    with torch.no_grad():
        xi = model.encoder(decoded.y.to(model.rows(0))).mean.double()
    index = torch.isfinite(ensemble.log_weights).nonzero()[:, 0][:20_000]
    offset = xi[:, None] - ensemble.z[index].double()
    if run.periodic:
        offset = torch.remainder(offset + math.pi, 2 * math.pi) - math.pi
    nearest = index[offset.square().sum(-1).argmin(1)]
    return torch.as_tensor(basin.mask)[nearest]


def torsion_averages(
    run: CollectiveRun, ensemble: Ensemble, *, n_values: int, n_each: int, seed: int = 1
) -> list[dict[str, Any]]:
    r"""Averages over the prior and `decode`, beside those of `ensemble`, in standard errors.

    The weight of sample n at value m is :math:`w_{mn} / q(z_m)`, and the error is that of
    `n_values` independent groups.
    """
    model, system = run.result.model, run.result.system
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        prior = model.prior(model.rows(n_values))
        z = prior.sample()
        log_prior = prior.log_prob(z).double()
    decoded: Ensemble = model.decode(z, n_each, seed=seed)
    log_weights = decoded.log_weights.reshape(n_values, n_each) - log_prior[:, None]
    group = torch.logsumexp(log_weights, 1)
    share = torch.softmax(log_weights, 1)
    rows = []
    for i in system.coordinates.soft.nonzero()[:, 0].tolist():
        for name, function in (("cos", torch.cos), ("sin", torch.sin)):
            values = function(decoded.y[:, i]).reshape(n_values, n_each)
            by_cv, by_cv_error = weighted_average((share * values).sum(1), group)
            whole, whole_error = ensemble.expectation(function(ensemble.y[:, i]))
            error = math.hypot(float(by_cv_error), float(whole_error))
            rows.append(
                {
                    "average": f"{name} {system.coordinates.names[i]}",
                    "decoded": float(by_cv),
                    "ensemble": float(whole),
                    "error": error,
                    "deviation": (float(by_cv) - float(whole)) / error,
                }
            )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="finished run folder with CVs")
    parser.add_argument("--samples", type=int, default=2000, help="decoded at each centre  [2000]")
    parser.add_argument("--values", type=int, default=4000, help="CV values  [4000]")
    given = parser.parse_args()
    folder = RunFolder.open(given.run)
    system = folder.system()
    run = with_cvs(system, folder)
    basins = in_basins(run, read_samples(folder.path), given.samples)
    alone = sample(trained(system, folder), 100_000, seed=folder.config.seed + 1)
    averages = torsion_averages(run, alone, n_values=given.values, n_each=10)
    print(json.dumps({"basins": basins, "averages": averages}, indent=2))
    if min(row["share"] for row in basins) < LEAST_SHARE:
        sys.exit(f"less than {LEAST_SHARE:.0%} of the weight lies in the basin")
