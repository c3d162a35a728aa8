"""One HTML page for a run: the verdict in words, the figures, the numbers, how to go on.

The page needs no network: the figures are inside it, and beside it as PNG files.
"""

import base64
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gencg.analysis.assessment import Assessment, assess
from gencg.analysis.verdict import Verdict, overall
from gencg.ensemble import Ensemble
from gencg.plots.overview import Panel, overview
from gencg.systems.base import System

Rows = Iterable[Sequence[str]]


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
) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into a folder.

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

    Returns:
        Path of the page.
    """
    folder = Path(folder)
    if assessment is None:
        assessment = assess(system, ensemble, ladder=ladder)
    panels = [
        _panel(panel, folder / "figures")
        for panel in overview(system, ensemble, assessment, history=history)
    ]
    sections = [
        _verdicts(assessment.verdicts),
        _key_numbers(summary),
        *panels,
        _populations(assessment),
        _collective_variables(summary),
        _how_to_load(folder, system),
        _table_section("Settings", _pairs(settings)),
        _table_section("Versions", _pairs(versions)),
    ]
    title = f"{system.name} at {ensemble.temperature:g} K"
    page = _PAGE.format(
        title=html.escape(title),
        subtitle=html.escape(system.description),
        style=_STYLE,
        body="\n".join(section for section in sections if section),
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it holds either its old content or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _panel(panel: Panel, folder: Path) -> str:
    buffer = io.BytesIO()
    panel.figure.savefig(buffer, format="png", dpi=160)
    write_atomically(folder / f"{panel.name}.png", buffer.getvalue())
    data = base64.b64encode(buffer.getvalue()).decode()
    title, caption = html.escape(panel.title), html.escape(panel.caption)
    width = round(100 * panel.figure.get_figwidth())
    return (
        f'<section><h2>{title}</h2><figure><img alt="{title}" style="max-width:{width}px" '
        f'src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure></section>"
    )


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    top = overall(tuple(verdicts))
    items = "".join(
        f'<li class="{v.level}"><span class="mark">{_MARKS[v.level]}</span>'
        f"<div><b>{html.escape(v.name)}</b><br>{html.escape(v.text)}</div></li>"
        for v in verdicts
    )
    return (
        f'<section><p class="overall {top.level}">{html.escape(top.text)}</p>'
        f'<ul class="verdicts">{items}</ul></section>'
    )


def _key_numbers(summary: Mapping[str, Any]) -> str:
    tiles = [
        ("effective sample size", _number(summary.get("ess"), "{:.1%}")),
        ("log Z", _with_error(summary.get("log_z"), summary.get("log_z_error"))),
        ("Pareto k", _number(summary.get("pareto_k"), "{:.2f}")),
        ("energy calls", _number(summary.get("energy_calls"), "{:,.0f}")),
        ("wall time", _duration(summary.get("wall_seconds"))),
    ]
    cells = "".join(
        f"<div><span>{html.escape(name)}</span><b>{html.escape(value)}</b></div>"
        for name, value in tiles
    )
    return f'<section class="tiles">{cells}</section>'


def _populations(assessment: Assessment) -> str:
    if not assessment.reweighted:
        return ""
    known = bool(assessment.exact)
    header = ["state", "raw (%)", "reweighted (%)", *(["exact (%)"] if known else [])]
    rows = []
    for name, (value, error) in assessment.reweighted.items():
        raw, raw_error = assessment.raw[name]
        row = [name, percent(raw, raw_error), percent(value, error)]
        if known:
            exact = assessment.exact.get(name)
            row.append("" if exact is None else f"{100 * exact:.3g}")
        rows.append(row)
    note = (
        "Raw: as the generator drew them. Reweighted: Boltzmann populations. ± one standard error."
    )
    return _table_section("Populations, in numbers", rows, header=header, note=note)


def _collective_variables(summary: Mapping[str, Any]) -> str:
    if not summary.get("n_cvs"):
        return ""
    rows = [
        ("number", str(summary["n_cvs"])),
        ("joint effective sample size", _number(summary.get("joint_ess"), "{:.1%}")),
        ("bound gap", _number(summary.get("bound_gap"), "{:.3g} kT")),
    ]
    return _table_section("Collective variables", rows)


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
            f'\ntrajectory = mdtraj.load("{folder}/samples.h5")   # weights: in the same file'
        )
    return f"<section><h2>How to load the samples</h2><pre>{html.escape(code)}</pre></section>"


def _pairs(settings: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [
        (name, " ".join(map(str, value)) if isinstance(value, list | tuple) else _shown(value))
        for name, value in (settings or {}).items()
        if value is not None and value != () and value != []
    ]


def _table_section(title: str, rows: Rows, *, header: Sequence[str] = (), note: str = "") -> str:
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    if not body:
        return ""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    kind = "numbers" if header else "pairs"
    return (
        f'<section><h2>{html.escape(title)}</h2><table class="{kind}">'
        f"{f'<tr>{head}</tr>' if head else ''}{body}</table>"
        f"{f'<p class=note>{html.escape(note)}</p>' if note else ''}</section>"
    )


def percent(value: float, error: float) -> str:
    """A share and its error in per cent, to the digits that the error allows."""
    digits = 2 if error < 1e-9 else min(max(1 - _exponent(100 * error), 0), 6)
    return f"{100 * value:.{digits}f} ± {100 * error:.{digits}f}"


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _with_error(value: float | None, error: float | None) -> str:
    if value is None or error is None:
        return "–"
    digits = min(max(-_exponent(error) + 0, 2), 6) if error > 0 else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _number(value: float | None, pattern: str) -> str:
    return "–" if value is None else pattern.format(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


_MARKS = {"good": "✓", "fair": "!", "poor": "✗", "open": "?"}

_STYLE = """
:root { color-scheme: light dark; --bg: #ffffff; --card: #f6f7f9; --text: #1b1f24;
  --soft: #5b6470; --line: #d9dde3; --good: #00734f; --fair: #9a5b00; --poor: #b3261e;
  --open: #4a5a9a; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --card: #1d2127; --text: #e8eaed;
  --soft: #a3abb6; --line: #343a43; --good: #4cc79b; --fair: #f0b04f; --poor: #ff8a80;
  --open: #a9b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1060px; padding: 2rem 1.25rem 4rem; background: var(--bg);
  color: var(--text); font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
header p { color: var(--soft); margin: .2rem 0 1.2rem; }
.overall { font-size: 1.15rem; font-weight: 600; padding: .8rem 1rem; border-left: 5px solid;
  background: var(--card); border-radius: 4px; }
.good { color: var(--good); } .fair { color: var(--fair); }
.poor { color: var(--poor); } .open { color: var(--open); }
.verdicts { list-style: none; padding: 0; display: grid; gap: .7rem;
  grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); }
