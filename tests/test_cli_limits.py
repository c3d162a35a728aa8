"""Limits and forecasts: a run that stops in time and goes on, and one that is only measured.

Cannot detect: whether a forecast is right on another machine; whether the real clock of a queue
agrees with ours.
"""

import csv
import dataclasses
import json
import math
import subprocess
import sys
import types
from functools import partial
from pathlib import Path

import pytest
import torch

from gencg.checkpoint import load_checkpoint
from gencg.config import RunConfig
from gencg.deadline import Deadline, TimeIsUp
from gencg.discover.refit import refit_soft
from gencg.fit import fit
from gencg.models.collective import collective_model
from gencg.models.cv_map import CollectiveMap
from gencg.run import batch, collective
from gencg.run.forecast import (
    OF_MATCHING,
    SAMPLE,
    SAMPLE_MATCHED,
    Costs,
    after_training,
    matches,
    stage_seconds,
)
from gencg.run.measure import _Clock
from gencg.run.similar import TABLE, similar_molecules
from gencg.systems import double_well
from gencg.tempering import NoTempering

MOLECULES = Path(__file__).parents[1] / "docs" / "molecules.md"
TINY = ["double-well", "--energy-calls", "4100", "--samples", "100", "--batch-size", "200",
        "--coverage-calls", "0", "--cvs", "0", "--out", "run"]  # fmt: skip


@pytest.fixture(autouse=True)
def _work_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENCG_COMPILE", "0")
    torch.set_default_dtype(torch.float32)


def after(n_steps: int):
    """A deadline's question that is answered by the number of times it was asked."""
    asked = iter(range(1, 10_000))
    return lambda self: next(asked) >= n_steps


def test_a_training_stopped_by_its_limit_goes_on_to_the_same_parameters(
    gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "due", after(7))
        code, out, err = gencg("fit", *TINY, "--time-limit", "2h", "--quiet")
    assert (code, out) == (75, "")
    assert err == "gencg: time is up at step 7 of 20; the same command goes on from there\n"
    assert load_checkpoint("run/checkpoint.pt")["step"] == 7
    assert len(Path("run/metrics.csv").read_text().splitlines()) == 8

    # Far from the limit nothing is stopped, and the limit is no setting of the run
    assert gencg("fit", *TINY, "--time-limit", "3h", "--quiet")[0] == 0
    assert gencg("fit", *TINY[:-1], "whole", "--quiet")[0] == 0
    cut, whole = (load_checkpoint(f"{name}/checkpoint.pt") for name in ("run", "whole"))
    assert all(torch.equal(cut["average"][k], whole["average"][k]) for k in whole["average"])
    assert Path("run/config.json").read_text() == Path("whole/config.json").read_text()


def test_a_stage_that_would_not_be_done_waits_for_the_next_start(
    gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "late_for", lambda self, seconds=0.0: True)
        code, _, err = gencg("run", *TINY, "--time-limit", "90s", "--quiet")
        assert (code, err.count("\n")) == (75, 1)
        assert "time is up before" in err
        assert not Path("run/summary.json").exists()
    assert gencg("run", *TINY, "--time-limit", "2h", "--quiet")[0] == 0
    assert Path("run/summary.json").exists()


def test_the_last_step_is_not_stopped() -> None:
    result = fit(
        double_well(), energy_calls=400, batch_size=100, tempering=NoTempering(), stop=iter(
            [False, False, False, True]).__next__
    )  # fmt: skip
    assert result.state.step == 4
    with pytest.raises(TimeIsUp, match="time is up at step 2 of 4"):
        fit(double_well(), energy_calls=400, batch_size=100, tempering=NoTempering(),
            stop=iter([False, True]).__next__)  # fmt: skip


def test_the_joint_training_keeps_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline, given = Deadline(100.0), {}
    monkeypatch.setattr(collective, "fit_joint", lambda *args, **options: given.update(options))
    folder = types.SimpleNamespace(
        config=RunConfig("butane", energy_calls=500_000), joint=Path("joint.pt")
    )
    collective._fit_joint(None, None, folder, deadline=deadline)
    assert given["stop"] == deadline.due


def test_the_fit_before_it_is_stopped_too() -> None:
    result = fit(double_well(), energy_calls=200, batch_size=100, tempering=NoTempering())
    model = collective_model(result.model, CollectiveMap(torch.eye(2), n_cvs=1, periodic=False))
    refit = partial(refit_soft, model, result.model, n_steps=3, batch_size=50)
    with pytest.raises(TimeIsUp, match="fit of prior and decoder, which begins again"):
        refit(stop=iter([False, False, True]).__next__)
    assert math.isfinite(refit(stop=lambda: False))


def test_a_batch_shares_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    def run(command, **options):
        left.append(float(command[command.index("--time-limit") + 1].removesuffix("s")))
        options["stderr"].write(b"gencg: time is up at step 7 of 20; the same command goes on\n")
        return subprocess.CompletedProcess(command, 75)

    monkeypatch.setattr(batch.subprocess, "run", run)
    items = batch.expand(["butane", "double-well"])
    with pytest.raises(TimeIsUp, match=r"butane: time is up at step 7 of 20$"):
        batch.run_batch(items, [], "out", deadline=Deadline(60.0))
    assert len(left) == 1
    assert 0 < left[0] <= 60
    with pytest.raises(TimeIsUp, match="time is up before butane"):
        batch.run_batch(items, [], "out", deadline=Deadline(60.0, started=-1e6))
    assert len(left) == 1


