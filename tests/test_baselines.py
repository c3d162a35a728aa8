"""The papers' methods, their measures and the table of results.

Cannot detect: whether a baseline could do better with other settings, or any number in the table;
those take the runs themselves.
"""

import argparse
import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import torch
from torch.testing import assert_close

import gencg
from gencg import cli
from gencg.coordinates.base import Cartesian
from gencg.energies.base import Energy
from gencg.importance import effective_sample_size
from gencg.models.build import build_model
from gencg.systems import System
from gencg.target import BoltzmannTarget

ROOT = Path(__file__).parents[1]
MODULES = {
    "linear": "baselines.linear_bijection",
    "gaussian": "baselines.gaussian_decoder",
    "annealed": "baselines.temperature_annealed",
    "methods": "baselines.methods",
    "run": "baselines.run",
    "record": "record",
    "results": "results",
    "reference": "alanine_dipeptide.reference",
    "dipeptide": "alanine_dipeptide.paper",
    "double_well": "double_well.paper",
    "lines": "slow_functions.linear_cvs",
    "papers": "papers",
}


@pytest.fixture
def papers(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(ROOT))
    found = {
        name: importlib.import_module(f"experiments.{module}") for name, module in MODULES.items()
    }
    return SimpleNamespace(**found)


@pytest.fixture(scope="module")
def dipeptide() -> System:
    return gencg.systems.load("alanine-dipeptide")


class Correlated(Energy):
    """A normal distribution whose two coordinates go together: log Z = log 2π - log 0.6."""

    def __init__(self) -> None:
        super().__init__((2,))

    def energy(self, x):
        a, b = x.unbind(-1)
        return 0.5 * (a**2 + b**2 - 1.6 * a * b)


@pytest.fixture
def normal() -> System:
    unit = gencg.systems.double_well().temperature
    return System("normal", Correlated(), Cartesian(2), temperature=unit)


def shaken(model, size=0.1):
    for parameter in model.double().parameters():
        parameter.data += size * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("script", ["run", "results", "record", "papers"])
