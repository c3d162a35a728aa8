"""The panel, driven as a browser would: clicks, sliders, buttons.

Cannot detect: what a browser makes of the script, or of the layout.
"""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from cv_samples import made_up_ensemble

import gencg
from gencg.notebook import Explorer, Route, Selection
from gencg.notebook import display as showing
from gencg.systems import alanine_dipeptide

for extra in ("ipywidgets", "anywidget", "py3Dmol"):
    pytest.importorskip(extra)


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    ensemble = made_up_ensemble(alanine_dipeptide(), 1500)
    return gencg.explore(ensemble, names=("phi(ALA2)", "psi(ALA2)"))


def test_the_panel_does_what_the_methods_do(explorer: Explorer, tmp_path: Path) -> None:
    from gencg.notebook.panel import Panel

    panel, weights = Panel(explorer), explorer.ensemble.log_weights.clone()
    assert base64.b64decode(panel.map.png)[:4] == b"\x89PNG"
    # It opens at the minimum
    start = explorer.at(explorer.surface.minimum)
    assert start.title in panel.facts.value
    assert panel.picture.value[:4] == b"\x89PNG"
    assert panel.decode.disabled

    # A click is where it is seen: back and forth between picture and variables
    z = np.radians([-75.0, -20.0]).tolist()
    there = panel._place.to_picture(z)
    panel.map.clicked = [*there, 1]
    assert isinstance(explorer.selected, Selection)
    assert explorer.selected.z == pytest.approx(z)
    assert [s.value for s in panel.sliders] == pytest.approx([-75, -20])
    before = panel.picture.value
    panel.turn.value = 90
    assert panel.picture.value != before
    # Outside of the axes nothing happens
    panel.map.clicked = [0.001, 0.001, 2]
    assert explorer.selected.z == pytest.approx(z)

    # Sliding selects too; where nothing is, it says so and goes on
    panel.sliders[0].value = -70.0
    assert explorer.selected.z == pytest.approx(np.radians([-70.0, -20.0]))
    explorer.ensemble.log_weights.fill_(-np.inf)
    panel.pick(z)
    assert "no sample with weight is near phi(ALA2) -75°" in panel.status.value
    explorer.ensemble.log_weights.copy_(weights)

    # A path of clicked points, walked and played
    panel.mode.value = "draw a path"
    for point in ([-150.0, 165.0], [-75.0, -20.0]):
        panel.map.clicked = [*panel._place.to_picture(np.radians(point).tolist()), 3]
    assert [mark["text"] for mark in panel.map.marks] == ["a", "b"]
    panel.walk.click()
    assert isinstance(explorer.selected, Route)
    assert len(panel.frames) == explorer.selected.n_points == panel.frame.max + 1
    panel.frame.value = 3
    assert panel.picture.value == panel.frames[3]
    left, bottom, width, height = panel._place.box
    figure = panel._surface
    drawn = figure.axes[0].get_window_extent().transformed(figure.transFigure.inverted())
    assert panel._place.box == pytest.approx(drawn.bounds, abs=1e-6)
    for x, y in (point for line in panel.map.lines for point in line):
        assert left - 1e-6 <= x <= left + width + 1e-6
        assert bottom - 1e-6 <= 1 - y <= bottom + height + 1e-6
    panel.clear.click()
    assert (panel.map.marks, panel.map.lines, panel.points) == ([], [], [])
    panel.walk.click()
    assert "must be at least two, got 0" in panel.status.value

    panel.states.value = 2
    assert explorer.selected.state == 1
    assert panel.map.marks[0]["text"] == "2"
    panel.folder.value = str(tmp_path / "saved")
    panel.save.click()
    assert "representative.pdb" in panel.status.value
    assert (tmp_path / "saved" / "samples.xtc").exists()


def test_a_notebook_shows_the_panel(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(
        showing, "_ipython_display", lambda: lambda data, raw=False: shown.append(data)
    )
    explorer.show()
    assert "text/html" in shown[0]
    assert shown[1].comm is not None


def test_the_view_to_turn_holds_the_structures(explorer: Explorer) -> None:
    explorer.at(explorer.surface.minimum)
    view = explorer.view3d()
    assert view._make_html().count("addModel") == 12
    route = explorer.path(np.radians([[-150.0, 165.0], [-75.0, -20.0]]), n_points=3)
    assert "addModelsAsFrames" in explorer.view3d(route)._make_html()
