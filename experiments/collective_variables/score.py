"""Data-free collective variables against those fitted to dynamics, on held-out dynamics.

Every competitor is a set of CVs, equally many, and is scored in the same way as functions of them:
one half of the replicas gives clusters of the CVs (k-means, angles as cosine and sine) and the
leading singular functions of the Markov model of these clusters; the other half gives the VAMP-2
score of the functions; then the halves trade places. TICA and VAMP see the first half too, at the
lag of the score. Errors are of the held-out half, by drawing its replicas anew, the same draws for
all. A ratio is asked to be at least `BAR`; beside it stands the ratio without the constant
function, which every competitor has for nothing.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.collective_variables.competitors import (
    Competitor,
    Fixed,
    hand_chosen,
    linear_competitors,
    random_combinations,
)
from experiments.collective_variables.discretisation import Discretisation, embedded
from experiments.collective_variables.features import heavy_torsions, quad_torsions, soft_torsions
from experiments.collective_variables.trajectories import Trajectories
from experiments.collective_variables.vamp import bootstrap_weights, held_out_scores
from gencg.analysis import ramachandran_basins
from gencg.run import CollectiveRun, RunFolder, with_cvs

BAR = 0.95
"""Ratio of data-free to the best of TICA and VAMP that is asked for, at every lag."""
LAGS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""In ps."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scoring:
    """How all competitors are scored.

    Attributes:
        lags: In frames.
        n_clusters: Clusters of the CVs.
        n_functions: Leading singular functions that are scored, the constant included.
        n_draws: Draws of the held-out replicas.
        seed: Of clusters and draws.
    """

    lags: tuple[int, ...]
    n_clusters: int = 100
    n_functions: int = 10
    n_draws: int = 200
    seed: int = 0

    def __call__(self, competitor: Competitor) -> Array:
        """Scores of both halves' mean, ``(n_lags, 1 + n_draws)``; the first is of all replicas."""
        halves: list[list[Array]] = [[], []]
        for fold, scores in enumerate(halves):
            states = None
            for lag in self.lags:
                if states is None or competitor.by_lag:
                    train, states = self._states(competitor, fold, lag)
                n_held_out = int((~train).sum())
                weights = bootstrap_weights(n_held_out, self.n_draws, seed=self.seed + fold)
                scores.append(
                    held_out_scores(
                        states,
                        train,
                        lag=lag,
                        n_states=self.n_clusters,
                        n_functions=self.n_functions,
                        weights=weights,
                    )
                )
        return np.mean(halves, axis=0)

    def _states(self, competitor: Competitor, fold: int, lag: int) -> Any:
        """Replicas trained on, and states of all that they alone decide."""
        n_replicas = len(competitor.data)
        train = np.arange(n_replicas) < n_replicas // 2
        train = train if fold == 0 else ~train
        z = embedded(competitor.values(train, lag), periodic=competitor.periodic)
        discretisation = Discretisation.fit(
            z[train].reshape(-1, z.shape[-1]),
            self.n_clusters,
            standardise=not competitor.periodic,
            seed=self.seed,
        )
        return train, discretisation.states(z)


def open_run(path: Path) -> CollectiveRun:
    """The collective variables of a finished run folder; nothing is written."""
    folder = RunFolder.open(path)
    return with_cvs(folder.system(), folder)


def data_free(path: Path, trajectories: Trajectories) -> tuple[Competitor, dict[str, Any]]:
    """The CVs of a run at all frames, and what the run is."""
    run = open_run(path)
    molecule = trajectories.system.molecule
    assert molecule is not None
    z = trajectories.each(lambda x: run.cvs(molecule.to_mdtraj(x.numpy())))
    system = run.result.system
    about = {
        "cvs": list(run.names),
        "system": system.description,
        "same_force_field": system.description == trajectories.system.description,
    }
    return Fixed(path.name, z, periodic=run.periodic), about


