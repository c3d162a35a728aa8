"""Showing an explorer: the panel where there are widgets, else its figure and what to install."""

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

from gencg.notebook.pictures import figure_png

if TYPE_CHECKING:
    from gencg.notebook.explorer import Explorer

logger = logging.getLogger("gencg")

WIDGETS = ("ipywidgets", "anywidget")
"""What the panel needs."""
_told: set[str] = set()


def missing() -> list[str]:
    """Packages that the panel needs and that are not there."""
    return [name for name in WIDGETS if importlib.util.find_spec(name) is None]


def show(explorer: "Explorer") -> None:
    """Show an explorer where this runs; see `Explorer.show`.

    Args:
        explorer: What to show.
    """
    if lacking := missing():
        tell_once(
            f"the panel to click in needs {' and '.join(lacking)}: pip install 'gencg[notebook]'; "
            "here is a figure in its place, and every method works without"
        )
    display = _ipython_display()
    if display is None:
        # No notebook: what there is to see goes to the terminal
        print(f"{explorer!r}")
        return
    display({"text/html": explorer._repr_html_(), "text/plain": repr(explorer)}, raw=True)
    if lacking:
        display({"image/png": figure_png(explorer.figure(), dpi=110)}, raw=True)
    else:
        from gencg.notebook.panel import Panel

        display(Panel(explorer).widget)


def tell_once(text: str) -> None:
    """Say something the first time only.

    Args:
        text: One line.
    """
    if text not in _told:
        _told.add(text)
        logger.warning(text)


def _ipython_display() -> Any:
    """The `display` of a running IPython; None outside of one."""
    if importlib.util.find_spec("IPython") is None:
        return None
    from IPython import get_ipython
    from IPython.display import display

    return None if get_ipython() is None else display
