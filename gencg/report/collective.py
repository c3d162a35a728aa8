"""The report's part on collective variables: words, processes, basins with their structures."""

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gencg.analysis.basins import Basin, find_basins
from gencg.analysis.cv_names import cv_label, shorter
from gencg.discover import SlowCVs
from gencg.discover.slow_cvs import MIN_POPULATION
from gencg.ensemble import Ensemble
from gencg.export.structures import write_structures
from gencg.objectives.bound_gap import BoundGap
from gencg.plots.cv_overview import cv_panels
from gencg.report.pieces import (
    digits_of,
    download,
    number,
    panel_section,
    percent,
    table_section,
)
from gencg.systems.base import System


def collective_sections(
    folder: Path,
    system: System,
    ensemble: Ensemble,
    slow: SlowCVs,
    gap: BoundGap | None,
    summary: Mapping[str, Any],
    *,
    basins: Sequence[Basin] | None = None,
    explanations: Sequence[Mapping[str, Any]] = (),
) -> Iterator[str]:
    """Sections in words, figures and tables; writes ``basins/basin1.pdb`` and so on.

    Raises:
        ValueError: If the ensemble has no collective variables, or not as many as `slow`.
    """
    if ensemble.z.shape[1] != slow.n_cvs:
        raise ValueError(
            f"`ensemble` must come from the joint model and hold {slow.n_cvs} CVs in z, "
            f"got {ensemble.z.shape[1]}"
        )
    if basins is None:
        basins = find_basins(ensemble.z, ensemble.log_weights, periodic=slow.map.periodic)
    files = write_structures(folder / "basins", ensemble, [b.representative for b in basins])
    yield _in_words(slow, gap, summary)
    if explanations:
        yield _explanations(explanations)
    yield _basins(basins, slow, [download(path, folder) for path in files])
    for panel in cv_panels(system, ensemble, slow, gap, basins=basins):
        yield panel_section(panel, folder / "figures")
    yield _processes(slow)
    if len(slow.shares):
        yield _carriers(slow, system)


def _in_words(slow: SlowCVs, gap: BoundGap | None, summary: Mapping[str, Any]) -> str:
    paragraphs = [
        _what_they_are(slow),
        _how_slow(slow),
        _certainty(slow),
        _efficiency(summary),
        "" if gap is None else _bound_gap(gap),
    ]
    body = "".join(f"<p>{html.escape(text)}</p>" for text in paragraphs if text)
    return f"<section><h2>Collective variables</h2>{body}</section>"


def _explanations(explanations: Sequence[Mapping[str, Any]]) -> str:
    """Formulas of the slow functions, or that there is none."""
    rows = []
    for found in explanations:
        name = re.sub(r"^slow (\d+)$", r"slow function \1", str(found["name"]))
        if not name.startswith("slow"):
            continue
        formula = _greek(str(found["formula"]))
        attempt = "" if found["found"] else f" (the nearest: {_greek(str(found['attempt']))})"
        rows.append([name, f"{formula}{attempt}", str(found["verdict"])])
    note = (
        "Square brackets are one where the torsion lies between the two angles, zero elsewhere. "
        "gencg explain RUN tells the errors, the terms that could stand in, and colours the atoms."
    )
    header = ["", "is about", "what the formula is worth"]
    return table_section("In chemical words", rows, header=header, note=note, words=True)


def _greek(text: str) -> str:
    return shorter(re.sub(r"\b(phi|psi|omega|chi)(?=\d?\()", lambda m: _GREEK[m[1]], text))


def _what_they_are(slow: SlowCVs) -> str:
    names = [plain_name(name) for name in slow.names]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    one = slow.n_cvs == 1
    text = f"{count(slow.n_cvs)} collective variable{'' if one else 's'}: {listed}."
    if slow.linear:
        return text
    return f"{text} Named after the straight combination that {'it bends' if one else 'they bend'}."


def _how_slow(slow: SlowCVs) -> str:
    n = slow.n_processes
    text = f"{count(n)} slow process{'' if n == 1 else 'es'} stand{'s' if n == 1 else ''} out"
    if math.isfinite(slow.gap):
        text += (
            ": in the spectrum that the variables were chosen by, the next one is "
            f"{slow.gap:.2g} times as fast as the last of these"
        )
    if math.isfinite(slow.support):
        text += f"; {slow.support:.0%} of resamplings of the samples have this gap"
    return (
        f"{text}. The times are those of overdamped motion, relative to the slowest: they order "
        "the motions, they are not physical times."
    )


def _certainty(slow: SlowCVs) -> str:
    if slow.doubts:
        return f"What the samples do not determine: {'; '.join(slow.doubts)}."
    if not len(slow.agreement):
        return ""
    text = (
        "The samples determine them: each slow function correlates with itself in resamplings by "
        f"{float(slow.agreement.min()):.3f} or more"
    )
    if len(slow.frequency):
        least = float(slow.frequency.min())
        share = "all" if least == 1 else f"{least:.0%} or more of"
        text += f", and each variable is chosen again in {share} disjoint parts of the samples"
    if slow.network is not None:
        gains, errors = slow.network.gains, slow.network.errors
        k = int(gains.argmax())
        gain, error = float(gains[k]), float(gains[k] * errors[k])
        slower = (
            f"no process slower by more than a factor of {gain:.3f} ± {error:.3f}"
            if gain > 1.0005
            else "nothing slower"
        )
        text += f". Networks of all soft torsions find {slower}"
    return f"{text}."


