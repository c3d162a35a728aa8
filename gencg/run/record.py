"""What a run writes down about itself: versions and the summary."""

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gencg.analysis.assessment import Assessment
from gencg.analysis.lost_modes import ModeCheck
from gencg.analysis.probes import Probe
from gencg.analysis.verdict import Verdict, judge_modes, overall, worse
from gencg.config import RunConfig
from gencg.coordinates.internal import InternalCoordinates
from gencg.ensemble import Ensemble
from gencg.files import write_atomically
from gencg.fit import FitResult
from gencg.models.build import choices_of
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.mixture import leading, members_of
from gencg.run.collective import Discovery
from gencg.systems.base import System

PACKAGES = (
    "gencg", "torch", "pyro-ppl", "normflows", "numpy", "scipy", "mdtraj", "matplotlib", "openmm",
    "arviz", "h5py", "rdkit", "tblite",
)  # fmt: skip


def summarise(
    config: RunConfig,
    result: FitResult,
    ensemble: Ensemble,
    assessment: Assessment,
    *,
    probes: Sequence[Probe] = (),
) -> dict[str, Any]:
    """The numbers of a run for scripts; unknown ones are None."""
    molecule = result.system.molecule
    populations = {
        name: {
            "raw": assessment.raw[name][0],
            "raw_error": assessment.raw[name][1],
            "reweighted": value,
            "reweighted_error": error,
        }
        for name, (value, error) in assessment.reweighted.items()
    }
    probing = sum(probe.n_energy_calls for probe in probes)
    verdict = overall(assessment.verdicts)
    return {
        "name": result.system.name,
        # With collective variables the weights are joint, and their ESS is a lower bound
        "ess": ensemble.ess,
        "joint_ess": ensemble.ess,
        "log_z": ensemble.log_z,
        "log_z_error": ensemble.log_z_error,
        "pareto_k": ensemble.pareto_k,
        "energy_calls": result.energy_calls + ensemble.n_energy_calls + probing,
        "gradient_calls": result.gradient_calls,
        "n_restored": result.state.n_restored,
        "wall_seconds": result.seconds,
        "temperature": ensemble.temperature,
        "n_atoms": 0 if molecule is None else molecule.n_atoms,
        "n_cvs": config.n_cvs,
        "n_samples": ensemble.n_samples,
        "n_invalid": ensemble.n_invalid,
        "n_clashes": ensemble.n_clashes,
        **_broken(result.system, ensemble),
        "n_soft": int(result.system.coordinates.soft.sum()),
        "n_contacts": _n_contacts(result.model),
        "variance": result.state.settings.get("variance", 0.0),
        "stiff_order": result.state.settings.get("stiff_order"),
        "autoregressive": choices_of(leading(result.model).state_dict())["autoregressive"],
        "n_members": max(1, len(members_of(result.model))),
        "seed": config.seed,
        "bound_gap": None,
        "populations": populations,
        "cv_timescales": None,
        "mode_checks": _mode_checks(assessment.mode_checks),
        "verdict": verdict.text,
        "verdict_level": verdict.level,
    }


def _n_contacts(model: CoarseGrainedModel) -> int:
    """How many distances the stiff block sees."""
    model = leading(model)
    if not isinstance(model.decoder, TwoBlockDecoder):
        return 0
    contacts = model.decoder.flow.stiff.contacts
    return 0 if contacts is None else contacts.pairs.shape[1]


def _broken(system: System, ensemble: Ensemble) -> dict[str, int]:
    """How many samples have open rings, the wrong hand of an atom, or a double bond turned over."""
    coordinates, x = system.coordinates, ensemble.x
    if not isinstance(coordinates, InternalCoordinates):
        return {}
    finite = torch.isfinite(x).flatten(1).all(1)
    open_rings = finite & ~coordinates.closed(x)
    closed = finite & ~open_rings
    return {
        "n_open_rings": int(open_rings.sum()),
        "n_inverted": int((closed & coordinates.inverted(x)).sum()),
        "n_flipped": int((closed & coordinates.flipped(x)).sum()),
    }


def _mode_checks(checks: Sequence[ModeCheck]) -> list[dict[str, Any]]:
    numbers = ("n_effective", "n_windows", "log_z", "log_z_error", "log_z_excess",
               "log_z_excess_error", "n_energy_calls")  # fmt: skip
    found = []
    for check in checks:
        verdict = judge_modes(check)
        words = {"name": check.name, "level": verdict.level, "text": verdict.text}
        lost = [vars(window) for window in check.lost]
        found.append(words | {name: getattr(check, name) for name in numbers} | {"lost": lost})
    return found


def summarise_cvs(
    summary: dict[str, Any], found: Discovery, joint: Ensemble, assessment: Assessment
) -> dict[str, Any]:
    """The numbers of the collective variables, to be merged into the summary."""
    slow, gap = found.slow, found.gap
    verdict = overall(assessment.verdicts)
    if worse(summary["verdict_level"], verdict.level):
        verdict = Verdict("Overall", summary["verdict_level"], summary["verdict"])
    extra = slow.n_energy_calls + found.joint.energy_calls + joint.n_energy_calls
    return {
        "n_cvs": slow.n_cvs,
        "joint_ess": joint.ess,
        "joint_log_z": joint.log_z,
        "joint_log_z_error": joint.log_z_error,
        "joint_pareto_k": joint.pareto_k,
        "joint_populations": {
            name: {"reweighted": value, "reweighted_error": error}
            for name, (value, error) in assessment.reweighted.items()
        },
        "energy_calls": summary["energy_calls"] + extra,
        "gradient_calls": summary["gradient_calls"] + found.joint.gradient_calls,
        "bound_gap": 0.5 * (gap.lower + gap.upper),
        "bound_gap_error": gap.error,
        "cv_names": list(slow.names),
        "cv_timescales": slow.timescales.tolist(),
        "cv_eigenvalues": slow.spectrum.eigenvalues.tolist(),
        "cv_eigenvalue_errors": slow.spectrum.errors.tolist(),
        "cv_held_out_eigenvalues": slow.eigenvalues.tolist(),
        "cv_populations": slow.spectrum.populations.tolist(),
        "cv_transition_samples": slow.spectrum.n_transition.tolist(),
        "cv_processes": slow.places,
        "cv_agreement": slow.agreement.tolist(),
        "cv_error_bars": slow.error_bars.tolist(),
        "cv_chosen_again": slow.frequency.tolist(),
        "cv_reference_eigenvalues": slow.reference.tolist(),
        "cv_shares": slow.shares.tolist(),
        "cv_linear": slow.linear,
        "cv_network_gain": None if slow.network is None else slow.network.gain,
        "cv_network_gains": None if slow.network is None else slow.network.gains.tolist(),
        "cv_network_errors": None if slow.network is None else slow.network.errors.tolist(),
        "cv_network_descriptors": None if slow.network is None else slow.network.descriptors,
        "cv_doubts": list(slow.doubts),
        "n_processes": slow.n_processes,
        "n_processes_support": slow.support,
        "spectral_gap": slow.gap,
        "joint_mode_checks": _mode_checks(assessment.mode_checks),
        "verdict": verdict.text,
        "verdict_level": verdict.level,
    }


def versions() -> dict[str, Any]:
    """Versions of everything that could change a result."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found | {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "torch_threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "command": " ".join(sys.argv),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically; numbers that are not finite become null."""
    write_atomically(path, (json.dumps(finite(content), indent=2) + "\n").encode())


def finite(value: Any) -> Any:
    """The value with every float that is not finite replaced by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