def slow_functions(path: Path, trajectories: Trajectories) -> Competitor | None:
    """The slow functions of a run, as many as it has CVs and slowest first; None of one stage.

    Those of rare states have heavy tails: they enter through asinh.
    """
    run = open_run(path)
    molecule = trajectories.system.molecule
    assert molecule is not None
    if run.slow is None:
        return None
    n = len(run.names)
    values = trajectories.each(lambda x: run.cvs(molecule.to_mdtraj(x.numpy()), slow=True))
    return Fixed(f"{path.name}, slow functions", np.arcsinh(values[..., n : 2 * n]), periodic=False)


def backbone(trajectories: Trajectories) -> tuple[tuple[str, ...], Array]:
    """Names of phi and psi of all residues and their values ``(n_replicas, n_frames, n)``."""
    molecule = trajectories.system.molecule
    assert molecule is not None
    pairs = molecule.phi_psi()
    angles = trajectories.each(partial(quad_torsions, [quad for _, quad in pairs]))
    return tuple(label for label, _ in pairs), angles


def competitors(trajectories: Trajectories, n_cvs: int, *, random_seeds: int) -> list[Competitor]:
    """All that data-free CVs are held against, with so many CVs each."""
    system = trajectories.system
    molecule = system.molecule
    assert molecule is not None
    soft = trajectories.each(partial(soft_torsions, system))
    heavy = trajectories.each(partial(quad_torsions, heavy_torsions(molecule)))
    features = {
        name: embedded(angles, periodic=True)
        for name, angles in (("soft torsions", soft), ("heavy torsions", heavy))
    }
    found = linear_competitors(features, n_cvs)
    found = hand_chosen(*backbone(trajectories), n_cvs) + found
    for seed in range(random_seeds):
        z = random_combinations(features["soft torsions"], n_cvs, seed=seed)
        found.append(Fixed(f"random {seed}", z, periodic=False))
    return found


def left_handed(labels: Sequence[str], angles: Array) -> dict[str, dict[str, float]]:
    """Population of alpha_L of each residue, its standard error over replicas, and the visits.

    Args:
        labels: "phi(ALA2)" and so on.
        angles: Their values, ``(n_replicas, n_frames, n)``.
    """
    found = {}
    for k, label in enumerate(labels):
        if label.startswith("phi"):
            phi = angles[..., k]
            inside = ramachandran_basins(phi, np.zeros_like(phi))["alpha_L"]
            shares = inside.mean(1)
            found[label[4:-1]] = {
                "population": float(shares.mean()),
                "error": float(shares.std(ddof=1) / len(shares) ** 0.5),
                "visits": int((inside[:, 1:] & ~inside[:, :-1]).sum() + inside[:, 0].sum()),
            }
    return found


def held_against(scores: Array, others: dict[str, Array]) -> dict[str, Any]:
    """Ratio of scores ``(n_lags, 1 + n_draws)`` to the best of the others at each lag.

    Draws are shared, so that what all have in common falls out of the error of the ratio.
    """
    names = list(others)
    table = np.stack(list(others.values()))
    best = table[:, :, 0].argmax(0)
    rival = table[best, np.arange(table.shape[1])]
    ratio, without = scores / rival, (scores - 1) / (rival - 1)
    return {
        "best": [names[k] for k in best],
        "ratio": ratio[:, 0].tolist(),
        "error": ratio[:, 1:].std(1, ddof=1).tolist(),
        "ratio_without_constant": without[:, 0].tolist(),
        "error_without_constant": without[:, 1:].std(1, ddof=1).tolist(),
        "reaches_bar": bool((ratio[:, 0] >= BAR).all()),
    }


def summarise(scores: dict[str, Array], runs: Sequence[str]) -> dict[str, Any]:
    """Scores, errors and ratios; random CVs become one row, the mean over seeds."""
    random = [s for name, s in scores.items() if name.startswith("random ")]
    rows = {name: s for name, s in scores.items() if not name.startswith("random ")}
    if random:
        rows["random (mean)"], rows["random (best)"] = np.mean(random, 0), np.max(random, 0)
    fitted = {name: s for name, s in rows.items() if name.startswith(("TICA", "VAMP"))}
    return {
        "scores": {
            name: {"score": s[:, 0].tolist(), "error": s[:, 1:].std(1, ddof=1).tolist()}
            for name, s in rows.items()
        },
        "ratios": {
            name: held_against(rows[name], fitted)
            for name in rows
            if name in runs or name.startswith("phi")
        },
    }