def _efficiency(summary: Mapping[str, Any]) -> str:
    joint, alone = summary.get("joint_ess"), summary.get("ess")
    if joint is None:
        return ""
    text = f"The effective sample size of configurations and variables together is {joint:.1%}"
    return f"{text}, that of the configurations alone {alone:.1%}." if alone else f"{text}."


def _bound_gap(gap: BoundGap) -> str:
    return (
        f"The bound gap lies between {gap.lower:.3f} and {gap.upper:.3f} kT (± {gap.error:.3f}): "
        f"{gap.verdict}."
    )


def _processes(slow: SlowCVs) -> str:
    found = slow.spectrum
    held_out = dict(zip(slow.places, slow.eigenvalues.tolist(), strict=True))
    again = dict(zip(slow.places, slow.agreement.tolist(), strict=False))
    rows = []
    for k, value in enumerate(found.eigenvalues.tolist()):
        share = float(found.populations[k])
        rows.append(
            [
                f"{k + 1}{' (rare)' if share < MIN_POPULATION else ''}",
                digits_of(value, float(found.errors[k])),
                f"{held_out[k]:.3g}" if k in held_out else "",
                f"{float(found.eigenvalues[0]) / value:.2g}",
                f"{100 * share:.2g}",
                number(float(found.n_transition[k]), "{:,.0f}"),
                f"{again[k]:.4f}" if k in again else "",
            ]
        )
    header = ["process", "eigenvalue", "held out", "relative time", "moved (%)", "samples", "again"]
    note = (
        "Eigenvalue: of the Dirichlet form, ± one standard error, and again on samples that the "
        "function was not fitted to. Moved: population that the process exchanges. Samples: the "
        "effective number that carries the eigenvalue, most of them on the barriers. Again: "
        "correlation of a slow function with itself in resamplings."
    )
    return table_section("Slow processes, in numbers", rows, header=header, note=note)


def _carriers(slow: SlowCVs, system: System) -> str:
    """Which soft torsions carry each slow process."""
    coordinates = system.coordinates
    names = [coordinates.names[i] for i in coordinates.soft.nonzero()[:, 0].tolist()]
    rows = []
    for k, (value, shares) in enumerate(
        zip(slow.reference.tolist(), slow.shares.tolist(), strict=True)
    ):
        order = sorted(range(len(shares)), key=lambda i: -shares[i])
        parts = [f"{plain_name(names[i])} {shares[i]:.0%}" for i in order if shares[i] >= 0.05]
        rows.append([str(k + 1), f"{value:.3g}", ", ".join(parts)])
    note = (
        "Share of each soft torsion in the Dirichlet form of each slow function of all of them: "
        "what turns while the process happens."
    )
    header = ["slow function", "eigenvalue", "carried by"]
    return table_section(
        "What carries the slow processes", rows, header=header, note=note, words=True
    )


def _basins(basins: Sequence[Basin], slow: SlowCVs, files: Sequence[str]) -> str:
    angles = slow.map.periodic
    rows = []
    for k, basin in enumerate(basins):
        centre = np.degrees(basin.centre) if angles else np.asarray(basin.centre)
        rows.append(
            [
                str(k + 1),
                *(f"{value:.0f}" if angles else f"{value:.2f}" for value in centre),
                percent(basin.population, basin.error),
                f"{basin.n_effective:,.0f}",
                *([files[k]] if files else []),
            ]
        )
    unit = " (deg)" if angles else ""
    header = [
        "basin",
        *(plain_name(name) + unit for name in slow.names),
        "population (%)",
        "samples",
        *(["structure"] if files else []),
    ]
    note = "Minima of the free energy over the variables, cut at the passes between them."
    if slow.n_cvs > 2:
        note += " Found over the first two variables."
    if files:
        note += " Structure: a sample of full weight near the centre, in this page and the folder."
    return table_section("Basins", rows, header=header, note=note)


_GREEK = {"phi": "φ", "psi": "ψ", "omega": "ω", "chi": "χ"}


def plain_name(name: str) -> str:
    """A variable's name in Unicode: "1 phi(ALA2) -1 psi(ALA2)" becomes "φ(ALA2) − ψ(ALA2)"; see
    `shorter`."""
    return shorter(
        cv_label(
            name, lambda c: re.sub(r"^(phi|psi|omega|chi)(?=\d?\b)", lambda m: _GREEK[m[1]], c)
        )
    )


def count(n: int) -> str:
    """A small number in words, as a sentence begins."""
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
    return words[n] if n < len(words) else str(n)
