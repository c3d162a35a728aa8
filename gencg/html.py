"""Cards for notebooks: a title, figures and a verdict in words, readable on dark and light."""

import html
from collections.abc import Sequence

COLOURS = {"good": "#009E73", "fair": "#E69F00", "poor": "#D55E00", "open": "#888888"}
"""Colour of a verdict's rim; none says anything that the words do not."""
_SIGNS = {"good": "✓", "fair": "!", "poor": "✗", "open": "?"}
_GREY = "rgba(128,128,128,0.35)"


def card(
    title: str,
    rows: Sequence[tuple[str, str]],
    *,
    verdicts: Sequence[tuple[str, str]] = (),
    note: str = "",
) -> str:
    """A compact table as HTML; everything is escaped, nothing is loaded.

    Colours of the text and the ground are those of the page, so that it reads on dark and light.

    Args:
        title: What it is.
        rows: Names and values.
        verdicts: Levels ("good", "fair", "poor", "open") and what to say, the worst level first.
        note: A line below.
    """
    order = ("poor", "fair", "open", "good")
    ranked = sorted(verdicts, key=lambda verdict: order.index(verdict[0]))
    rim = COLOURS[ranked[0][0]] if ranked else _GREY
    cells = "".join(
        f'<tr style="background:transparent"><td style="{_CELL}opacity:0.75">{html.escape(name)}'
        f'</td><td style="{_CELL}">{html.escape(value)}</td></tr>'
        for name, value in rows
    )
    words = "".join(
        f'<div style="margin-top:0.3em"><b style="color:{COLOURS[level]}">{_SIGNS[level]}</b> '
        f"{html.escape(text)}</div>"
        for level, text in ranked
    )
    below = f'<div style="margin-top:0.3em;opacity:0.75">{html.escape(note)}</div>' if note else ""
    return (
        f'<div style="border:1px solid {_GREY};border-left:4px solid {rim};border-radius:3px;'
        'padding:0.5em 0.9em;display:inline-block;max-width:44em;color:inherit;line-height:1.35">'
        f"<b>{html.escape(title)}</b>"
        f'<table style="border-collapse:collapse;margin:0.3em 0 0 0;background:transparent;'
        f'color:inherit">{cells}</table>{words}{below}</div>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML, everything escaped, in the colours of the page.

    Args:
        head: Names of the columns.
        rows: Their values.
    """
    top = "".join(
        f'<th style="{_CELL}border-bottom:1px solid {_GREY}">{html.escape(name)}</th>'
        for name in head
    )
    body = "".join(
        '<tr style="background:transparent">'
        + "".join(f'<td style="{_CELL}">{html.escape(value)}</td>' for value in row)
        + "</tr>"
        for row in rows
    )
    return (
        '<table style="border-collapse:collapse;background:transparent;color:inherit">'
        f'<tr style="background:transparent">{top}</tr>{body}</table>'
    )


def measured(value: float, error: float, *, digits: int = 4) -> str:
    """A value with its standard error, to the first two digits of the error.

    Args:
        value: The value.
        error: Its standard error; where it is not positive and finite, it is told as it is.
        digits: Digits of the value then.
    """
    if not 0 < error < float("inf"):
        return f"{value:.{digits}g} ± {error:g}"
    exponent = int(f"{error:.1e}".partition("e")[2])
    places = max(0, 1 - exponent)
    return f"{value:.{places}f} ± {error:.{places}f}"


_CELL = "text-align:left;padding:0.05em 1.2em 0.05em 0;border:none;background:transparent;"
