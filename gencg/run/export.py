"""The collective variables of a run for other programs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gencg.coordinates.internal import InternalCoordinates
from gencg.export.checks import VALUE, Check, ExportError
from gencg.export.colvar_text import read_colvar, write_colvar
from gencg.export.cv_function import CVFunction
from gencg.export.exporting import CV_FORMATS, check_formats, export_cvs
from gencg.export.loading import load_trajectory
from gencg.export.plumed import plumed_nodes
from gencg.export.soft_cvs import soft_cv_function
from gencg.export.torchscript import Ranges, column_ranges, column_values
from gencg.export.trajectory import read_samples
from gencg.importance import resample_indices
from gencg.models.collective import MapEncoder
from gencg.run.folder import RunFolder
from gencg.run.use import CollectiveRun, with_cvs
from gencg.systems.base import System

FORMATS = (*CV_FORMATS, "colvar")
"""What `gencg export` writes."""
N_STRUCTURES = 40
"""Samples that a file is compared at, and as many with noise: half of them by weight."""
N_FRESH = 2000
"""Samples drawn for a run that has none yet."""
LEAST_WEIGHT = 1e-6
"""Of the largest weight: samples below it are not counted into a range."""


def cv_function(run: CollectiveRun, *, slow: bool = False) -> CVFunction:
    """Collective variables of a run as a function of torsions between atoms.

    Args:
        run: The run's model; see `with_cvs`.
        slow: Give the slow functions of the collective variables in their place: real numbers,
            steep between states, for programs that cannot do with angles.

    Raises:
        ValueError: If the run is of a toy or of one stage, or a collective variable cannot be
            written as a function of fixed atoms.
    """
    system, encoder = run.result.system, run.result.model.encoder
    if system.molecule is None or not isinstance(system.coordinates, InternalCoordinates):
        raise ValueError(f"{system.name} is no molecule in internal coordinates: nothing to export")
    if run.slow is None or not isinstance(encoder, MapEncoder):
        raise ValueError(
            "collective variables of a one-stage model see all coordinates, and rotors where "
            "they jump; make a run with --decoder spline or flow-matching for those that other "
            "programs can use"
        )
    names, heads = (run.slow_columns, run.slow.functions.heads) if slow else (run.names, None)
    return soft_cv_function(system.coordinates, encoder.map, names=names, heads=heads)


def export_run(
    system: System,
    folder: RunFolder,
    out: str | Path,
    *,
    formats: Sequence[str],
    slow: bool = False,
    trajectory: str | Path | None = None,
    top: str | Path | None = None,
    seed: int = 0,
    announce: Callable[[str], None] = lambda text: None,
) -> list[Check]:
    """Write the collective variables of a run for other programs, each file checked.

    Args:
        system: What the run samples.
        folder: The run, finished.
        out: Where to write.
        formats: Any of `FORMATS`; "colvar" is a table of values over a trajectory.
        slow: Write the slow functions in place of the collective variables.
        trajectory: For "colvar"; by default the run's own samples with their log weights.
        top: File that names the atoms of the trajectory, where it does not.
        seed: Seed of the structures compared at.
        announce: Called with what the check of each file found.

    Returns:
        What was found, a `Check` per file.

    Raises:
        ValueError: If the run has no collective variables, or a format is unknown.
        ExportError: If a file is not what its program or the model asks for. Files stay.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"`format` must be among {', '.join(FORMATS)}, got {name!r}")
    if trajectory is not None and "colvar" not in formats:
        raise ValueError("`trajectory` is for the format colvar; add it, or leave it out")
    programs = [name for name in formats if name != "colvar"]
    if programs:
        check_formats(programs)
    frames = None if trajectory is None else load_trajectory(trajectory, top)
    run = with_cvs(system, folder)
    function = cv_function(run, slow=slow)
    molecule = system.molecule
    assert molecule is not None
    checks = []
    if programs:
        structures, ranges = _seen(run, folder, function, seed)
        checks += export_cvs(
            function,
            out,
            molecule=molecule,
            samples=structures,
            ranges=ranges,
            formats=programs,
            temperature=folder.config.temperature or system.temperature,
            title=system.name,
            seed=seed,
        )
    if "colvar" in formats:
        if frames is None:
            samples = read_samples(folder.path)
            samples = samples.select(samples.valid)
            x, first = samples.x, {"sample": torch.nonzero(samples.valid)[:, 0].double()}
            last = {"logweight": samples.log_weights}
        else:
            matched = torch.as_tensor(molecule.match(frames))
            x, last = system.coordinates.match_labels(matched), {}  # type: ignore[attr-defined]
            first = {"time": torch.as_tensor(np.asarray(frames.time, dtype=np.float64))}
        checks.append(_write_table(Path(out) / "COLVAR", function, x, first, last))
    for check in checks:
        announce(str(check))
    return checks


def _seen(
    run: CollectiveRun, folder: RunFolder, function: CVFunction, seed: int
) -> tuple[Tensor, Ranges]:
    """Structures to compare at, and the range of each column in the whole ensemble.

    Of a state of one in a thousand there is none among some dozens of samples, and there a slow
    function is farthest from zero. So half of the structures are spread over the columns' values.
    """
    if (folder.path / "samples.h5").exists():
        samples = read_samples(folder.path)
        samples = samples.select(samples.valid)
        x, weights = samples.x, samples.weights.double()
    else:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            _, y, _ = run.result.model.sample(N_FRESH)
        x, _ = run.result.system.coordinates.inverse(y.double().cpu())
        weights = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    columns = column_values(function, x)
    counts = (weights >= LEAST_WEIGHT * weights.max()) & torch.isfinite(columns).all(1)
    if not bool(counts.any()):
        raise ExportError(f"no sample of {folder.path} has weight and finite CVs")
    x, columns, weights = x[counts], columns[counts], weights[counts]
    ranges = column_ranges(function, columns, weights)
    each = max(2, N_STRUCTURES // 2 // columns.shape[1])
    low, high, _ = torch.tensor([ranges[name] for name in function.columns]).double().T
    share = torch.linspace(0, 1, each, dtype=torch.float64)[:, None]
    levels = low + share * (high - low)
    spread = torch.cat([(columns - level).abs().argmin(0) for level in levels])
    likely = resample_indices(weights.log(), N_STRUCTURES // 2, seed=seed)
    return x[torch.cat([likely, spread])], ranges


def _write_table(
    path: Path,
    function: CVFunction,
    x: Tensor,
    first: dict[str, Tensor],
    last: dict[str, Tensor],
) -> Check:
    """Write a COLVAR file of the model's own values, read it and hold it to the function."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        true = torch.cat([function.true_columns(part) for part in torch.split(x, 5000)])
        again = torch.cat([function(part).double() for part in torch.split(x, 5000)])
    nodes = plumed_nodes(function)
    table = {nodes[column]: true[:, k] for k, column in enumerate(function.columns)}
    for name, k in function.angles.items():
        table[nodes[name]] = torch.atan2(true[:, k + 1], true[:, k])
    angles = [nodes[name] for name in function.angles]
    write_colvar(path, {**first, **table, **last}, angles=angles)
    read = read_colvar(path)
    columns = np.stack([read[nodes[column]] for column in function.columns], axis=1)
    deviation = np.abs(columns - again.numpy()).max() / max(1.0, np.abs(columns).max())
    if not deviation < VALUE:
        raise ExportError(
            f"{path} does not agree with the model: its values deviate by {deviation:.2g} "
            f"(relative, at most {VALUE:g}); it stays where it is, do not use it"
        )
    return Check(path.name, len(x), float(deviation), None)
