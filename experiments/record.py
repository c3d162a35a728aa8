"""The result of one method on one system with one seed, in numbers that all methods share.

Every experiment leaves one small JSON file per seed in ``experiments/FOLDER/results``;
`experiments.results` makes the table of all of them. A finished run folder becomes such a file by
``python -m experiments.record RUN --method NAME --reference FRAMES --into FOLDER``.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.alanine_dipeptide.reference import Frames
from gencg.analysis import ramachandran_basins, ramachandran_total_variation, torsion_angles
from gencg.config import RunConfig
from gencg.ensemble import Ensemble
from gencg.importance import weighted_average
from gencg.systems import System

ROOT = Path(__file__).parent
BINS = 36
"""Cells of a Ramachandran map along each angle: 10 degrees each."""
LAG = 1.0
"""Of the VAMP-2 score, in ps."""
WATCHED = {
    "double-well": "right",
    "mueller-brown": "product",
    "curved-wells": "right",
    "gaussian-mixture": "mode 1",
    "alanine-dipeptide": "alpha_L",
}
"""The state of each system that is easily lost, or the one that the literature asks for."""
FULL_CALLS = {"alanine-dipeptide": 3e6}
"""Calls from which on a result counts as one of the full settings; a toy's are always full."""


@dataclass(frozen=True)
class Result:
    """What one method reached on one system with one seed.

    Args:
        method: Name of the method, a row of the table.
        system: Name of the system.
        temperature: In K.
        seed: Seed of training.
        command: What was run.
        energy_calls: Energies asked for in training, or in the simulation.
        seconds: CPU seconds of that.
        measures: Numbers by name, those of `measure` and more; None or absent where a method has
            none.
        settings: What else decides the numbers.
        full: Whether the budget is that of the full settings, not a smaller one.
    """

    method: str
    system: str
    temperature: float
    seed: int
    command: str
    energy_calls: float
    seconds: float
    measures: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    full: bool = False

    @property
    def name(self) -> str:
        """Name of its file."""
        method = self.method.replace(",", "").replace(" ", "-")
        words = (self.system, f"{self.temperature:.0f}K", method, f"{self.budget:g}", self.seed)
        return "-".join(map(str, words)).replace("e+0", "e") + ".json"

    @property
    def budget(self) -> float:
        """Energy calls that were asked for; what was spent, where none were."""
        return float(self.settings.get("calls", self.energy_calls))

    def write(self, folder: Path) -> Path:
        """Write into `folder`; the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.name
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n")
        return path

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read what `write` wrote.

        Raises:
            ValueError: If the file holds no result.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} holds no result of an experiment: {error}") from None


def measure(
    system: System,
    ensemble: Ensemble,
    *,
    reference: Frames | None = None,
    bins: int = BINS,
) -> dict[str, float | None]:
    """ESS, log Z, and distances from the truth, as drawn and reweighted.

    ``tv_raw`` and ``tv_reweighted`` are total variations: of the Ramachandran maps for a molecule,
    of the populations of all states for a toy. ``tv_floor`` is what two right samples of these
    sizes would show. ``state_…`` is the population of the state in `WATCHED`.

    Args:
        system: What was sampled.
        ensemble: Fresh samples, not counted as calls of the training.
        reference: Samples of the truth at the same temperature, which a molecule needs.
        bins: Cells along each angle.

    Raises:
        ValueError: If the reference is of another temperature.
    """
    exact = system.known.get("log_z")
    found: dict[str, float | None] = {
        "n_samples": ensemble.n_samples,
        "n_invalid": ensemble.n_invalid,
        "ess": ensemble.ess,
        "pareto_k": ensemble.pareto_k,
        "log_z": ensemble.log_z,
        "log_z_error": ensemble.log_z_error,
        "log_z_exact": exact,
        "log_z_deviation": None if exact is None else ensemble.log_z - exact,
    }
    if not math.isfinite(ensemble.log_z):
        return found | dict.fromkeys(("tv_raw", "tv_reweighted", "state_raw", "state_reweighted"))
    if system.molecule is None:
        return found | _states(system, ensemble)
    return found if reference is None else found | _maps(ensemble, reference, bins)


def _states(system: System, ensemble: Ensemble) -> dict[str, float | None]:
    """Populations of a toy's states against its exact ones."""
    masks = system.energy.states(ensemble.x)  # type: ignore[attr-defined]
    exact = system.known["populations"]
    watched = WATCHED[system.name]
    found: dict[str, float | None] = {"state_exact": exact[watched]}
    for name, raw in (("raw", True), ("reweighted", False)):
        drawn = ensemble.populations(masks, raw=raw)
        found[f"tv_{name}"] = 0.5 * sum(abs(drawn[s][0] - p) for s, p in exact.items())
        found[f"state_{name}"], found[f"state_{name}_error"] = drawn[watched]
    return found