def test_tensorboard_that_is_missing_is_named(gencg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, out, err = gencg("fit", *TINY, "--tensorboard")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'gencg[tensorboard]'" in err
    assert not Path("run").exists()


def test_tensorboard_gets_every_step(gencg, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    class SummaryWriter:
        def __init__(self, log_dir: str, purge_step: int) -> None:
            written.append((Path(log_dir), purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

        def close(self) -> None:
            written.append(("closed", 0))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "due", after(7))
        assert gencg("fit", *TINY, "--tensorboard", "--time-limit", "1h", "--quiet")[0] == 75
    assert gencg("fit", *TINY, "--tensorboard", "--quiet")[0] == 0
    folder = Path("run/tensorboard/training")
    assert [entry for entry in written if entry[0] == folder] == [(folder, 1), (folder, 8)]
    assert [step for name, step in written if name == "loss"] == list(range(1, 21))
    assert written[-1] == ("closed", 0)


def test_a_dry_run_measures_and_writes_nothing(gencg, tmp_path: Path) -> None:
    args = [*TINY[:1], "--energy-calls", "20e3", "--samples", "500", "--batch-size", "200"]
    code, out, err = gencg("run", *args, "--dry-run", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    found = json.loads(out)
    assert (found["name"], found["n_atoms"], found["similar"]) == ("double-well", None, None)
    assert found["n_steps"] == RunConfig("x", energy_calls=20_000, n_samples=500, batch_size=200
                                         ).training_calls // 200  # fmt: skip
    assert list(found["stages"]) == [
        "training", "collective variables", "lost modes", "samples", "report",
    ]  # fmt: skip
    assert found["seconds"] == pytest.approx(sum(found["stages"].values()))
    assert min(found["stages"].values()) > 0
    assert found["memory_bytes"] > 10**8
    assert found["disk_bytes"] > found["n_parameters"] * 4

    code, _, err = gencg("run", "butane", "double-well", "--dry-run")
    assert (code, err.count("\n")) == (2, 1)
    assert "one molecule" in err


def test_a_forecast_adds_up() -> None:
    config = RunConfig("x", energy_calls=1_000_000, n_samples=1000, batch_size=500)
    costs = Costs(step=2.0, sample=0.1, chain=0.3, joint=4.0, refit=1.0, search=5.0, report=7.0)
    stages = stage_seconds(config, costs)
    assert stages["training"] == config.training_calls // 500 * 2.0
    assert stages["lost modes"] == pytest.approx(50_000 * 0.3)
    assert stages["samples"] == pytest.approx(2 * 1000 * 0.1)
    assert stages["collective variables"] == pytest.approx(50_000 * 0.1 + 5 + 1 + 200 * 4.0)
    without = RunConfig("x", n_cvs=0, energy_calls=1_000_000, n_samples=1000, batch_size=500)
    assert "collective variables" not in stage_seconds(without, costs)
    rest = sum(stage_seconds(without, Costs.from_step(2.0, 500)).values())
    assert after_training(without, 2.0) == pytest.approx(rest - without.training_calls // 500 * 2.0)


def test_a_forecast_holds_the_further_training_of_a_generator() -> None:
    config = RunConfig("double-well", generator="shipped", further_calls=50_000).resolve(
        double_well()
    )
    costs = Costs.from_step(2.0, config.batch_size)
    stages = stage_seconds(config, costs)
    assert stages["training"] == (50_000 + 150_000) // 512 * 2.0
    # Hotter soft blocks are made after it
    further = 50_000 // 512 * 2.0
    assert after_training(config, 2.0) == pytest.approx(sum(stages.values()) - further)


def test_a_forecast_of_flow_matching_weighs_both_kinds_of_steps() -> None:
    budget = {"energy_calls": 1_000_000, "n_samples": 1000, "batch_size": 500, "n_cvs": 0}
    config = RunConfig("double-well", decoder="flow-matching", **budget).resolve(double_well())
    plain = dataclasses.replace(config, decoder="spline")
    assert (matches(config), matches(plain)) == (True, False)
    assert not matches(dataclasses.replace(config, tempering="none"))
    # A sample as rows of a step that matches, and the rest as of a step of the average
    samples, average = 1000 * SAMPLE_MATCHED * 2.0 / 500, 2.0 * OF_MATCHING
    assert average > 2.0
    same = after_training(plain, average) - 1000 * SAMPLE * average / 500
    assert after_training(config, 2.0) == pytest.approx(same + samples)


def test_the_clock_takes_the_steps_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    # Of four steps that match, a second one each; the first two, and the first after, warm up
    clock.times = [0.0, 9.0, 10.0, 11.0, 31.0, 35.0, 39.0]
    assert clock.median(2, 4) == 1.0
    assert clock.median(5, 7) == 4.0


def test_the_table_of_similar_molecules_is_that_of_the_page() -> None:
    with open(TABLE, newline="") as file:
        _, *rows = csv.reader(file)
    cells = [line.strip("| ").split(" | ") for line in MOLECULES.read_text().splitlines()]
    assert rows == [c[:4] for c in cells if len(c) > 8 and c[1].isdigit()]


def test_similar_molecules_are_similar() -> None:
    small = similar_molecules(9, 2)
    assert small.names[0] == "trifluoroethanol"
    assert (small.ess_class, small.beyond) == ("good", False)
    assert 0 <= small.lowest <= small.median <= small.highest <= 1
    assert similar_molecules(49, 11).names[0] == "testosterone"
    assert similar_molecules(80, 20).beyond
