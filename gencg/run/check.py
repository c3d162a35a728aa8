"""Trust in a finished run: what it stored, computed again by other ways."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gencg.analysis.energy_ratio import energy_ratio
from gencg.ensemble import Ensemble
from gencg.export.trajectory import read_samples
from gencg.fit import FitResult
from gencg.importance import effective_sample_size, log_partition
from gencg.run.folder import RunFolder
from gencg.run.use import sampler
from gencg.systems.base import System
from gencg.systems.energies import program_energies
from gencg.units import inverse_temperature

N_ENERGIES, N_DENSITIES = 64, 10_000
"""Samples whose energy another program finds, and whose density the inverse pass finds."""
ENERGY, RELATIVE = 1e-3, 1e-6
"""Deviation of an energy in kJ/mol, and as a share of it, that is allowed."""
DENSITY = 5e-3
"""Deviation of log weights that is allowed in the root mean square: parameters and the passes that
drew are single precision, the check is double."""
CLASHES = 1e-3
"""Share of the weight that samples with a clash may have."""
DEVIATION = 4.0
"""Standard errors by which the slope of the energy ratio may be off: 1 in 16,000 by chance."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Args:
        name: What.
        passed: Whether it holds.
        text: Why, in words.
        numbers: The numbers behind it.
    """

    name: str
    passed: bool
    text: str
    numbers: dict[str, Any]

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}  {self.name}: {self.text}"


def check_run(folder: RunFolder, *, seed: int = 0) -> list[Finding]:
    """Check a finished run.

    - **inputs**: copies of input files have the checksums of config.json.
    - **summary**: ESS and log Z of the stored weights are those of summary.json.
    - **energies**: OpenMM or RDKit finds the stored energies, of samples chosen by weight and at
      random.
    - **stereo**: samples with a weight have the hands, double bonds and rings of the molecule, and
      clashes carry no weight.
    - **weights**: -beta U + log|det| + log r - log q with the density q by the inverse pass of the
      flow, in double precision, where it was drawn by the forward pass in single.
    - **temperature**: stored weights of one half of the samples, and weights made anew for a
      temperature T + dT of the other half, have energies in the ratio that belongs to dT
      (`energy_ratio`).

    Args:
        folder: The run.
        seed: Chooses the samples.

    Returns:
        What was found, a finding each.

    Raises:
        ValueError: If the run is not finished.
    """
    summary = folder.summary
    if summary is None:
        raise ValueError(f"run {folder.path} is not finished; finish it with `gencg run`")
    inputs = _inputs(folder)
    if not inputs.passed:
        # Nothing else means anything
        return [inputs]
    system = folder.system()
    ensemble = read_samples(folder.path)
    result = sampler(system, folder)
    chosen = _chosen(ensemble, N_DENSITIES, seed)
    anew = _log_weights(result, ensemble, chosen)
    return [
        inputs,
        _summary(ensemble, summary),
        _energies(folder, system, ensemble, seed),
        _stereo(system, ensemble),
        _weights(ensemble, chosen, anew),
        _temperature(system, ensemble, chosen, anew, folder.config.temperature),
    ]


def _inputs(folder: RunFolder) -> Finding:
    n = len(folder.inputs)
    try:
        folder.system()
    except ValueError as error:
        return Finding("inputs", False, str(error), {"n_files": n})
    text = f"{n} copies have their checksums" if n else "none but what comes with the programs"
    return Finding("inputs", True, text, {"n_files": n})


def _summary(ensemble: Ensemble, summary: dict[str, Any]) -> Finding:
    joint = summary.get("joint_log_z") is not None
    names = ("joint_ess", "joint_log_z") if joint else ("ess", "log_z")
    found = (
        float(effective_sample_size(ensemble.log_weights)),
        float(log_partition(ensemble.log_weights)[0]),
    )
    off = max(abs(mine - summary[name]) for mine, name in zip(found, names, strict=True))
    passed = off < 1e-9
    text = f"ESS {found[0]:.4f} and log Z {found[1]:.4f} of the stored weights "
    text += "are those of summary.json" if passed else f"differ from summary.json by {off:.2g}"
    return Finding("summary", passed, text, dict(zip(names, found, strict=True)))


def _energies(folder: RunFolder, system: System, ensemble: Ensemble, seed: int) -> Finding:
    generator = torch.Generator().manual_seed(seed)
    half, valid = N_ENERGIES // 2, ensemble.valid.double()
    by_weight = torch.multinomial(ensemble.weights, half, replacement=True, generator=generator)
    any_valid = torch.multinomial(valid, half, replacement=True, generator=generator)
    rows = torch.tensor(sorted({*by_weight.tolist(), *any_valid.tolist()}))
    config = folder.config
    found, program = program_energies(
        system, config.target, ensemble.x[rows], kept=folder.inputs, **config.loader_options
    )
    stored = ensemble.energy[rows]
    off = (found - stored).abs()
    passed = bool((off <= ENERGY + RELATIVE * stored.abs()).all())
    worst = float(off.max())
    text = f"{len(rows)} by {program}, at most {worst:.2g} kJ/mol from the stored ones"
    return Finding("energies", passed, text, {"n": len(rows), "by": program, "worst": worst})


def _stereo(system: System, ensemble: Ensemble) -> Finding:
    weighted = torch.isfinite(ensemble.log_weights)
    wrong = int((weighted & ~system.coordinates.valid(ensemble.x)).sum())
    share = float(ensemble.weights[ensemble.clashes].sum())
    text = f"{wrong} samples with a weight are another molecule, clashes hold {share:.2g} of it"
    numbers = {"n_wrong": wrong, "clash_weight": share}
    return Finding("stereo", wrong == 0 and share <= CLASHES, text, numbers)


def _weights(ensemble: Ensemble, chosen: Tensor, anew: Tensor) -> Finding:
    off = anew - ensemble.log_weights[chosen]
    rms, shift = float(off.square().mean().sqrt()), float(off.mean())
    text = f"{len(chosen):,} by the inverse pass, {rms:.2g} from the stored in the root mean square"
    numbers = {"n": len(chosen), "rms": rms, "mean": shift, "worst": float(off.abs().max())}
    return Finding("weights", rms <= DENSITY, text, numbers)


def _temperature(
    system: System, ensemble: Ensemble, chosen: Tensor, anew: Tensor, temperature: float | None
) -> Finding:
    assert temperature is not None
    beta = float(inverse_temperature(temperature))
    half = len(chosen) // 2
    energy = system.energy(ensemble.x[chosen])
    weights = ensemble.log_weights[chosen[:half]]
    # So far that the distributions lie apart by their width
    dbeta = -1.0 / max(_width(energy[:half], weights), 2.0 / beta)
    hotter = anew[half:] - dbeta * energy[half:]
    try:
        found = energy_ratio(
            ensemble.energy[chosen[:half]], weights, energy[half:], hotter, expected=-dbeta
        )
    except ValueError as error:
        return Finding("temperature", False, str(error), {})
    hot = 1 / (1 / temperature * (1 + dbeta / beta))
    text = (
        f"from {temperature:g} to {hot:.0f} K the energies ask for a difference of inverse "
        f"temperatures {found.slope / -dbeta:.3f} ± {found.error / -dbeta:.3f} times the true one"
    )
    numbers = vars(found) | {"temperatures": [temperature, hot], "deviation": found.deviation}
    return Finding("temperature", found.deviation <= DEVIATION, text, numbers)


def _width(energy: Tensor, log_weights: Tensor) -> float:
    weights = torch.softmax(log_weights, 0)
    mean = (weights * energy).sum()
    return float((weights * (energy - mean).square()).sum().sqrt())


def _chosen(ensemble: Ensemble, n: int, seed: int) -> Tensor:
    """Samples with a weight, in random order, ``(n,)`` or all there are."""
    there = torch.isfinite(ensemble.log_weights).nonzero()[:, 0]
    order = torch.randperm(len(there), generator=torch.Generator().manual_seed(seed))
    return there[order[:n]]


def _log_weights(result: FitResult, ensemble: Ensemble, rows: Tensor) -> Tensor:
    """Log weights from y and z alone, in double precision, ``(n,)``."""
    model = copy.deepcopy(result.model).double()
    parts = []
    with torch.no_grad():
        for part in torch.split(rows, 2000):
            y, z = ensemble.y[part], ensemble.z[part]
            log_p = result.target.log_density(y)
            parts.append(log_p + model.log_encoder(z, y) - model.log_prob(z, y))
    return torch.cat(parts)
