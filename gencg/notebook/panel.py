"""The panel of an explorer: click or slide on the surface, draw and play a path, pick a state."""

import base64
import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import numpy as np

from gencg.analysis.cv_names import shorter
from gencg.notebook.clickmap import ClickMap
from gencg.notebook.on_picture import surface_picture
from gencg.notebook.pictures import figure_png, frame_pngs, selection_png
from gencg.notebook.route import Route
from gencg.notebook.selection import Selection
from gencg.plots.states import state_colour
from gencg.plots.style import RAW

if TYPE_CHECKING:
    from gencg.notebook.explorer import Explorer

DECODED = 200
"""Structures that the button decodes."""
N_POINTS = 24
"""Points of a path that is drawn in the panel."""
_DPI = 96


class Panel:
    """Widgets around an explorer: they call its methods and show what these return.

    Args:
        explorer: What is explored.
    """

    def __init__(self, explorer: "Explorer") -> None:
        self.explorer = explorer
        self.points: list[list[float]] = []
        self.frames: list[bytes] = []
        self._quiet = False
        self._surface, self._place = surface_picture(explorer)
        self.map = ClickMap(png=base64.b64encode(figure_png(self._surface, dpi=_DPI)).decode())
        self.sliders = [self._slider(k) for k in range(explorer.surface.n_variables)]
        self.mode = widgets.ToggleButtons(
            options=["structures here", "draw a path"], style={"button_width": "auto"}
        )
        self.states = widgets.Dropdown(
            options=[("states", 0)]
            + [
                (f"{j + 1}: {s.basin or s.name} ({100 * s.population[0]:.3g} %)", j + 1)
                for j, s in enumerate(explorer.states)
            ]
        )
        self.decode = _button(f"decode {DECODED} anew", disabled=explorer.source.model is None)
        self.turn = widgets.IntSlider(0, -180, 180, 10, description="turn", **_LATE)
        self.walk, self.clear = _button("walk the path"), _button("clear the path")
        self.play = widgets.Play(min=0, max=0, interval=140)
        self.frame = widgets.IntSlider(0, 0, 0, description="point")
        widgets.jslink((self.play, "value"), (self.frame, "value"))
        self.folder = widgets.Text("explored", description="folder")
        self.save = _button("save")
        # Of one height, so that nothing below jumps when the structures change
        fixed = widgets.Layout(width="430px", height="300px", object_fit="contain")
        self.picture = widgets.Image(format="png", layout=fixed)
        self.facts, self.status = widgets.HTML(), widgets.HTML()
        self._connect()
        self.widget = self._laid_out()
        self.pick(list(explorer.surface.minimum))

    def pick(self, z: list[float], *, decode: int = 0) -> None:
        """Show the structures at a point.

        Args:
            z: Value of each variable that is shown.
            decode: Structures to decode anew; 0 takes the samples near.
        """
        self._move_sliders(z)
        self.map.marks = [self._mark(z, RAW, ""), *self._path_marks()]
        self._try(lambda: self._show_selection(self.explorer.at(z, decode=decode)))

    def add(self, z: list[float]) -> None:
        """Add a point to the path.

        Args:
            z: Value of each variable that is shown.
        """
        self.points.append(list(z))
        self.map.marks = self._path_marks()
        self._say(f"{len(self.points)} points; walk the path when there are two or more")

    def _connect(self) -> None:
        self.map.observe(self._on_click, "clicked")
        for slider in self.sliders:
            slider.observe(self._on_slide, "value")
        self.states.observe(self._on_state, "value")
        self.turn.observe(lambda _: self._redraw(), "value")
        self.frame.observe(lambda change: self._on_frame(change["new"]), "value")
        self.decode.on_click(lambda _: self.pick(self._at_sliders(), decode=DECODED))
        self.walk.on_click(lambda _: self._on_walk())
        self.clear.on_click(lambda _: self._on_clear())
        self.save.on_click(lambda _: self._try(self._on_save))

    def _on_click(self, change: dict[str, Any]) -> None:
        if not change["new"]:
            return
        z = self._place.to_data(*change["new"][:2])
        if z is None:
            return
        if self.mode.value == "draw a path":
            self.add(z)
        else:
            self.pick(z)

    def _on_slide(self, _: Any) -> None:
        if not self._quiet:
            self.pick(self._at_sliders())

    def _on_state(self, change: dict[str, Any]) -> None:
        k = change["new"]
        if not k:
            return
        centre = [self.explorer.states[k - 1].centre[a] for a in self.explorer.axes]
        self.map.marks = [self._mark(centre, state_colour(k - 1), str(k)), *self._path_marks()]
        self._try(lambda: self._show_selection(self.explorer.state(k)))

    def _on_walk(self) -> None:
        def walk() -> None:
            route = self.explorer.path(self.points, n_points=N_POINTS)
            self._say(f"walked {route.n_points} points; press play")
            self.facts.value = route._repr_html_()
            self._redraw()
            self.map.lines = self._place.lines(route, self.explorer)
            self.play.max = self.frame.max = route.n_points - 1
            self.frame.value = 0
            self._on_frame(0)

        self._try(walk)

    def _on_clear(self) -> None:
        self.points, self.frames = [], []
        self.play.max = self.frame.max = 0
        self.map.marks, self.map.lines = [], []
        self._say("")

    def _on_frame(self, k: int) -> None:
        route = self.explorer.selected
        if not isinstance(route, Route) or k >= route.n_points:
            return
        if self.frames:
            self.picture.value = self.frames[k]
        shown = [float(v) for v in route.path.points[k]]
        if len(shown) > len(self.explorer.axes):
            shown = [shown[a] for a in self.explorer.axes]
        self.map.marks = [*self._path_marks(), self._mark(shown, RAW, "")]

    def _on_save(self) -> None:
        files = self.explorer.save(self.folder.value.strip() or "explored")
        self._say(f"wrote {', '.join(path.name for path in files)} into {files[0].parent}")

    def _redraw(self) -> None:
        chosen, molecule = self.explorer.selected, self.explorer.ensemble.molecule
        if isinstance(chosen, Selection):
            self.picture.value = selection_png(chosen, turn=self.turn.value)
        elif isinstance(chosen, Route) and molecule is not None:
            self.frames = frame_pngs(chosen, molecule, turn=self.turn.value)
            self.picture.value = self.frames[min(self.frame.value, len(self.frames) - 1)]

    def _show_selection(self, selection: Selection) -> None:
        self._say("")
        self.map.lines = []
        self.facts.value = selection._repr_html_()
        self._redraw()

    def _try(self, action: Callable[[], None]) -> None:
        """Do it, or say why not: a panel has no other place for an error."""
        try:
            action()
        except (ValueError, OSError) as error:
            self._say(str(error), wrong=True)

    def _say(self, text: str, *, wrong: bool = False) -> None:
        colour = "#D55E00" if wrong else "inherit"
        self.status.value = f'<div style="color:{colour};max-width:40em">{html.escape(text)}</div>'

    def _slider(self, k: int) -> Any:
        surface = self.explorer.surface
        edges = surface.density.edges[k] * self._scale
        step = 5.0 if surface.periodic else float(edges[-1] - edges[0]) / 100
        return widgets.FloatSlider(
            float(edges[0]), min=float(edges[0]), max=float(edges[-1]), step=step,
            description=shorter(surface.names[k])[:14],
            readout_format=".0f" if surface.periodic else ".3g",
            **_LATE,
        )  # fmt: skip

    @property
    def _scale(self) -> float:
        return 180 / np.pi if self.explorer.periodic else 1.0

    def _at_sliders(self) -> list[float]:
        return [slider.value / self._scale for slider in self.sliders]

    def _move_sliders(self, z: list[float]) -> None:
        self._quiet = True
        for slider, value in zip(self.sliders, z, strict=True):
            slider.value = min(max(value * self._scale, slider.min), slider.max)
        self._quiet = False

    def _mark(self, z: list[float], colour: str, text: str) -> dict[str, Any]:
        x, y = self._place.to_picture(z)
        return {"x": x, "y": y, "colour": colour, "text": text}

    def _path_marks(self) -> list[dict[str, Any]]:
        return [self._mark(z, "#222222", chr(ord("a") + k % 26)) for k, z in enumerate(self.points)]

    def _laid_out(self) -> Any:
        row, column = widgets.HBox, widgets.VBox
        left = column([self.map, *self.sliders, self.mode, row([self.walk, self.clear])])
        right = column(
            [row([self.states, self.decode]), self.picture, self.turn,
             row([self.play, self.frame]), self.facts, row([self.folder, self.save])]
        )  # fmt: skip
        return column([row([left, right]), self.status])


def _button(text: str, *, disabled: bool = False) -> Any:
    return widgets.Button(description=text, disabled=disabled, layout=widgets.Layout(width="auto"))


_LATE: dict[str, Any] = {"continuous_update": False}