.verdicts li { display: flex; gap: .8rem; padding: .8rem 1rem; background: var(--card);
  border-radius: 6px; } .verdicts div { color: var(--text); }
.mark { font-weight: 700; font-size: 1.2rem; width: 1.2rem; text-align: center; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; }
.tiles div { flex: 1 1 150px; padding: .7rem 1rem; border: 1px solid var(--line);
  border-radius: 6px; }
.tiles span { display: block; color: var(--soft); font-size: .85rem; }
.tiles b { font-size: 1.15rem; white-space: nowrap; }
figure { margin: 0; } figure img { width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
figcaption, .note { color: var(--soft); font-size: .92rem; margin: .4rem 0 0; }
table { border-collapse: collapse; min-width: 50%; }
th, td { text-align: left; padding: .3rem 1.4rem .3rem 0; border-bottom: 1px solid var(--line); }
.numbers th:not(:first-child), .numbers td:not(:first-child) { text-align: right;
  font-variant-numeric: tabular-nums; }
.pairs td:first-child { color: var(--soft); }
.pairs td { overflow-wrap: anywhere; }
pre { background: var(--card); padding: 1rem; border-radius: 6px; overflow-x: auto; }
@media (max-width: 520px) { .verdicts { grid-template-columns: 1fr; } }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>gencg: {title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body><header><h1>{title}</h1><p>{subtitle}</p></header>
{body}
</body></html>
"""
