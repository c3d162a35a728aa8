"""Explaining the collective variables and slow functions of a finished run."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gencg.analysis.explain import Explanation, explain
from gencg.analysis.histogram import Array, to_array
from gencg.analysis.terms import candidate_terms
from gencg.checkpoint import load_checkpoint
from gencg.coordinates.internal import InternalCoordinates
from gencg.discover import restore_slow
from gencg.ensemble import Ensemble
from gencg.export.trajectory import read_samples
from gencg.files import write_atomically
from gencg.plots.explanation import explanation_figure
from gencg.run.folder import RunFolder
from gencg.run.record import write_json
from gencg.systems.base import System

EXPLANATIONS = "explain.json"
"""Where the explanations of a run are, in its figures."""


@dataclass(frozen=True)
class RunExplanations:
    """What was found, and the files that tell it.

    Attributes:
        explanations: One of each slow function and each CV; two of an angle, its cos and sin.
        files: explain.json and the figures.
    """

    explanations: tuple[Explanation, ...]
    files: tuple[Path, ...]


def explain_run(folder: RunFolder, *, max_terms: int = 4) -> RunExplanations:
    """Explain the collective variables of a run and write what was found into its figures.

    Args:
        folder: A finished run of a molecule, with collective variables.
        max_terms: Terms of a formula at most.

    Raises:
        ValueError: If the run is not finished, is of a toy, or has no collective variables.
    """
    if folder.summary is None:
        raise ValueError(f"run {folder.path} is not finished; finish it with `gencg run`")
    system = folder.system()
    molecule, coordinates = system.molecule, system.coordinates
    if molecule is None or not isinstance(coordinates, InternalCoordinates):
        raise ValueError(
            f"run {folder.path} is not of a molecule in internal coordinates, so that there are no "
            "chemical terms; use gencg.analysis.explain with terms of your own"
        )
    ensemble = read_samples(folder.path)
    values = dict(_values(system, folder, ensemble))
    return _explain(system, folder, ensemble, values, max_terms=max_terms)


def explain_slow(
    system: System, folder: RunFolder, ensemble: Ensemble, *, max_terms: int = 4
) -> tuple[Explanation, ...]:
    """Explain the slow functions of a run while it is finished, for its report.

    Args:
        system: What was sampled; nothing is explained of toys.
        folder: The run, with slow CVs.
        ensemble: Its samples.
        max_terms: Terms of a formula at most.
    """
    if system.molecule is None or not isinstance(system.coordinates, InternalCoordinates):
        return ()
    values = dict(_values(system, folder, ensemble))
    slow = {name: value for name, value in values.items() if name.startswith("slow ")}
    return _explain(system, folder, ensemble, slow, max_terms=max_terms).explanations


def forget_explanations(folder: RunFolder) -> None:
    """Remove explanations of functions that a run had before."""
    (folder.path / "figures" / EXPLANATIONS).unlink(missing_ok=True)


def explained(folder: RunFolder) -> list[dict[str, Any]]:
    """The explanations that a run holds, as plain values; empty where there are none."""
    path = folder.path / "figures" / EXPLANATIONS
    try:
        content = json.loads(path.read_text())
        return [dict(found) for found in content["explanations"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _explain(
    system: System,
    folder: RunFolder,
    ensemble: Ensemble,
    values: Mapping[str, Array],
    *,
    max_terms: int,
) -> RunExplanations:
    molecule, coordinates = system.molecule, system.coordinates
    assert molecule is not None
    assert isinstance(coordinates, InternalCoordinates)
    terms = candidate_terms(ensemble, coordinates=coordinates, seed=folder.config.seed)
    found: list[Explanation] = []
    files: list[Path] = []
    for name, value in values.items():
        explanation = explain(terms, value, name=name, max_terms=max_terms, seed=folder.config.seed)
        figure = explanation_figure(explanation, molecule, terms, value)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160)
        slug = re.sub(r"\W+", "_", name).strip("_")[:60]
        files.append(folder.path / "figures" / f"explain_{len(files) + 1}_{slug}.png")
        write_atomically(files[-1], buffer.getvalue())
        found.append(explanation)
    path = folder.path / "figures" / EXPLANATIONS
    write_json(path, {"explanations": [explanation.numbers() for explanation in found]})
    return RunExplanations(tuple(found), (path, *files))


def _values(system: System, folder: RunFolder, ensemble: Ensemble) -> Iterator[tuple[str, Array]]:
    """Slow functions and CVs of the samples, angles as cos and sin."""
    if folder.config.discovers and folder.cvs.exists():
        slow = restore_slow(load_checkpoint(folder.cvs)["slow"])
        s = ensemble.y[:, system.coordinates.soft].to(slow.map.matrix)
        with torch.no_grad():
            z, functions = to_array(slow.map(s)[0]), to_array(slow.functions(s))
        names, periodic = slow.names, slow.map.periodic
        for k, column in enumerate(functions.T):
            yield f"slow {k + 1}", column
    else:
        # Runs of one stage alone come here; `use` needs `execute`, which explains slow functions
        from gencg.run.use import with_cvs

        model = with_cvs(system, folder)  # or says what is missing
        z, names, periodic = model.cvs(ensemble.x), model.names, model.periodic
    for name, column in zip(names, z.T, strict=True):
        if periodic:
            yield f"cos {_grouped(name)}", np.cos(column)
            yield f"sin {_grouped(name)}", np.sin(column)
        else:
            yield name, column


def angle_of(name: str) -> str:
    """The angle whose cos or sin has this name."""
    name = name.removeprefix("cos ").removeprefix("sin ")
    return name[1:-1] if name.startswith("(") and name.endswith(")") else name


def _grouped(name: str) -> str:
    return f"({name})" if " " in name else name
