"""Exploring without widgets: structures at a point, along a path, of a state, and their files.

Cannot detect: whether the pictures are good to look at, or a surface that the samples miss.
"""

import json
import math
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from cv_samples import made_up_ensemble
from PIL import Image
from pyro.distributions import Independent, Normal

import gencg
from gencg.analysis.histogram import wrap
from gencg.coordinates.base import Cartesian
from gencg.ensemble import Ensemble
from gencg.fit import FitResult, as_result
from gencg.models.base import ConditionalDistribution
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.notebook import Explorer
from gencg.notebook import display as showing
from gencg.systems import alanine_dipeptide, double_well
from gencg.target import BoltzmannTarget
from gencg.units import BOLTZMANN_CONSTANT, temperature_of

NAMES = ("phi(ALA2)", "psi(ALA2)")


class Linear(ConditionalDistribution):
    """N(slope * context, width^2) in one dimension; the context may be empty."""

    def __init__(self, slope: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        self.slope, self.width = slope, torch.nn.Parameter(torch.tensor(width))

    def forward(self, context: torch.Tensor) -> Independent:
        loc = self.slope * context if context.shape[1] else context.new_zeros(len(context), 1)
        return Normal(loc, self.width).to_event(1)


class Harmonic(gencg.Energy):
    """U = x^2 / 2 in one dimension."""

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x[..., 0] ** 2


def exact_fit() -> FitResult:
    """y ~ N(0, 1), z = 0.6 y + 0.8 noise ~ N(0, 1), the decoder is p(y|z): equal weights."""
    system = gencg.System("harmonic", Harmonic((1,)), Cartesian(1), temperature_of(1.0))
    model = CoarseGrainedModel(
        Linear(0.6, 0.8), prior=Linear(), encoder=Linear(0.6, 0.8), n_cvs=1
    ).double()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    return as_result(system, model, target=target)


@pytest.fixture(scope="module")
def dipeptide() -> Ensemble:
    """Made-up samples in four basins of the dipeptide, z their blurred phi and psi."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    return made_up_ensemble(alanine_dipeptide(), 3000)


@pytest.fixture
def explorer(dipeptide: Ensemble) -> Explorer:
    return gencg.explore(dipeptide, names=NAMES)


def test_free_energies_are_exact_from_samples_and_decoded() -> None:
    explorer = gencg.explore(exact_fit(), n_samples=20_000)
    kt = BOLTZMANN_CONSTANT * explorer.ensemble.temperature
    assert explorer.ensemble.ess == pytest.approx(1.0)
    (width,) = explorer.surface.widths
    for z in (-1.2, 0.0, 1.5):
        decoded, near = explorer.at(z, decode=2000), explorer.at([z])
        # F = kT z^2 / 2 but for the zero, which is where the smoothed density is highest
        highest = math.log(math.sqrt(1 + width**2))
        value, error = decoded.free_energy
        assert value == pytest.approx(kt * (0.5 * z**2 - highest), abs=0.03 * kt)
        assert error == pytest.approx(0.0, abs=1e-6)
        assert decoded.n_energy_calls == 2000
        assert near.n_energy_calls == 0

        # The smoothed density is N(0, 1 + h^2); four standard errors
        smooth = kt * 0.5 * z**2 / (1 + width**2)
        value, error = near.free_energy
        assert abs(value - smooth) < 4 * error + 0.03 * kt
        # p(y|z) = N(0.6 z, 0.8^2), both ways
        for selection in (decoded, near):
            mean, se = selection.ensemble.expectation(selection.ensemble.y[:, 0])
            assert abs(float(mean) - 0.6 * z) < 4 * float(se) + 0.6 * abs(z) * width**2


def test_structures_near_a_point_are_near_it(explorer: Explorer) -> None:
    z = np.radians([-70.0, 145.0])
    found = explorer.at(z)
    assert found.names == NAMES
    away = wrap(found.ensemble.z.numpy() - z)
    assert (np.linalg.norm(away / np.array(explorer.surface.widths), axis=1) <= 3).all()
    # By weight: the mean is the point, up to the slope of the density
    mean, _ = found.ensemble.expectation(torch.from_numpy(away))
    assert float(mean.abs().max()) < explorer.surface.widths[0]
    assert found.spread is not None
    assert 0 < found.spread < 0.2
    assert torch.isfinite(found.ensemble.log_weights[found.representative])
    assert torch.equal(found.structures(5)[0], found.structure)
    assert found.structures(1).shape == (1, 22, 3)
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        found.structures(0)
    # A turn further is the same place
    assert explorer.at(z + 2 * np.pi).free_energy == pytest.approx(found.free_energy)


def test_a_point_with_few_structures_says_so(explorer: Explorer) -> None:
    few = explorer.at(np.radians([55.0, 45.0]))
    n = few.n_effective
    assert (n < 50) == bool(few.doubts)
    rich = explorer.at(np.radians([-75.0, -20.0]))
    assert rich.n_effective > 50
    assert rich.verdict[0] == "good"


def test_states_are_named_counted_and_selected(explorer: Explorer) -> None:
    shares = [s.population[0] for s in explorer.states]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0)
    first = explorer.state(1)
    assert first.population == explorer.states[0].population
    assert first.free_energy == (0.0, 0.0)
    second = explorer.state(2)
    kt = BOLTZMANN_CONSTANT * 300.0
    assert second.free_energy[0] == pytest.approx(kt * math.log(shares[0] / shares[1]))
    assert explorer.state(explorer.states[1].name).z == second.z
    with pytest.raises(ValueError, match=r"must be one of the states 1: .*got 99"):
        explorer.state(99)


def test_a_path_goes_through_its_points(explorer: Explorer) -> None:
    points = np.radians([[-150.0, 165.0], [-75.0, -20.0]])
    route = explorer.path(points, n_points=9)
    assert route.path.points[[0, -1]] == pytest.approx(points)
    assert route.frames.shape == (9, 22, 3)
    assert len(route.steps) == 8
    assert route.n_energy_calls == 0
    assert np.isfinite(route.free_energy).all()
    ends = [explorer.at(p).free_energy[0] for p in points]
    assert route.free_energy[[0, -1]] == pytest.approx(ends)
    top, height, _ = route.barrier
    assert route.free_energy[top] - route.free_energy[0] == pytest.approx(height)

    # Straight: over the seam, psi from 165 through 180 to -150
    line = explorer.path(np.radians([[-150.0, 165.0], [-150.0, -165.0]]), straight=True, n_points=5)
    assert np.degrees(line.path.unwrapped[:, 1]) == pytest.approx([165, 172.5, 180, 187.5, 195])
    # Where no sample is near, those farther away are shown, and no free energy
    empty = explorer.path(np.radians([[-75.0, -20.0], [100.0, 20.0]]), straight=True, n_points=12)
    unseen = np.flatnonzero(empty.ess == 0)
    assert np.isnan(empty.free_energy[unseen]).all()
    assert np.isfinite(np.delete(empty.free_energy, unseen)).all()
    assert (len(unseen) > 0) == any("no sample is near" in doubt for doubt in empty.doubts)
    between = explorer.between(1, 2, n_points=5)
    assert between.path.points[0] == pytest.approx(explorer.states[0].centre)


def test_everything_is_drawn_and_saved(explorer: Explorer, tmp_path: Path) -> None:
    files = explorer.save(tmp_path / "surface")
    assert {f.name for f in files} == {"surface.json", "surface.png"}
    content = json.loads((tmp_path / "surface" / "surface.json").read_text())
    assert len(content["states"]) == len(explorer.states)

    found = explorer.at(np.radians([-75.0, -20.0]))
    explorer.save(tmp_path / "here")
    read = gencg.read_samples(tmp_path / "here")
    assert torch.equal(read.log_weights, found.ensemble.log_weights)
    here = tmp_path / "here"
    frames = mdtraj.load(str(here / "samples.xtc"), top=str(here / "topology.pdb"))
    weights = np.genfromtxt(here / "frames.csv", delimiter=",", names=True)["weight"]
    assert frames.n_frames == len(weights)
    assert weights.sum() == pytest.approx(1.0)
    one = mdtraj.load(str(tmp_path / "here" / "representative.pdb"))
    assert 10 * one.xyz[0] == pytest.approx(10 * found.structure.numpy(), abs=0.02)
    assert mdtraj.load(str(tmp_path / "here" / "structures.pdb")).n_frames == 20
    content = json.loads((tmp_path / "here" / "selection.json").read_text())
    assert content["n_effective"] == found.n_effective
    assert content["z"] == dict(zip(NAMES, found.z, strict=True))

    route = explorer.path(np.radians([[-150.0, 165.0], [-75.0, -20.0]]), n_points=4)
    explorer.save(tmp_path / "way")
    assert mdtraj.load(str(tmp_path / "way" / "path.pdb")).n_frames == 4
    with Image.open(tmp_path / "way" / "path.gif") as movie:
        assert movie.n_frames == 6  # forth and back
    # Surface with its scale, the way up and down, and the one structure
    assert len(explorer.figure(route, frame=2).axes) == 4
    with pytest.raises(ValueError, match=r"`frame` must lie in \[0, 4\), got 4"):
        explorer.figure(route, frame=4)


def test_toys_are_explored_too(tmp_path: Path) -> None:
    system = double_well()
    x = torch.randn(800, 2) * 0.4 + torch.tensor([-2.4, 0.0])
    ensemble = Ensemble(
        x=x, y=x, z=x[:, :0], energy=system.energy(x), log_weights=torch.zeros(800),
        valid=torch.ones(800, dtype=torch.bool), temperature=system.temperature,
    )  # fmt: skip
    plane = gencg.explore(ensemble)
    assert plane.names == ("x1", "x2")
    assert not plane.periodic
    plane.at([-2.4, 0.0])
    plane.save(tmp_path)
    assert gencg.read_samples(tmp_path).molecule is None
    line = gencg.explore(ensemble, over=["x1"])
    route = line.path([-2.8, -2.0], n_points=3)
    assert route.path.points[:, 0] == pytest.approx([-2.8, -2.4, -2.0])
    assert line.figure(route).axes[0].get_xlabel() == "$x_1$"
    with pytest.raises(ValueError, match="a toy has no atoms"):
        line.view3d()


def test_wrong_questions_are_one_line(explorer: Explorer, dipeptide: Ensemble) -> None:
    for z in ([0.1], [0.1, 0.2, 0.3], [0.1, math.nan]):
        with pytest.raises(ValueError, match=r"`z` must be 2 finite numbers in rad"):
            explorer.at(z)
    with pytest.raises(ValueError, match="no model that decodes"):
        explorer.at([0.0, 0.0], decode=50)
    with pytest.raises(ValueError, match="`decode` must be at least 10"):
        gencg.explore(exact_fit(), n_samples=200).at(0.0, decode=3)
    with pytest.raises(ValueError, match="`points` must be at least two, got 1"):
        explorer.path([[0.0, 0.0]])
    with pytest.raises(ValueError, match="`n_points` must be at least 3, got 2"):
        explorer.path([[0.0, 0.0], [1.0, 1.0]], n_points=2)
    with pytest.raises(ValueError, match="got 1 twice"):
        explorer.between(1, 1)
    with pytest.raises(ValueError, match="`axes` must be two of 0 to 1"):
        gencg.explore(dipeptide, axes=(0, 2))
    with pytest.raises(ValueError, match="`names` must be 2"):
        gencg.explore(dipeptide, names=["phi"])
    with pytest.raises(ValueError, match=r"`over` must be among phi.*got 'chi'"):
        gencg.explore(dipeptide, over=["chi"])
    with pytest.raises(ValueError, match="`source` must be a FitResult"):
        gencg.explore(3)
    with pytest.raises(ValueError, match="is not a run folder"):
        gencg.explore("nowhere")
    with pytest.raises(ValueError, match="`n_samples` must be at least 100, got 5"):
        gencg.explore(exact_fit(), n_samples=5)


def test_three_variables_are_shown_two_at_a_time() -> None:
    torch.manual_seed(0)
    ensemble = made_up_ensemble(alanine_dipeptide(), 2000, n_cvs=3)
    explorer = gencg.explore(ensemble, axes=(0, 2))
    assert explorer.surface.names == ("z1", "z3")
    first, third = explorer.source.values[:, 0], explorer.source.values[:, 2]
    heaviest = int(ensemble.log_weights.argmax())
    part = explorer.at([first[heaviest], third[heaviest]])
    whole = explorer.at(explorer.source.values[heaviest])
    assert part.names == ("z1", "z3")
    assert len(whole.names) == 3
    assert whole.n_effective < part.n_effective
    # A density over three variables is no height on a surface over two
    assert part.free_energy is not None
    assert whole.free_energy is None
    explorer.figure(whole)


def test_without_widgets_it_says_once_what_to_install(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys
) -> None:
    shown: list[dict[str, object]] = []
    monkeypatch.setattr(showing, "missing", lambda: ["ipywidgets", "anywidget"])
    monkeypatch.setattr(showing, "_told", set())
    explorer.show()
    explorer.show()
    assert [r.message for r in caplog.records if "pip install 'gencg[notebook]'" in r.message] == [
        caplog.records[0].message
    ]
    assert "\n" not in caplog.records[0].message
    assert capsys.readouterr().out.count("Explorer(") == 2

    # In a notebook the card and a picture
    monkeypatch.setattr(showing, "_ipython_display", lambda: lambda data, raw: shown.append(data))
    explorer._ipython_display_()
    assert shown[0]["text/html"].startswith("<div")
    assert shown[1]["image/png"][:4] == b"\x89PNG"