def test_every_script_starts(papers, script, monkeypatch, capsys) -> None:
    module = getattr(papers, script)
    monkeypatch.setattr("sys.argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    assert capsys.readouterr().out.startswith("usage")


def test_every_command_of_the_papers_is_understood(papers, monkeypatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(parser, *given):
        parse(parser, *given)
        raise StopIteration

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    n_understood = 0
    for settings in (papers.papers.SMALL, papers.papers.FULL):
        for module, *arguments in papers.papers.commands(settings, Path("out")):
            folder = (
                module.split(".")[1]
                if module.endswith((".mueller_brown.run", ".mixture.run"))
                else ""
            )
            start = importlib.import_module(module) if module != "gencg" else None
            monkeypatch.setattr("sys.argv", [module, *arguments])
            if start is None:
                context = click.Context(cli.app)
                cli.app.get_command(context, arguments[0]).make_context("run", arguments[1:])
            else:
                with pytest.raises(StopIteration):
                    papers.lines.main(ROOT / "experiments" / folder, ()) if folder else start.main()
            n_understood += 1
    assert n_understood == 2 * 16


# --- Linear bijection (2025) ----------------------------------------------------------------------


def test_linear_bijection_has_the_density_of_its_jacobian(papers, dipeptide) -> None:
    system = papers.gaussian.body_fixed(dipeptide)
    assert system.coordinates.dim == 60
    model = shaken(papers.linear.build(system, seed=0))
    flow = model.decoder.flow
    assert (flow.n_slow, flow.n_fast) == (38, 22)

    # Row-stochastic and invertible, and the inverse pass has the density of the draw
    assert_close(flow.matrix.sum(1), torch.ones(60))
    assert (flow.matrix > 0).all()
    _, y, log_q = model.sample(4)
    eps, log_det = flow.inverse(y, y[:, :0])
    assert_close(model.log_prob(y[:, :0], y), log_q)
    again, forward = flow(eps, y[:, :0])
    assert_close(again, y)
    assert_close(forward, -log_det)
    jacobian = torch.autograd.functional.jacobian(
        lambda e: flow(e[None], e[None, :0])[0][0], eps[0]
    )
    assert_close(torch.linalg.slogdet(jacobian).logabsdet, forward[0])

    # The slow variables are linear in y, as the paper's encoder is
    slow = flow.slow_variables
    assert_close(slow(0.3 * y[:1] + 0.7 * y[1:2]), 0.3 * slow(y[:1]) + 0.7 * slow(y[1:2]))


def test_linear_bijection_reaches_a_normal_distribution(papers, normal) -> None:
    # Its own family: a convex combination of independent variables that go together
    torch.set_default_dtype(torch.float32)
    result = papers.linear.train(normal, calls=1.2e4, seed=0, batch_size=64)
    ensemble = gencg.draw(result.model, result.target, 4000, seed=1)
    assert ensemble.ess > 0.9
    assert ensemble.log_z == pytest.approx(math.log(2 * math.pi / 0.6), abs=0.03)


def test_linear_bijection_refuses_too_many_slow_variables(papers, normal) -> None:
    with pytest.raises(ValueError, match="`n_slow` must lie between 1 and 2, got 3"):
        papers.linear.build(normal, n_slow=3, seed=0)


# --- Gaussian decoder (2020) ----------------------------------------------------------------------


def test_gaussian_decoder_is_that_of_2020(papers, dipeptide) -> None:
    system = papers.gaussian.body_fixed(dipeptide)
    model = papers.gaussian.build(system, n_cvs=2, seed=0)
    widths = [
        [layer.out_features for layer in part.net.layers if isinstance(layer, torch.nn.Linear)]
        for part in (model.decoder, model.encoder)
    ]
    assert widths == [[100, 100, 100, 120], [150, 150, 150, 4]]
    here, there = (model.decoder(z).base_dist for z in (torch.zeros(1, 2), torch.ones(1, 2)))
    assert_close(here.scale, torch.full((1, 60), 0.01), rtol=0.5, atol=0)
    # z says something from the beginning: at zero nothing would pull it away from there
    assert not torch.equal(here.loc, there.loc)
    assert papers.gaussian.body_fixed(gencg.systems.double_well()).coordinates.dim == 2


def test_the_grid_sees_the_density_of_the_gaussian_decoder(papers) -> None:
    system, grid = gencg.systems.double_well(), papers.double_well.Grid()
    model = shaken(papers.gaussian.build(system, n_cvs=1, seed=0), size=0.05)
    q = grid.log_density(model).exp() * grid.cell
    _, y, _ = model.sample(20_000)
    inside = (y[:, 0].abs() < 8) & (y[:, 1].abs() < 20)
    # Standard error below 0.002
    assert float(q.sum()) == pytest.approx(float(inside.double().mean()), abs=0.015)
    found = float((y[inside, 0] >= 0).double().mean())
    # Standard error 0.0035
    assert float(q[grid.x[:, 0] >= 0].sum() / q.sum()) == pytest.approx(found, abs=0.025)
    assert float(grid.log_target(1.0).exp().sum() * grid.cell) == pytest.approx(1)
    p_right = float(grid.log_target(1.0).exp()[grid.right].sum() * grid.cell)
    assert p_right == pytest.approx(0.00835, abs=1e-4)


def test_the_way_of_2020_leaves_curves_along_the_ladder(papers) -> None:
    torch.set_default_dtype(torch.float32)
    grid = papers.double_well.Grid()
    result, watcher, about = papers.double_well.run_2020(1.1e4, 0, grid)
    curves = watcher.curves
    assert len(curves["beta"]) >= 20
    assert all(len(values) == len(curves["beta"]) for values in curves.values())
    assert curves["beta"] == sorted(curves["beta"])
    assert curves["beta"][-1] == pytest.approx(1.0)
    # Both divergences are positive, the right well thins out as it cools
    assert min(curves["reverse"]) > 0
    assert min(curves["forward"]) > 0
    assert curves["right_exact"][-1] == pytest.approx(0.00835, abs=1e-4)
    assert curves["calls"][-1] == result.energy_calls
    assert len(about["latent"]) == len(grid.x1)


def test_a_run_folder_becomes_a_result(papers, gencg, tmp_path) -> None:
    folder = tmp_path / "run"
    options = ["--cvs", "0", "--energy-calls", "3000", "--batch-size", "64", "--samples", "500"]
    code, _, err = gencg("run", "double-well", *options, "--out", folder, "--seed", "1", "--quiet")
    assert code == 0, err
    found = papers.record.of_run(folder, method="gencg, other", reference=None, n_samples=2000)
    assert (found.system, found.seed) == ("double-well", 1)
    assert found.measures["ess"] > 0
    assert found.measures["tv_reweighted"] < 0.5
    path = found.write(tmp_path)
    assert path.name == "double-well-120K-gencg-other-3000-1.json"
    assert papers.record.Result.read(path).measures["n_samples"] == 2000


# --- Temperature-annealed training ----------------------------------------------------------------


def test_forward_kl_moves_the_generator_to_its_weighted_samples(papers, normal) -> None:
    torch.set_default_dtype(torch.float32)
    annealing = papers.annealed.Annealing(n_passes=2.5, batch_size=128, learning_rate=5e-3)
    with torch.random.fork_rng():
        model = build_model(normal.coordinates)
    target = BoltzmannTarget(normal.energy, normal.coordinates, normal.temperature)
    y, before = papers.annealed.weighted_samples(model, target, 4000, beta=1.0)
    assert normal.energy.n_energy_calls == 4000
    # At beta = 1 the untrained generator is the standard normal, weighted
    assert float(torch.logsumexp(before, 0)) - math.log(4000) == pytest.approx(2.35, abs=0.1)
    share = papers.annealed.forward_kl(model, y, before, annealing)
    after = papers.annealed.weighted_samples(model, target, 4000, beta=1.0)[1]
    assert float(effective_sample_size(after)) > share + 0.1


def test_annealing_counts_the_calls_of_both_parts(papers, normal) -> None:
    torch.set_default_dtype(torch.float32)
    annealing = papers.annealed.Annealing(n_rungs=2, n_passes=0.1, batch_size=16)
    result = papers.annealed.train(normal, calls=3000, seed=0, annealing=annealing)
    assert result.energy_calls == normal.energy.n_energy_calls
    assert 2500 < result.energy_calls <= 3000
    assert result.target.temperature == normal.temperature


# --- Simulation, measures, results ----------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(dipeptide):
    pytest.MonkeyPatch().syspath_prepend(str(ROOT))
    reference = importlib.import_module("experiments.alanine_dipeptide.reference")
    return reference.simulate(
        dipeptide, temperature=300.0, calls=3000, rungs=3, cold=1, ladders=6, tune=14, burn_in=5,
        n_frames=100,
    )  # fmt: skip


def test_simulation_keeps_to_its_calls_and_its_file(papers, dipeptide, frames, tmp_path) -> None:
    # A sweep of six ladders of three rungs has 54
    assert 3000 <= frames.about["energy_calls"] < 3054
    quads = [quad for _, quad in dipeptide.molecule.phi_psi()]
    kept = gencg.analysis.torsion_angles(frames.x, quads)
    # Frames are samples too: every one has its torsions among those recorded
    nearest = abs(kept[:, None] - frames.angles).max(-1).min(1)
    assert nearest.max() < 1e-3
    frames.write(tmp_path / "frames.npz")
    again = papers.reference.Frames.read(tmp_path / "frames.npz")
    assert again.alpha_l[0] == frames.alpha_l[0]
    assert_close(again.x.float(), frames.x.float())
    with pytest.raises(ValueError, match="give either `calls` or `minutes`, got None and None"):
        papers.reference.simulate(dipeptide, temperature=300.0)
    with pytest.raises(ValueError, match="the budget ends in burn-in"):
        papers.reference.simulate(
            dipeptide, temperature=300.0, calls=60, rungs=2, cold=1, ladders=2, tune=7, burn_in=9
        )


def test_a_perfect_ensemble_is_at_no_distance(papers, dipeptide, frames) -> None:
    n = len(frames.x)
    ensemble = gencg.Ensemble(
        x=frames.x, y=dipeptide.coordinates.forward(frames.x)[0], z=torch.zeros(n, 0),
        energy=torch.zeros(n), log_weights=torch.zeros(n), valid=torch.ones(n, dtype=torch.bool),
        temperature=300.0, molecule=dipeptide.molecule,
    )  # fmt: skip
    own = papers.reference.Frames(300.0, frames.x, frames.ladder, {})
    found = papers.record.measure(dipeptide, ensemble, reference=own)
    assert found["tv_raw"] == found["tv_reweighted"] < 0.2
    assert found["ess"] == pytest.approx(1)
    shown = SimpleNamespace(ensemble=ensemble, molecule=dipeptide.molecule)
    rows = papers.dipeptide.compare(shown, own)
    assert len(rows) == 2 + 21
    assert max(row["raw"] for row in rows.values()) < 1e-9
    other = papers.reference.Frames(330.0, frames.x, frames.ladder, {})
    with pytest.raises(ValueError, match="`reference` must be of 300 K, got 330 K"):
        papers.record.measure(dipeptide, ensemble, reference=other)


def test_measures_of_a_toy_are_distances_of_its_populations(papers) -> None:
    system = gencg.systems.double_well()
    x = torch.tensor([[-2.5, 0.0], [2.5, 0.0]]).repeat(50, 1)
    right = system.known["populations"]["right"]
    weights = torch.tensor([1 - right, right]).log().repeat(50)
    ensemble = gencg.Ensemble(
        x=x, y=x, z=x[:, :0], energy=x[:, 0], log_weights=weights,
        valid=torch.ones(100, dtype=torch.bool), temperature=system.temperature,
    )  # fmt: skip
    found = papers.record.measure(system, ensemble)
    assert found["tv_raw"] == pytest.approx(0.5 - right)
    assert found["tv_reweighted"] == pytest.approx(0, abs=1e-12)
    assert found["state_reweighted"] == pytest.approx(right)


def result(papers, seed, **measures):
    calls = {"calls": 100.0}
    found = {"ess": 0.5, "log_z_deviation": -0.1, "bound_gap": None} | measures
    return papers.record.Result("gencg", "double-well", 120.27, seed, "", 99, 1.0, found, calls)


def test_table_averages_seeds_and_goes_between_the_markers(papers, tmp_path) -> None:
    for seed, ess in enumerate((0.4, 0.5, 0.6)):
        path = result(papers, seed, ess=ess, state_exact=math.nan).write(tmp_path)
    # JSON has no nan
    assert json.loads(path.read_text())["measures"]["state_exact"] is None
    found = papers.results.read_all([tmp_path])
    ((key, results),) = found.items()
    assert key == ("double-well", 120.27, "gencg", 100.0)
    assert len(results) == 3
    table = papers.results.markdown(found)
    # 0.5, and 0.1 over the root of three
    row = "| double-well | gencg * | 3 | 99 | 1.00 ± 0 | 0.50 ± 0.06 | 0.100 ± 0 | – |"
    assert table.splitlines()[-1].startswith(row)

    begin, end = papers.results.BEGIN, papers.results.END
    page = papers.results.put(f"before {begin} old {end} after", table)
    assert page.startswith(f"before {begin}\n\n| system")
    assert page.endswith(f"{end} after")
    assert "old" not in page
    assert papers.results.put(page, table) == page
    with pytest.raises(ValueError, match="the page must hold"):
        papers.results.put(f"{end} {begin}", table)
    papers.results.draw(found, tmp_path / "methods.png")
    assert (tmp_path / "methods.png").stat().st_size > 1000


def test_table_refuses_what_is_no_result_or_comes_twice(papers, tmp_path) -> None:
    path = result(papers, 0).write(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / path.name).write_text(path.read_text())
    with pytest.raises(ValueError, match="another file has seed 0"):
        papers.results.read_all([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "a" / path.name).write_text("{}")
    with pytest.raises(ValueError, match="holds no result of an experiment"):
        papers.results.read_all([tmp_path / "a"])


def test_committed_results_can_be_read_and_name_their_command(papers) -> None:
    found = papers.results.read_all(sorted((ROOT / "experiments").glob("*/results")))
    for (_, _, method, _), results in found.items():
        assert method in papers.results.METHODS
        assert all(r.command and r.energy_calls > 0 for r in results)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gencg", "gaussian decoder", "linear bijection"])
def test_quick_settings_give_a_result(papers, method) -> None:
    torch.set_default_dtype(torch.float32)
    system = gencg.systems.mueller_brown()
    found = papers.run.one(method, system, calls=6e4, seed=0, n_samples=20_000)
    assert found.measures["ess"] > 1e-3
    assert found.energy_calls <= 6e4


@pytest.mark.slow
def test_no_straight_line_is_as_slow_as_the_cv_that_is_found(papers) -> None:
    torch.set_default_dtype(torch.float32)
    system = gencg.systems.mueller_brown()
    found, shown = papers.lines.compare(system, calls=1e5, seed=0, n_search=10_000, n_grid=80)
    assert max(shown["kept"]) < 0.87 < found.measures["kept"] <= 1 + 1e-6