def markdown(result: dict[str, Any]) -> str:
    """Scores and ratios as tables."""
    lags = [f"{lag:g} ps" for lag in result["lags_ps"]]
    lines = ["| CVs | " + " | ".join(lags) + " |", "|---" * (len(lags) + 1) + "|"]
    for name, row in result["scores"].items():
        cells = [f"{s:.3f} ± {e:.3f}" for s, e in zip(row["score"], row["error"], strict=True)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, row in result["ratios"].items():
        for key, label in (("", ""), ("_without_constant", ", without the constant")):
            ratios = zip(row["ratio" + key], row["error" + key], strict=True)
            cells = [f"{r:.3f} ± {e:.3f}" for r, e in ratios]
            lines.append(f"| {name} / best of TICA, VAMP{label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def score(
    trajectories: Trajectories,
    runs: Iterable[Path],
    *,
    n_cvs: int | None = None,
    lags_ps: Sequence[float] = LAGS,
    random_seeds: int = 5,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Results for each number of CVs that the runs have, or for `n_cvs` without any run.

    Args:
        trajectories: The dynamics.
        runs: Folders of finished runs with CVs.
        n_cvs: Number of CVs where there is no run.
        lags_ps: Lags in ps.
        random_seeds: Number of random CVs.
        **settings: Of `Scoring`.

    Raises:
        ValueError: If two runs have the same name.
    """
    lags = tuple(round(lag / trajectories.settings.interval) for lag in lags_ps)
    scoring = Scoring(lags, **settings)
    runs = list(runs)
    found = [data_free(path, trajectories) for path in runs]
    slow = {path.name: slow_functions(path, trajectories) for path in runs}
    if len({c.name for c, _ in found}) < len(found):
        raise ValueError(f"`runs` must end in different names, got {[c.name for c, _ in found]}")
    results = []
    for number in sorted({c.n_cvs for c, _ in found} or {n_cvs or 2}):
        own = {c.name: (c, about) for c, about in found if c.n_cvs == number}
        every = [c for c, _ in own.values()]
        sharp = [c for name in own if (c := slow[name]) is not None]
        every += sharp
        every += competitors(trajectories, number, random_seeds=random_seeds)
        bar = tqdm(every, desc=f"{number} CVs", file=sys.stderr)
        scores = {competitor.name: scoring(competitor) for competitor in bar}
        about = {
            "dynamics": trajectories.about,
            "n_cvs": number,
            "n_clusters": scoring.n_clusters,
            "n_functions": scoring.n_functions,
            "lags_ps": list(lags_ps),
            "alpha_L": left_handed(*backbone(trajectories)),
            "runs": {name: about for name, (_, about) in own.items()},
        }
        results.append(about | summarise(scores, [*own, *(c.name for c in sharp)]))
    return results


def main() -> None:
    """Score, print tables, write the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dynamics", type=Path, help="folder of experiments.….dynamics")
    parser.add_argument("runs", nargs="*", type=Path, help="finished runs with CVs, of any decoder")
    parser.add_argument("--cvs", type=int, default=2, help="number, without a run  [%(default)s]")
    parser.add_argument("--clusters", type=int, default=100, help="[%(default)s]")
    parser.add_argument("--functions", type=int, default=10, help="scored  [%(default)s]")
    parser.add_argument("--lags", type=float, nargs="+", default=LAGS, help="ps")
    parser.add_argument("--draws", type=int, default=200, help="for errors  [%(default)s]")
    parser.add_argument("--random", type=int, default=5, help="random CVs  [%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = score(
        Trajectories.read(given.dynamics),
        given.runs,
        n_cvs=given.cvs,
        lags_ps=given.lags,
        random_seeds=given.random,
        n_clusters=given.clusters,
        n_functions=given.functions,
        n_draws=given.draws,
        seed=given.seed,
    )
    for result in results:
        print(f"{result['n_cvs']} CVs, {result['dynamics']['total_ns']:.0f} ns\n")
        print(markdown(result), "\n")
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
