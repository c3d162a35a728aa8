"""Pieces of the page: sections, tables, numbers to the digits that their errors allow."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gencg.files import write_atomically
from gencg.plots.overview import Panel

Rows = Iterable[Sequence[str]]


class Markup(str):
    """A cell that is HTML already."""

    __slots__ = ()


def download(path: Path, folder: Path) -> Markup:
    """A link to a structure in `folder` that the page carries in itself, to be sent alone."""
    data = base64.b64encode(path.read_bytes()).decode()
    name = html.escape(path.relative_to(folder).as_posix())
    return Markup(
        f'<a download="{html.escape(path.name)}" '
        f'href="data:chemical/x-pdb;base64,{data}">{name}</a>'
    )


def panel_section(panel: Panel, folder: Path) -> str:
    """A figure with heading and caption; its file goes into `folder` as well."""
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


def table_section(
    title: str, rows: Rows, *, header: Sequence[str] = (), note: str = "", words: bool = False
) -> str:
    """A table with its heading, of numbers or of words; nothing for no rows."""
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    if not body:
        return ""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    kind = "words" if words else "numbers" if header else "pairs"
    return (
        f'<section><h2>{html.escape(title)}</h2><table class="{kind}">'
        f"{f'<tr>{head}</tr>' if head else ''}{body}</table>"
        f"{f'<p class=note>{html.escape(note)}</p>' if note else ''}</section>"
    )


def _cell(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(text)


def percent(value: float, error: float, *, n_effective: float | None = None, unit: str = "") -> str:
    """A share and its error in per cent, to the digits that the error allows.

    Args:
        value: The share.
        error: Its standard error.
        n_effective: Effective number of samples behind it. A share of zero is then one that was
            not seen: below 3 / n with 95 % confidence, if the generator reaches it at all.
        unit: What follows a number that was seen.
    """
    if value == 0 and n_effective:
        return f"not seen (< {300 / n_effective:.2g} %)"
    digits = 2 if error < 1e-9 else min(max(1 - exponent(100 * error), 0), 6)
    return f"{100 * value:.{digits}f} ± {100 * error:.{digits}f}{unit}"


def shown(value: Any) -> str:
    """A setting as text."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def with_error(value: float | None, error: float | None) -> str:
    """A value and its error, at least two decimals."""
    if value is None or error is None:
        return "–"
    digits = min(max(-exponent(error) + 0, 2), 6) if error > 0 else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def number(value: float | None, pattern: str) -> str:
    """A number as `pattern` says, a dash for none."""
    return "–" if value is None else pattern.format(value)


def duration(seconds: float | None) -> str:
    """Seconds in words."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def digits_of(value: float, error: float) -> str:
    """A value and its error to two digits of the error; the value alone where it is unknown."""
    if not 0 < error < float("inf"):
        return f"{value:.3g}"
    digits = min(max(1 - exponent(error), 0), 8)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def exponent(value: float) -> int:
    """Power of ten of the leading digit."""
    return int(f"{value:e}".partition("e")[2])