def _maps(ensemble: Ensemble, reference: Frames, bins: int) -> dict[str, float | None]:
    """Ramachandran map and alpha_L of a molecule with one pair phi, psi."""
    if abs(reference.temperature - ensemble.temperature) > 0.5:
        raise ValueError(
            f"`reference` must be of {ensemble.temperature:g} K, got {reference.temperature:g} K"
        )
    there, error = reference.alpha_l
    found: dict[str, float | None] = {"state_exact": there, "state_exact_error": error}
    quads = [quad for _, quad in ensemble.molecule.phi_psi()]  # type: ignore[union-attr]
    angles = torsion_angles(ensemble.x, quads)
    inside = torch.as_tensor(ramachandran_basins(*angles.T)["alpha_L"])
    weights = {
        "raw": torch.where(ensemble.valid, 0.0, -math.inf).double(),
        "reweighted": ensemble.log_weights.double(),
    }
    for name, log_weights in weights.items():
        distance, floor = ramachandran_total_variation(
            angles, reference.angles, log_weights=log_weights.numpy(), bins=bins
        )
        value, error_ = weighted_average(inside, log_weights)
        found |= {f"tv_{name}": distance, f"tv_{name}_floor": floor}
        found |= {f"state_{name}": float(value), f"state_{name}_error": float(error_)}
    return found


def measure_simulation(found: Frames, reference: Frames, *, bins: int = BINS) -> dict[str, Any]:
    """The same for a simulation, which draws from the truth but has no log Z and no weights."""
    distance, _ = ramachandran_total_variation(found.angles, reference.angles, bins=bins)
    value, error = found.alpha_l
    there, there_error = reference.alpha_l
    return {
        "n_samples": len(found.angles),
        "tv_raw": distance,
        "tv_reweighted": distance,
        "state_raw": value,
        "state_reweighted": value,
        "state_reweighted_error": error,
        "state_exact": there,
        "state_exact_error": there_error,
    }


def vamp_2(
    cvs: Callable[[torch.Tensor], Any], dynamics: Path, *, periodic: bool
) -> dict[str, float]:
    """VAMP-2 score at `LAG` of functions of collective variables, held out, with its error.

    Args:
        cvs: From configurations ``(n, n_atoms, 3)`` to variables ``(n, n_cvs)``.
        dynamics: Folder of ``experiments.collective_variables.dynamics``.
        periodic: Whether they are angles.
    """
    from experiments.collective_variables.competitors import Fixed
    from experiments.collective_variables.score import Scoring
    from experiments.collective_variables.trajectories import Trajectories

    trajectories = Trajectories.read(dynamics)
    lag = round(LAG / trajectories.settings.interval)
    z = trajectories.each(cvs)
    scores = Scoring((lag,), n_draws=50)(Fixed("", z, periodic=periodic))
    return {"vamp_2": float(scores[0, 0]), "vamp_2_error": float(scores[0, 1:].std(ddof=1))}


def _rounded(value: Any) -> Any:
    """Numbers to six digits, and None for what is no number: JSON has no nan."""
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(np.float64(value))
    return float(f"{number:.6g}") if math.isfinite(number) else None


def of_run(
    folder: Path,
    *,
    method: str,
    reference: Frames | None,
    n_samples: int,
    dynamics: Path | None = None,
) -> Result:
    """The result of a finished run folder: fresh samples of its model, with the joint weights
    where it has collective variables.

    Args:
        folder: A folder of `gencg run`.
        method: Name of the method.
        reference: Samples of the truth, for a molecule.
        n_samples: Fresh samples.
        dynamics: Folder of dynamics for the VAMP-2 score of its collective variables.
    """
    from gencg.run import RunFolder, sample, trained, with_cvs

    opened = RunFolder.open(folder)
    system, config = opened.system(), opened.config
    summary = json.loads((folder / "summary.json").read_text())
    joint = summary.get("n_cvs", 0) > 0
    run = with_cvs(system, opened) if joint else None
    result = trained(system, opened) if run is None else run.result
    ensemble = sample(result, n_samples, seed=1_000_000 + config.seed)
    measures: dict[str, Any] = measure(system, ensemble, reference=reference)
    if run is not None:
        measures |= {"bound_gap": summary.get("bound_gap"), "cvs": list(run.names)}
        if dynamics is not None:
            measures |= vamp_2(result.model.encode, dynamics, periodic=run.periodic)
    return Result(
        method=method,
        system=system.name,
        temperature=result.target.temperature,
        seed=config.seed,
        command=f"{_command(config)}, then python -m experiments.record",
        energy_calls=summary["energy_calls"],
        seconds=summary["wall_seconds"],
        measures=measures,
        settings={"calls": config.energy_calls},
        full=config.energy_calls >= FULL_CALLS.get(system.name, 0),
    )


def _command(config: RunConfig) -> str:
    """The run of a configuration: its budget, its seed, and what is not as usual."""
    words = ["gencg run", config.target]
    if config.decoder != "spline":
        words += ["--decoder", config.decoder]
    if config.n_cvs != "auto":
        words += ["--cvs", str(config.n_cvs)]
    return " ".join([*words, f"--energy-calls {config.energy_calls:g} --seed {config.seed}"])


def main() -> None:
    """Write a result for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="finished run folders")
    parser.add_argument("--method", required=True, help="name in the table")
    parser.add_argument("--reference", type=Path, help=".npz of alanine_dipeptide.reference")
    parser.add_argument("--dynamics", type=Path, help="folder, for the VAMP-2 score of the CVs")
    parser.add_argument("--samples", type=int, default=20_000, help="[%(default)s]")
    parser.add_argument("--into", type=Path, default=ROOT / "baselines/results", help="folder")
    given = parser.parse_args()
    frames = Frames.read(given.reference) if given.reference else None
    for run in given.runs:
        found = of_run(
            run, method=given.method, reference=frames, n_samples=given.samples,
            dynamics=given.dynamics,
        )  # fmt: skip
        print(found.write(given.into), file=sys.stderr)


if __name__ == "__main__":
    main()
