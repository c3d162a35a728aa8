"""Everything a run says about its ensemble: torsions, populations, coverage and verdicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gencg.analysis.coverage import Coverage, Stage, check_coverage
from gencg.analysis.histogram import Array
from gencg.analysis.lost_modes import ModeCheck, check_modes
from gencg.analysis.probes import Probe
from gencg.analysis.states import states
from gencg.analysis.torsions import Torsions, ensemble_torsions
from gencg.analysis.verdict import Verdict, judge
from gencg.energies.toy import Toy
from gencg.ensemble import Ensemble
from gencg.importance import effective_sample_size
from gencg.systems.base import System
from gencg.units import inverse_temperature

Populations = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Assessment:
    """What the samples of a run show.

    Attributes:
        torsions: phi and psi of each residue, or the soft torsions; none for a plane toy.
        raw: Population and standard error of each state, as drawn.
        reweighted: The same, reweighted.
        exact: Known populations, by state; empty where none are known.
        coverage: Modes seen hot but lost cold.
        mode_checks: What probes say about lost modes.
        verdicts: The judgement in words.
        raw_log_weights: 0 for a valid sample, -inf for a broken one, ``(n,)``.
    """

    torsions: Torsions
    raw: Populations
    reweighted: Populations
    exact: dict[str, float]
    coverage: Coverage
    mode_checks: tuple[ModeCheck, ...]
    verdicts: tuple[Verdict, ...]
    raw_log_weights: Array


def assess(
    system: System,
    ensemble: Ensemble,
    *,
    ladder: Sequence[Stage] | None = None,
    probes: Sequence[Probe] = (),
) -> Assessment:
    """Analyse the samples of a run.

    Args:
        system: The system they were drawn for.
        ensemble: The samples.
        ladder: Samples of the hotter stages of the training, for `check_coverage`.
        probes: From `probe_modes`, for `check_modes`.

    Raises:
        ValueError: If no sample carries weight.
    """
    if ensemble.ess == 0:
        raise ValueError(
            f"none of the {ensemble.n_samples} samples carries weight; train longer before drawing"
        )
    torsions = ensemble_torsions(ensemble, system.coordinates)
    masks = {k: torch.as_tensor(m) for k, m in states(system, ensemble, torsions).items()}
    beta = inverse_temperature(ensemble.temperature)
    toy = system.energy if isinstance(system.energy, Toy) else None
    coverage = _coverage(system, ensemble, ladder, beta)
    mode_checks = _mode_checks(system, ensemble, probes)
    valid = ensemble.valid.numpy()
    return Assessment(
        torsions=torsions,
        raw=ensemble.populations(masks, raw=True),
        reweighted=ensemble.populations(masks),
        exact={} if toy is None else toy.populations(beta),
        coverage=coverage,
        mode_checks=mode_checks,
        verdicts=judge(
            n_samples=ensemble.n_samples,
            ess=ensemble.ess,
            pareto_k=ensemble.pareto_k,
            valid_share=float(valid.mean()),
            coverage=coverage,
            mode_checks=mode_checks,
            state_samples={k: _effective_number(ensemble.log_weights[m]) for k, m in masks.items()},
        ),
        raw_log_weights=np.where(valid, 0.0, -math.inf),
    )


def _effective_number(log_weights: torch.Tensor) -> float:
    """Effective number of samples, (Σw)² / Σw²; 0 for none."""
    n = len(log_weights)
    return n * float(effective_sample_size(log_weights)) if n else 0.0


def _coverage(
    system: System, ensemble: Ensemble, ladder: Sequence[Stage] | None, beta: float
) -> Coverage:
    """Check the soft coordinates, over the circle or over the range the hot stages reach."""
    coordinates = system.coordinates
    soft = torch.nonzero(coordinates.soft).ravel()
    names = [coordinates.names[k] for k in soft]
    y = ensemble.y[:, soft].numpy()
    if not ladder:
        return check_coverage(y, ensemble.log_weights, None, beta=beta, names=names)
    hot = np.concatenate([np.asarray(stage[1], dtype=np.float64) for stage in ladder])
    hot = hot[np.isfinite(hot).all(1)]
    ranges = [
        (-np.pi, np.pi) if circle else _reach(hot[:, k])
        for k, circle in enumerate(coordinates.periodic[soft].tolist())
    ]
    return check_coverage(
        y, ensemble.log_weights, ladder, beta=beta, names=names, ranges=ranges,
        angles=coordinates.periodic[soft].tolist(),
    )  # fmt: skip


def _mode_checks(
    system: System, ensemble: Ensemble, probes: Sequence[Probe]
) -> tuple[ModeCheck, ...]:
    soft = torch.nonzero(system.coordinates.soft).ravel()
    options: dict[str, Any] = {
        "names": [system.coordinates.names[k] for k in soft],
        "periodic": bool(system.coordinates.periodic[soft].any()),
    }
    return tuple(
        check_modes(probe, ensemble.y[:, soft], ensemble.log_weights, **options)
        for probe in probes
        if bool(torch.isfinite(probe.log_weights).any())
    )


def _reach(values: Array) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)
