"""The report of a run: the verdict in words, the figures, the numbers, how to go on.

The page needs no network: the figures are inside it, and beside it as PNG files.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gencg.analysis.assessment import Assessment, assess
from gencg.analysis.basins import Basin
from gencg.analysis.cv_names import shorter
from gencg.analysis.verdict import Verdict, overall
from gencg.discover import SlowCVs
from gencg.ensemble import Ensemble
from gencg.export.structures import write_equal_weight
from gencg.files import write_atomically
from gencg.objectives.bound_gap import BoundGap
from gencg.plots.overview import overview
from gencg.report.collective import collective_sections
from gencg.report.look import PAGE, STYLE
from gencg.report.methods import methods_section
from gencg.report.pieces import (
    download,
    duration,
    number,
    panel_section,
    percent,
    shown,
    table_section,
    with_error,
)
from gencg.systems.base import System
from gencg.training import Optimisation

N_STRUCTURES = 20
"""Structures of equal weight that the page carries."""


def write_report(
    folder: str | Path,
    ensemble: Ensemble,
    *,
    system: System,
    summary: Mapping[str, Any],
    history: Sequence[Any] = (),
    ladder: Sequence[Any] | None = None,
    assessment: Assessment | None = None,
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    optimisation: Optimisation | None = None,
    slow: SlowCVs | None = None,
    gap: BoundGap | None = None,
    basins: Sequence[Basin] | None = None,
    explanations: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write ``report.html``, ``figures/*.png``, of a molecule ``structures.pdb``, with CVs
    ``basins/*.pdb``, into a folder.

    Args:
        folder: Run folder; made if missing.
        ensemble: The samples.
        system: What was sampled.
        summary: Contents of summary.json.
        history: Log lines of the training.
        ladder: Samples of the hotter stages; read where `assessment` is not given.
        assessment: From `gencg.analysis.assess`, where it was made already.
        settings: The run's settings by name.
        versions: Versions of the programs by name.
        optimisation: How the parameters moved in training.
        slow: The collective variables, where the ensemble is one of the joint model.
        gap: What the encoder costs.
        basins: From `gencg.analysis.find_basins`, where they were found already.
        explanations: Of the slow functions, as `Explanation.numbers` gives them.

    Returns:
        Path of the page.

    Raises:
        ValueError: If no sample carries weight, or `ensemble` does not hold the variables of
            `slow`.
    """
    folder = Path(folder)
    if assessment is None:
        assessment = assess(system, ensemble, ladder=ladder)
    panels = [
        panel_section(panel, folder / "figures")
        for panel in overview(system, ensemble, assessment, history=history)
    ]
    variables = [_collective_variables(summary)]
    if slow is not None:
        variables = list(
            collective_sections(
                folder,
                system,
                ensemble,
                slow,
                gap,
                summary,
                basins=basins,
                explanations=explanations,
            )
        )
    sections = [
        _verdicts(assessment.verdicts),
        _key_numbers(summary, joint=slow is not None),
        *(variables if slow is not None else []),
        *panels,
        _touched(history),
        _populations(assessment, ensemble),
        *(variables if slow is None else []),
        _structures(folder, ensemble),
        methods_section(
            system,
            ensemble,
            summary,
            settings=settings,
            versions=versions,
            history=history,
            optimisation=optimisation,
        ),
        _how_to_load(folder, system),
        table_section("Settings", _pairs(settings)),
        table_section("Versions", _pairs(versions)),
    ]
    title = f"{system.name} at {ensemble.temperature:g} K"
    page = PAGE.format(
        title=html.escape(title),
        subtitle=html.escape(system.description),
        style=STYLE,
        body="\n".join(section for section in sections if section),
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    top = overall(tuple(verdicts))
    items = "".join(
        f'<li class="{v.level}"><span class="mark">{_MARKS[v.level]}</span>'
        f"<div><b>{html.escape(v.name)}</b><br>{html.escape(shorter(v.text))}</div></li>"
        for v in verdicts
    )
    return (
        f'<section><p class="overall {top.level}">{html.escape(top.text)}</p>'
        f'<ul class="verdicts">{items}</ul></section>'
    )


def _key_numbers(summary: Mapping[str, Any], *, joint: bool) -> str:
    """The numbers of the samples on the page: of the joint model, where there is one."""
    of_samples = {
        name: summary.get(f"joint_{name}" if joint else name)
        for name in ("ess", "log_z", "log_z_error", "pareto_k")
    }
    tiles = [
        ("effective sample size", number(of_samples["ess"], "{:.1%}")),
        ("log Z", with_error(of_samples["log_z"], of_samples["log_z_error"])),
        ("Pareto k", number(of_samples["pareto_k"], "{:.2f}")),
        ("energy calls", number(summary.get("energy_calls"), "{:,.0f}")),
        ("wall time", duration(summary.get("wall_seconds"))),
    ]
    cells = "".join(
        f"<div><span>{html.escape(name)}</span><b>{html.escape(value)}</b></div>"
        for name, value in tiles
    )
    return f'<section class="tiles">{cells}</section>'


def _touched(history: Sequence[Any]) -> str:
    """One line about the samples that training did not take as they were."""
    if not history or not all(hasattr(history[0], name) for name in _TOUCHED):
        return ""
    late = history[-max(len(history) // 10, 1) :]
    words = ", ".join(
        f"{_mean(history, name)} {what} ({_mean(late, name)} in the last tenth)"
        for name, what in _TOUCHED.items()
    )
    return f'<section><p class="note">Of a training batch, on average: {words}.</p></section>'


def _mean(history: Sequence[Any], name: str) -> str:
    return f"{sum(getattr(info, name) for info in history) / len(history):.3g}"


def _populations(assessment: Assessment, ensemble: Ensemble) -> str:
    if not assessment.reweighted:
        return ""
    known = bool(assessment.exact)
    header = ["state", "raw (%)", "reweighted (%)", *(["exact (%)"] if known else [])]
    rows = []
    for name, (value, error) in assessment.reweighted.items():
        raw, raw_error = assessment.raw[name]
        row = [
            shorter(name),
            percent(raw, raw_error, n_effective=int(ensemble.valid.sum())),
            percent(value, error, n_effective=ensemble.ess * ensemble.n_samples),
        ]
        if known:
            exact = assessment.exact.get(name)
            row.append("" if exact is None else f"{100 * exact:.3g}")
        rows.append(row)
    note = (
        "Raw: as the generator drew them. Reweighted: Boltzmann populations. ± one standard error. "
        "Not seen: the bound holds with 95 % confidence, if the generator reaches the state at all."
    )
    return table_section("Populations, in numbers", rows, header=header, note=note)


def _collective_variables(summary: Mapping[str, Any]) -> str:
    if not summary.get("n_cvs"):
        return ""
    rows = [
        ("number", str(summary["n_cvs"])),
        ("joint effective sample size", number(summary.get("joint_ess"), "{:.1%}")),
        ("bound gap", number(summary.get("bound_gap"), "{:.3g} kT")),
    ]
    return table_section("Collective variables", rows)


def _structures(folder: Path, ensemble: Ensemble) -> str:
    """Structures of equal weight to take away; nothing of a toy."""
    if ensemble.molecule is None:
        return ""
    path = folder / "structures.pdb"
    write_equal_weight(path, ensemble, n=N_STRUCTURES)
    what = f"{N_STRUCTURES} structures drawn by weight: each stands for as much as any other"
    note = "In this page and the run's folder. All samples, with their weights, are in samples.h5."
    rows = [(download(path, folder), what)]
    return table_section(
        "Structures to take away", rows, header=("file", "what it holds"), note=note, words=True
    )


def _how_to_load(folder: Path, system: System) -> str:
    code = (
        "import gencg\n"
        f'ensemble = gencg.read_samples("{folder}")   # x, y, energy, log_weights\n'
        "print(ensemble)\n"
        "mean, error = ensemble.expectation(ensemble.energy)"
    )
    if system.molecule is not None:
        code += (
            "\n\nimport mdtraj"
            f'\ntrajectory = mdtraj.load("{folder}/samples.h5")   # by PyTables: gencg[hdf5]'
        )
    return f"<section><h2>How to load the samples</h2><pre>{html.escape(code)}</pre></section>"


def _pairs(settings: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [
        (name, " ".join(map(str, value)) if isinstance(value, list | tuple) else shown(value))
        for name, value in (settings or {}).items()
        if value is not None and value != () and value != []
    ]


_MARKS = {"good": "✓", "fair": "!", "poor": "✗", "open": "?"}
_TOUCHED = {
    "n_compressed": "samples had their energy compressed",
    "n_dropped": "were left out as the worst",
    "n_invalid": "were not finite",
}
