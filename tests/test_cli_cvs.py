"""The second half of a run from the command line: slow CVs, `gencg cv`, `gencg backmap`.

Cannot detect: whether the CVs are slow or the joint model is any good; the stages are cut short
here, and tests of their own hold them.
"""

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from cv_samples import made_up_ensemble

from gencg import cli, pretrained, systems
from gencg.checkpoint import load_checkpoint
from gencg.deadline import Deadline
from gencg.discover import find_slow_cvs, fit_joint
from gencg.export import read_colvar, read_samples, write_samples
from gencg.fit import as_result, fit
from gencg.models.build import build_model, choices_of, sees_contacts
from gencg.notebook import explore
from gencg.run import RunFolder, collective, trained
from gencg.target import BoltzmannTarget

BUDGET = ["--energy-calls", "14e3", "--samples", "1000", "--batch-size", "200", "--quiet"]
SHORT = """
import os, signal, sys
from gencg import cli
from gencg.discover import find_slow_cvs, fit_joint
from gencg.run import collective

killed_in = sys.argv[1]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def find(*args, **options):
    slow = find_slow_cvs(*args, bend=False, networks=False, **options)
    if killed_in == "cvs":
        die()
    return slow

def report(info):
    if killed_in == "joint" and info.step == 4:
        die()

def train(*args, reporters=(), **options):
    return fit_joint(*args, n_refit_steps=20, reporters=[*reporters, report], **options)

collective.find_slow_cvs, collective.fit_joint = find, train
cli.main(sys.argv[2:])
"""


def cut_short(patch: pytest.MonkeyPatch) -> None:
    """Leave bent map and networks out and most of the forward fit: they take minutes."""
    patch.setenv("GENCG_COMPILE", "0")
    find = functools.partial(find_slow_cvs, bend=False, networks=False)
    patch.setattr(collective, "find_slow_cvs", find)
    patch.setattr(collective, "fit_joint", functools.partial(fit_joint, n_refit_steps=20))
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def _work_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cut_short(monkeypatch)


def finished(factory: pytest.TempPathFactory, target: str, *args: str) -> Path:
    folder = factory.mktemp("run") / target
    with pytest.MonkeyPatch.context() as patch:
        cut_short(patch)
        cli.main(["run", target, *BUDGET, "--out", str(folder), *args])
    return folder


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the double well, with one CV: so short a run cannot tell how many."""
    return finished(tmp_path_factory, "double-well", "--cvs", "1")


@pytest.fixture(scope="module")
def dipeptide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the dipeptide, with two CVs."""
    return finished(tmp_path_factory, "alanine-dipeptide", "--cvs", "2", "--energy-calls", "3e4")


@pytest.fixture(scope="module")
def model_of_2020(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the double well with the gaussian decoder."""
    return finished(tmp_path_factory, "double-well", "--decoder", "gaussian", "--cvs", "1")


def test_a_run_ends_with_cvs(well: Path) -> None:
    assert {"cvs.pt", "joint.pt", "samples.h5"} <= {path.name for path in well.iterdir()}
    summary = json.loads((well / "summary.json").read_text())
    assert summary["n_cvs"] == len(summary["cv_names"]) == 1
    assert summary["cv_timescales"][0] == 1.0
    assert summary["bound_gap"] is not None
    assert summary["energy_calls"] <= 14_000 + 10
    samples = read_samples(well)
    assert samples.z.shape == (1000, 1)
    assert samples.ess == summary["joint_ess"]
    assert samples.log_z == summary["joint_log_z"]


def test_cvs_are_added_to_a_run_without(well: Path, gencg) -> None:
    with_cvs = RunFolder.open(well).config
    calls = with_cvs.training_calls + 1000 + with_cvs.mode_calls
    bare = ["run", "double-well", *BUDGET, "--out", "run", "--cvs", "0", "--coverage-calls",
            str(with_cvs.mode_calls), "--energy-calls", str(calls)]  # fmt: skip
    assert gencg(*bare)[0] == 0
    before = json.loads(Path("run/summary.json").read_text())
    trained = load_checkpoint("run/checkpoint.pt")["average"]

    # As if they had been asked for at once, but for what was drawn twice and the reference
    code, _, err = gencg("run", "double-well", *BUDGET[:-1], "--cvs", "1", "--out", "run")
    assert code == 0, err
    assert "adding collective variables to the generator that is there" in err
    kept = load_checkpoint("run/checkpoint.pt")["average"]
    assert all(torch.equal(kept[name], trained[name]) for name in trained)
    assert json.loads(Path("run/generator.json").read_text()) == before
    assert Path("run/config.json").read_text() == (well / "config.json").read_text()
    for name in ("x", "z", "log_weights"):
        assert torch.equal(getattr(read_samples("run"), name), getattr(read_samples(well), name))
    after, at_once = (json.loads((p / "summary.json").read_text()) for p in (Path("run"), well))
    assert after["energy_calls"] == at_once["energy_calls"] + 1000
    assert after["joint_log_z"] == at_once["joint_log_z"]
    assert after["wall_seconds"] > before["wall_seconds"]

    # Not taken away again
    code, _, err = gencg(*bare)
    assert code == 2
    assert "n_cvs is 1 there and 0 here" in err


def test_a_run_begins_with_the_generator_of_another(well: Path, gencg) -> None:
    shutil.copytree(well, "source")
    words = [*BUDGET[2:-1], "--energy-calls", "8000", "--generator", "source", "--out", "run"]
    code, out, err = gencg("run", "double-well", *words)
    assert code == 0, err
    assert "taking over the generator of" in err
    assert "generator of source, whose training took" in out
    # Hotter soft blocks came with it
    assert "heating" not in err
    mine, theirs = (load_checkpoint(path / "checkpoint.pt") for path in (Path("run"), well))
    assert mine["step"] == mine["n_steps"] == 0
    for name, value in theirs["average"].items():
        assert torch.equal(mine["average"][name], value)
    assert [beta for beta, _ in mine["snapshots"]] == [beta for beta, _ in theirs["snapshots"]]

    summary = json.loads(Path("run/summary.json").read_text())
    origin = summary["generator"]
    assert origin["source"] == "source"
    assert origin["energy_calls"] == theirs["energy_calls"]
    assert origin["ess"] == json.loads((well / "summary.json").read_text())["ess"]
    # Of its own: samples twice, and what collective variables took
    slow, joint = (load_checkpoint(f"run/{name}.pt") for name in ("cvs", "joint"))
    own = 2000 + slow["slow"]["n_energy_calls"] + joint["energy_calls"]
    probes = load_checkpoint("run/probes.pt")["probes"] if Path("run/probes.pt").exists() else []
    own += sum(probe["n_energy_calls"] for probe in probes)
    assert summary["energy_calls"] == own <= 8000
    assert summary["joint_ess"] > 0
    assert Path("run/report.html").exists()

    code, out, _ = gencg("run", "double-well", *words[:-2], "--dry-run", "--json")
    assert code == 0
    config = RunFolder.open("run").config
    assert json.loads(out)["n_steps"] == config.reheating_calls // config.batch_size

    code, out, _ = gencg("fit", "double-well", *words[:-2], "--out", "fitted", "--json")
    assert code == 0
    assert json.loads(out)["energy_calls"] == 0
    # It lives from its own files
    shutil.rmtree("source")
    code, _, err = gencg("run", "double-well", *words)
    assert code == 0
    assert "is finished already" in err
    assert gencg("sample", "run", "-n", "10")[0] == 0
    assert gencg("run", "double-well", *words, "--dry-run")[0] == 0


def shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the generator of a run came with gencg, without soft blocks of hotter stages."""
    run = RunFolder.open(folder)
    monkeypatch.setattr(pretrained, "FOLDER", Path())
    about = {"command": "gencg run double-well", "seed": 0, "energy_calls": 12345, "ess": 0.5}
    pretrained.write(trained(run.system(), run), "double-well.pt", about=about)


def test_a_shipped_generator_is_heated_and_its_cost_told(well: Path, gencg, monkeypatch) -> None:
    shipped(well, monkeypatch)
    words = ["--samples", "400", "--batch-size", "50", "--energy-calls", "6000", "--cvs", "0",
             "--generator", "shipped", "--out", "run"]  # fmt: skip
    trainings = []

    def killed(*args, **options):
        trainings.append(args)
        if len(trainings) == 2:
            raise KeyboardInterrupt
        return fit(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("gencg.discover.reheating.fit", killed)
        assert gencg("run", "double-well", *words)[0] == 130
    heated = load_checkpoint("run/reheating0.pt")
    assert heated["step"] == heated["n_steps"]
    code, _, err = gencg("run", "double-well", *words)
    assert code == 0, err
    assert not list(Path("run").glob("reheating*"))
    config = RunFolder.open("run").config
    assert f"heating its soft coordinates with {config.reheating_calls:,} energy calls" in err
    content = load_checkpoint("run/checkpoint.pt")
    betas = [beta for beta, _ in content["snapshots"]]
    cold = content["beta"]
    assert [cold / beta for beta in betas] == pytest.approx([3.0, 2.0, 1.4])
    own = dict(load_checkpoint("run/checkpoint.pt")["average"])
    # What was there before the kill is not made again
    for name, value in content["snapshots"][-1][1].items():
        assert torch.equal(value, heated["average"][f"decoder.flow.soft.{name}"])
    for _, soft in content["snapshots"]:
        assert any(
            not torch.equal(value, own[f"decoder.flow.soft.{name}"]) for name, value in soft.items()
        )
    # Whole steps at three temperatures
    assert 0.9 * config.reheating_calls < content["energy_calls"] <= config.reheating_calls
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["energy_calls"] >= content["energy_calls"] + 400
    assert summary["generator"]["energy_calls"] == 12345
    assert summary["generator"]["source"] == "double-well as shipped"


FURTHER = ["--cvs", "0", "--batch-size", "100", "--coverage-calls", "0", "--samples", "1000"]


def same_parameters(one: str, other: str) -> bool:
    a, b = (load_checkpoint(f"{name}/checkpoint.pt")["average"] for name in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_generator_is_trained_further(well: Path, gencg) -> None:
    shutil.copytree(well, "a")
    words = ["double-well", *FURTHER, "--generator", "a", "--further-calls", "3e3"]
    code, out, err = gencg("run", *words, "--out", "b")
    assert code == 0, err
    assert "training it further with 3,000 energy calls" in err
    assert "generator of a, whose training took" in out
    # Hotter soft blocks came with it
    assert "heating" not in err
    assert not Path("b/further.pt").exists()
    assert not same_parameters("a", "b")
    a, b = (load_checkpoint(f"{name}/checkpoint.pt") for name in "ab")
    assert [beta for beta, _ in a["snapshots"]] == [beta for beta, _ in b["snapshots"]]

    # Thirty steps, and once the energy of the reference
    history = RunFolder.open("b").history()
    assert [info.step for info in history] == list(range(1, 31))
    assert {info.temperature for info in history} == {history[0].temperature}
    assert history[-1].energy_calls == b["energy_calls"] == 3001
    assert history[-1].gradient_calls == b["gradient_calls"] == 3000
    assert max(info.learning_rate for info in history) <= 1e-3
    result = trained(RunFolder.open("b").system(), RunFolder.open("b"))
    assert (result.history, result.steps, result.energy_calls) == (history, 30, 3001)
    assert result.seconds == history[-1].seconds
    summary = json.loads(Path("b/summary.json").read_text())
    assert summary["energy_calls"] == 3001 + 1000
    assert summary["generator"]["energy_calls"] == a["energy_calls"]
    assert RunFolder.open("b").config.energy_calls == 3000 + 150_000 + 1000
    assert "It was trained further at" in Path("b/report.html").read_text()
    assert Path("b/figures/training.png").exists()

    # With other calls it is another run
    assert "is finished already" in gencg("run", *words, "--out", "b")[2]
    code, _, err = gencg("run", *words[:-1], "4e3", "--out", "b")
    assert (code, err.count("\n")) == (2, 1)
    assert "further_calls is 3000 there and 4000 here" in err

    # A third run adds all of it up
    code, out, _ = gencg("fit", *words[:-3], "b", *words[-2:], "--out", "c", "--json")
    assert code == 0
    numbers = json.loads(out)
    assert (numbers["steps"], numbers["energy_calls"]) == (30, 3001)
    origin = json.loads(Path("c/origin.json").read_text())
    assert origin["energy_calls"] == a["energy_calls"] + 3001
    assert origin["ess"] == summary["ess"]

    code, out, _ = gencg("run", *words, "--dry-run", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["n_steps"] == (3000 + 150_000) // 100
    assert found["stages"]["training"] == pytest.approx(found["costs"]["step"] * found["n_steps"])


def test_a_run_mixes_several_generators(well: Path, gencg) -> None:
    shutil.copytree(well, "a")
    for out, seed in (("b", "3"), ("c", "4")):
        words = ["double-well", *FURTHER, "--generator", "a", "--further-calls", "1e3"]
        assert gencg("fit", *words, "--seed", seed, "--out", out)[0] == 0
    three = ["--generator", "a", "--generator", "b", "--generator", "c"]
    words = ["double-well", *BUDGET[2:-1], "--energy-calls", "8000", *three]
    code, out, err = gencg("run", *words, "--out", "mixed")
    assert code == 0, err
    summary = json.loads(Path("mixed/summary.json").read_text())
    a, b, c = (load_checkpoint(f"{name}/checkpoint.pt") for name in "abc")
    # The training that two of them began from counts once
    spent = a["energy_calls"] + b["energy_calls"] + c["energy_calls"]
    assert summary["generator"]["energy_calls"] == spent
    assert f"mixture of the generators of a, b, c, whose training took {spent:,}" in out
    assert [origin["source"] for origin in summary["generator"]["members"]] == ["a", "b", "c"]
    assert summary["n_members"] == 3
    report = Path("mixed/report.html").read_text()
    assert "The generator is a mixture of 3 generators" in report
    assert "They were taken over from a, b, c, trained with" in report
    mixed = load_checkpoint("mixed/checkpoint.pt")
    for k, one in enumerate((a, b, c)):
        for name, value in one["average"].items():
            own = name.replace("decoder.", f"decoder.members.{k}.", 1)
            if name.startswith("decoder."):
                assert torch.equal(mixed["average"][own], value)

    # Soft blocks of hotter stages and collective variables are those of the first
    assert "collective variables and their joint model are of the first generator" in err
    assert "are of the first generator of the mixture alone" in report
    for (_, own), (_, first) in zip(mixed["snapshots"], a["snapshots"], strict=True):
        assert all(torch.equal(own[name], first[name]) for name in first)
    assert summary["joint_ess"] > 0
    code, _, err = gencg("run", "double-well", *FURTHER, *three, "--out", "plain")
    assert code == 0, err
    for run in ("mixed", "plain"):
        assert gencg("sample", run, "-n", "10")[0] == 0
        code, out, err = gencg("check", run)
        assert code == 0, out + err
    foretold = [
        json.loads(gencg("run", *some, "--dry-run", "--json")[1]) for some in (words[:-4], words)
    ]
    assert foretold[1]["n_parameters"] == 3 * foretold[0]["n_parameters"]

    # It lives from its own files, and others are another run
    assert gencg("run", *words, "--out", "mixed")[2].count("is finished already") == 1
    code, _, err = gencg("run", *words[:-2], "--out", "mixed")
    assert (code, err.count("\n")) == (2, 1)
    assert "generator is a b c there and a b here" in err
    # Taken over once more it is one mixture still, and nothing is counted twice
    train = ["double-well", *FURTHER, "--generator", "a", "--further-calls", "1e3", "--seed", "5"]
    assert gencg("fit", *train, "--out", "d")[0] == 0
    again = ["double-well", *FURTHER, "--generator", "mixed", "--generator", "d", "--out", "again"]
    assert gencg("fit", *again)[0] == 0
    origin = json.loads(Path("again/origin.json").read_text())
    d = load_checkpoint("d/checkpoint.pt")
    assert origin["energy_calls"] == spent + mixed["energy_calls"] + d["energy_calls"]
    assert "decoder.members.3.flow.soft.centre" in load_checkpoint("again/checkpoint.pt")["average"]


def test_generators_that_cannot_be_mixed_are_told(well: Path, gencg) -> None:
    shutil.copytree(well, "a")
    shutil.copytree(well, "same")
    train = ["double-well", *FURTHER, "--generator", "a", "--further-calls", "1e3"]
    assert gencg("fit", *train, "--out", "b")[0] == 0
    both = ["double-well", *FURTHER, "--generator", "a", "--generator", "b"]
    assert gencg("fit", *both, "--out", "mixed")[0] == 0
    one = ["double-well", *FURTHER, "--generator", "mixed"]
    for words, found in (
        ([*both, "--generator", "./a"], "`generator` must name each once, got a b ./a; leave one"),
        ([*both, "--generator", "same"], "`generator` same is in a already, or a part of it; leav"),
        ([*one, "--generator", "b"], "`generator` b is in mixed already, or a part of it; leave i"),
        ([*both, "--further-calls", "1e3"], "`further_calls` are for one generator, got 2; train"),
    ):
        code, _, err = gencg("fit", *words, "--out", "wrong")
        assert (code, err.count("\n")) == (2, 1)
        assert found in err
        assert not Path("wrong").exists()
    # A mixture goes on with its first generator, from the parameters that this has
    code, _, err = gencg("fit", *one, "--further-calls", "1e3", "--out", "first")
    assert code == 0, err
    assert "it is a mixture, of which the first generator goes on alone" in err
    assert gencg("fit", *train, "--out", "b2")[0] == 0
    assert same_parameters("first", "b2")
    foretold = [
        json.loads(gencg("run", *some, "--dry-run", "--json")[1])["n_parameters"]
        for some in ([*one, "--further-calls", "1e3"], one)
    ]
    assert foretold[1] == 2 * foretold[0]

    # What one took over as it is and the other began from counts once, in either order
    as_it_is = ["double-well", *FURTHER, "--generator", "a", "--samples", "2000"]
    assert gencg("fit", *as_it_is, "--out", "a2")[0] == 0
    energy_calls = {
        name: load_checkpoint(f"{name}/checkpoint.pt")["energy_calls"] for name in ("a", "a2", "b")
    }
    for order in (("a2", "b"), ("b", "a2")):
        named = [word for name in order for word in ("--generator", name)]
        assert gencg("fit", "double-well", *FURTHER, *named, "--out", "-".join(order))[0] == 0
        origin = json.loads(Path("-".join(order), "origin.json").read_text())
        assert origin["energy_calls"] == sum(energy_calls.values())

    # A run of an earlier version tells one sum
    origin = json.loads(Path("b/origin.json").read_text())
    earlier = {name: value for name, value in origin.items() if name != "trainings"}
    Path("b/origin.json").write_text(json.dumps(earlier))
    last = ["double-well", *FURTHER, "--generator", "same", "--generator", "b", "--out", "last"]
    assert gencg("fit", *last)[0] == 0
    spent = json.loads(Path("last/origin.json").read_text())["energy_calls"]
    a, b = (load_checkpoint(f"{name}/checkpoint.pt")["energy_calls"] for name in "ab")
    assert spent == 2 * a + b
    total = {"energy_calls": 1, "gradient_calls": 1}
    for damaged in (
        {"a": 3},
        {"energy_calls": None},
        total | {"trainings": None},
        total | {"trainings": {"a": [1]}},
    ):
        Path("b/origin.json").write_text(json.dumps(damaged))
        code, _, err = gencg("fit", *both, "--out", "wrong")
        assert (code, err.count("\n")) == (2, 1)
        assert "origin.json is damaged; restore it, or make the run again with --override" in err


def test_a_generator_of_before_learns_from_contacts(tmp_path: Path, monkeypatch, gencg) -> None:
    monkeypatch.chdir(tmp_path)
    system = systems.alanine_tetrapeptide()
    # Couplings, as all generators then
    model = build_model(system.coordinates, contacts=False, autoregressive=False)
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    before = as_result(system, model, target=target)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    about = {"command": "gencg run", "seed": 0, "energy_calls": 1, "ess": 0.5}
    pretrained.write(before, tmp_path / "alanine-tetrapeptide.pt", about=about)
    words = ["fit", "alanine-tetrapeptide", "--cvs", "0", "--batch-size", "16", "--seed", "4",
             "--generator", "shipped", "--samples", "1000", "--energy-calls", "1500"]  # fmt: skip
    for out, further in (("as-it-is", []), ("a", ["48"]), ("b", ["48"])):
        more = ["--further-calls", *further] if further else []
        code, _, err = gencg(*words, *more, "--out", out)
        assert code == 0, err
        parameters = load_checkpoint(f"{out}/checkpoint.pt")["average"]
        grown = {"contacts": bool(further), "autoregressive": False}
        assert choices_of(parameters) == grown
        # Opened again as what it is
        folder = RunFolder.open(out)
        assert trained(folder.system(), folder).model.state_dict().keys() == parameters.keys()
    assert same_parameters("a", "b")

    def killed(*args, **options):
        fit(*args, **options)
        raise KeyboardInterrupt

    # A further training that was begun without them ends without
    with monkeypatch.context() as patch:
        patch.setattr("gencg.run.generator.with_contacts", lambda model, coordinates: model)
        patch.setattr("gencg.run.generator.fit", killed)
        assert gencg(*words, "--further-calls", "48", "--out", "old")[0] == 130
    code, _, err = gencg(*words, "--further-calls", "48", "--out", "old")
    assert code == 0, err
    assert not sees_contacts(load_checkpoint("old/checkpoint.pt")["average"])


@pytest.mark.parametrize("factor, n_own", [(2.5, 0), (3.5, 3)])
def test_a_generator_is_annealed(well: Path, gencg, factor: float, n_own: int) -> None:
    shutil.copytree(well, "a")
    cold = RunFolder.open("a").config.temperature
    words = ["double-well", *FURTHER, "--generator", "a", "--further-calls", "3e3"]
    hot = [*words, "--anneal-from", str(factor * cold)]
    code, _, err = gencg("run", *hot, "--out", "b")
    assert code == 0, err
    assert f"training it further from {factor * cold:g} K down with 3,000 energy calls" in err
    history = RunFolder.open("b").history()
    factors = [info.temperature / cold for info in history]
    # Geometrically over the first half of thirty steps
    for step, found in enumerate(factors):
        assert found == pytest.approx(factor ** max(1 - step / 15, 0))
    a, b = (load_checkpoint(f"{name}/checkpoint.pt") for name in "ab")
    # Hotter soft blocks are its own where it passed all of their temperatures
    betas = [[beta for beta, _ in content["snapshots"]] for content in (a, b)]
    assert len(betas[0]) == len(betas[1]) == 3
    assert len(set(betas[1]) - set(betas[0])) == n_own
    assert (betas[0] == betas[1]) == (n_own == 0)
    assert b["ladder"][0]["beta"] < 0.5 * b["beta"]
    report = Path("b/report.html").read_text()
    assert "It was trained further " in report
    assert "further at" not in report
    assert f"fell geometrically from {factor * cold:g} K over the first half" in report
    # Without the ladder it is another run
    code, _, err = gencg("run", *words, "--out", "b")
    assert (code, err.count("\n")) == (2, 1)
    assert "anneal_from is" in err


def test_a_poor_generator_is_better_when_it_was_trained_further(gencg) -> None:
    few = ["--energy-calls", "4e3"]
    assert gencg("run", "double-well", *FURTHER, *few, "--out", "a")[0] == 0
    words = ["--generator", "a", "--further-calls", "12e3"]
    assert gencg("run", "double-well", *FURTHER, *words, "--out", "b")[0] == 0
    before, after = (json.loads(Path(f"{k}/summary.json").read_text())["ess"] for k in "ab")
    # 0.07 and 0.25 with either of two seeds
    assert after > 2 * before


def test_a_further_training_goes_on_after_a_kill_in_each_of_its_stages(
    well: Path, gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped(well, monkeypatch)
    words = ["fit", "double-well", *FURTHER, "--batch-size", "50", "--generator", "shipped",
             "--further-calls", "500", "--energy-calls", "5e3", "--checkpoint-seconds", "1e-6",
             "--out"]  # fmt: skip

    def kill(info) -> None:
        if info.step == 6:
            raise KeyboardInterrupt

    def killed(*args, **options):
        raise KeyboardInterrupt

    def killed_in_training(*args, reporters, **options):
        return fit(*args, reporters=[*reporters, kill], **options)

    def killed_at_the_end(*args, checkpoint=None, **options):
        # The first result is the one that is trained further, and has no file
        return as_result(*args, **options) if checkpoint is None else killed()

    stages = {"fit": killed_in_training, "reheat": killed, "as_result": killed_at_the_end,
              "forget_trainings": killed}  # fmt: skip
    left = {}
    for name, stage in stages.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"gencg.run.generator.{name}", stage)
            assert gencg(*words, "cut")[0] == 130
        left[name] = {path.name for path in Path("cut").iterdir()}
        assert load_checkpoint("cut/further.pt")["step"] == (5 if name == "fit" else 10)
    assert "reheating0.pt" not in left["reheat"]
    assert "reheating2.pt" in left["as_result"]
    assert ["checkpoint.pt" in names for names in left.values()] == [False, False, False, True]

    assert gencg(*words, "cut")[0] == gencg(*words, "whole")[0] == 0
    assert same_parameters("cut", "whole")
    cut, whole = (load_checkpoint(f"{name}/checkpoint.pt") for name in ("cut", "whole"))
    for (beta, soft), (other, same) in zip(cut["snapshots"], whole["snapshots"], strict=True):
        assert beta == other
        assert all(torch.equal(soft[key], same[key]) for key in soft)
    # The step that was lost was computed, too, and once more the energy of the reference
    assert cut["energy_calls"] == whole["energy_calls"] + 51
    assert [info.step for info in RunFolder.open("cut").history()] == list(range(1, 11))
    files = [{path.name for path in Path(name).iterdir()} for name in ("cut", "whole")]
    assert files[0] == files[1]
    assert not {"further.pt", "reheating0.pt"} & files[0]
    origins = [json.loads(Path(f"{name}/origin.json").read_text()) for name in ("cut", "whole")]
    assert origins[0] == origins[1]
    assert origins[0]["energy_calls"] == 12345


def test_a_further_training_keeps_the_time_limit_and_its_source(
    well: Path, gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(well, "a")
    shutil.copytree(well, "other")
    words = ["fit", "double-well", *FURTHER, "--further-calls", "1e3", "--quiet", "--generator"]
    asked = iter(range(1, 100))
    with monkeypatch.context() as patch:
        patch.setattr(Deadline, "due", lambda self: next(asked) == 4)
        code, out, err = gencg(*words, "a", "--out", "cut", "--time-limit", "1h")
    assert (code, out) == (75, "")
    assert "time is up at step 4 of 10" in err
    # What is there is not of another generator, not even where no step is in the table
    Path("cut/metrics.csv").unlink()
    code, _, err = gencg(*words, "other", "--out", "cut")
    assert (code, err.count("\n")) == (2, 1)
    assert "generator is a there and other here" in err
    assert gencg(*words, "a", "--out", "cut")[0] == gencg(*words, "a", "--out", "whole")[0] == 0
    assert same_parameters("cut", "whole")


NO_GENERATOR = {
    "none to train further": (
        ("double-well", "--further-calls", "5e3"), "got 5000 without one; give it with --generator",
    ),
    "too few further calls": (
        ("double-well", "--generator", "WELL", "--further-calls", "600"),
        "`further_calls` must be at least 1024, two steps of 512, got 600",
    ),
    "a budget of less than the further calls": (
        ("double-well", "--generator", "WELL", "--further-calls", "5e6", "--energy-calls", "1e6"),
        "5000000 of training it further, samples",
    ),
    "a ladder of a further training": (
        ("double-well", "--generator", "WELL", "--further-calls", "5e3", "--tempering", "kl"),
        "`tempering` is of a training from the beginning",
    ),
    "a rate without further calls": (
        ("double-well", "--generator", "WELL", "--learning-rate", "1e-3"),
        "leave it out, or train it with --further-calls",
    ),
    "a word": (("double-well", "--generator", "no-run"), "no-run is not a run folder"),
    "none of this name": (("double-well", "--generator", "shipped"), "is there for alanine-"),
    "other files": (
        ("alanine-tetrapeptide", "--generator", "shipped", "--forcefield", "amber14-all.xml"),
        "is for amber99sbildn.xml",
    ),
    "a temperature it is not for": (
        ("alanine-tetrapeptide", "--generator", "shipped", "--temperature", "310"),
        "is for 300 K, asked is 310 K; give --temperature 300",
    ),
    "too few calls": (
        ("double-well", "--generator", "shipped", "--energy-calls", "2e5"),
        "`energy_calls` must be at least",
    ),
    "another decoder": (
        ("double-well", "--generator", "shipped", "--decoder", "unimodal", "--cvs", "1"),
        "goes with the spline decoder",
    ),
    "another temperature": (("mueller-brown", "--generator", "WELL"), "asked is 300 K"),
    "another energy": (
        ("curved-wells", "--generator", "WELL"), "is of another force field: its energies differ",
    ),
    "another force field": (
        ("alanine-dipeptide", "--forcefield", "amber14-all.xml", "--generator", "DIPEPTIDE"),
        "is of another force field: its energies differ",
    ),
    "another number of coordinates": (
        ("alanine-dipeptide", "--generator", "WELL"), "whose coordinates are not those of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_GENERATOR)
def test_a_generator_of_something_else_is_refused(
    name: str, well: Path, dipeptide: Path, gencg
) -> None:
    words, message = NO_GENERATOR[name]
    runs = {"WELL": str(well), "DIPEPTIDE": str(dipeptide)}
    code, out, err = gencg("run", *(runs.get(word, word) for word in words), "--out", "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not Path("run").exists()


def test_samples_come_from_the_joint_model(well: Path, gencg) -> None:
    assert gencg("sample", well, "-n", "50", "--out", "more")[0] == 0
    assert read_samples("more").z.shape == (50, 1)

    # Of a run that was not finished, from the generator
    shutil.copytree(well, "half")
    Path("half/joint.pt").unlink()
    assert gencg("sample", "half", "-n", "50", "--out", "less")[0] == 0
    assert read_samples("less").z.shape == (50, 0)


def test_cvs_of_a_toy(well: Path, gencg) -> None:
    np.save("path.npy", read_samples(well).x[:20].numpy())
    code, out, err = gencg("cv", well, "path.npy", "--json", "--out", "z.npy", "--slow")
    assert (code, err) == (0, "")
    numbers = json.loads(out)
    assert (numbers["n_frames"], numbers["n_cvs"], numbers["out"]) == (20, 1, "z.npy")
    z = np.load("z.npy")
    assert z.shape == (20, len(numbers["columns"]))

    # As CSV, to every digit; without --slow the CVs alone
    assert gencg("cv", well, "path.npy", "--out", "z.csv")[0] == 0
    with open("z.csv", newline="") as file:
        names, *rows = csv.reader(file)
    assert names == numbers["columns"][:1]
    np.testing.assert_array_equal(np.array(rows, dtype=float), z[:, :1])
    assert gencg("cv", well, "path.npy", "--out", "z.txt", "--slow")[0] == 0
    np.testing.assert_array_equal(np.loadtxt("z.txt"), z)


def test_cvs_are_never_overwritten(well: Path, gencg) -> None:
    np.save("x.npy", read_samples(well).x[:3].numpy())
    shutil.copytree(well, "run")
    assert gencg("cv", "run", "x.npy")[0] == 0
    assert np.load("run/cvs_x.npy").shape == (3, 1)
    before = Path("run/cvs_x.npy").read_bytes()
    np.save("x.npy", read_samples(well).x[:4].numpy())
    code, _, err = gencg("cv", "run", "x.npy")
    assert (code, err.count("\n")) == (2, 1)
    assert "--override" in err
    assert Path("run/cvs_x.npy").read_bytes() == before
    assert gencg("cv", "run", "x.npy", "--override")[0] == 0
    assert len(np.load("run/cvs_x.npy")) == 4


def test_backmapping_a_toy(well: Path, gencg) -> None:
    z = float(read_samples(well).z.median())
    code, out, err = gencg("backmap", well, "--cv", z, "-n", "300", "--json", "--out", "there")
    assert (code, err) == (0, "")
    numbers = json.loads(out)
    there = read_samples("there")
    assert numbers["ess"] == there.ess
    assert there.n_samples == 300
    torch.testing.assert_close(
        there.z, torch.full((300, 1), z, dtype=torch.float64).float().double()
    )
    assert numbers["lost_stereo"] == numbers["clashes"] == 0
    # -kT log p(z), with p(z) from the ratio of partition functions
    whole = json.loads((well / "summary.json").read_text())
    kt = 0.00831446261815324 * whole["temperature"]
    free_energy = -kt * (there.log_z - whole["joint_log_z"])
    assert numbers["free_energy"] == pytest.approx(free_energy, rel=1e-6)
    assert numbers["density"] == pytest.approx(np.exp(-free_energy / kt), rel=1e-6)


def test_free_energy_needs_a_finished_run(well: Path, gencg) -> None:
    shutil.copytree(well, "run")
    Path("run/summary.json").unlink()
    code, out, _ = gencg("backmap", "run", "--cv", "-1", "-n", "50")
    assert code == 0
    assert "free energy" not in out
    assert "ESS" in out
    code, _, err = gencg("backmap", "run", "--cv", "-1", "-n", "50")
    assert (code, err.count("\n")) == (2, 1)
    assert "--override" in err


def test_the_model_of_2020_is_used_directly(model_of_2020: Path, gencg) -> None:
    np.save("x.npy", read_samples(model_of_2020).x[:7].numpy())
    code, out, _ = gencg("cv", model_of_2020, "x.npy", "--json", "--out", "z.npy")
    assert code == 0
    assert json.loads(out)["columns"] == ["z1"]
    assert np.load("z.npy").shape == (7, 1)
    code, _, err = gencg("cv", model_of_2020, "x.npy", "--slow", "--out", "s.npy")
    assert code == 2
    assert "no slow functions" in err
    assert gencg("backmap", model_of_2020, "--cv", "-0.2", "-n", "30", "--out", "there")[0] == 0
    assert read_samples("there").z.shape == (30, 1)


def permuted(trajectory: mdtraj.Trajectory, seed: int) -> mdtraj.Trajectory:
    """The same frames with the atoms of each residue in another order."""
    random = np.random.default_rng(seed)
    topology = mdtraj.Topology()
    chain, order, new = topology.add_chain(), [], {}
    for residue in trajectory.topology.residues:
        to = topology.add_residue(residue.name, chain, residue.resSeq)
        for atom in random.permutation([atom.index for atom in residue.atoms]):
            old = trajectory.topology.atom(atom)
            new[old.index] = topology.add_atom(old.name, old.element, to)
            order.append(old.index)
    for a, b in trajectory.topology.bonds:
        topology.add_bond(new[a.index], new[b.index])
    assert order != sorted(order)
    return mdtraj.Trajectory(trajectory.xyz[:, order], topology)


def test_cvs_of_any_order_of_atoms_are_the_named_torsions(dipeptide: Path, gencg) -> None:
    names = json.loads((dipeptide / "summary.json").read_text())["cv_names"]
    samples = read_samples(dipeptide)
    frames = mdtraj.load(str(dipeptide / "samples.h5"))[samples.valid.numpy()][:200]
    other = permuted(frames, seed=0)
    other.save_xtc("other.xtc")
    other[0].save_pdb("other.pdb")
    code, out, err = gencg("cv", dipeptide, "other.xtc", "--top", "other.pdb", "--out", "z.npy",
                           "--json")  # fmt: skip
    assert (code, err) == (0, "")
    assert json.loads(out)["columns"] == [f"{name} (rad)" for name in names]
    z = np.load("z.npy")
    torsions = {
        "phi(ALA2)": mdtraj.compute_phi(other)[1][:, 0],
        "psi(ALA2)": mdtraj.compute_psi(other)[1][:, 0],
    }
    compared = 0
    for k, name in enumerate(names):
        if name in torsions:
            turn = np.angle(np.exp(1j * (z[:, k] - torsions[name])))
            # XTC rounds positions to 0.001 nm
            assert np.abs(turn).max() < 0.05
            compared += 1
    assert compared, names

    # The CVs that the samples carry lie around the encoder's mean
    assert gencg("cv", dipeptide, dipeptide / "samples.h5", "--out", "own.npy")[0] == 0
    spread = np.angle(np.exp(1j * (np.load("own.npy") - samples.z.numpy())))
    assert np.median(np.abs(spread)) < 1.0


def test_backmapping_the_dipeptide(dipeptide: Path, gencg) -> None:
    args = ["backmap", dipeptide, "--cv", "-80", "-20", "--degrees", "-n", "100"]
    code, out, err = gencg(*args, "--format", "xtc", "--out", "there", "--json")
    assert (code, err) == (0, "")
    numbers = json.loads(out)
    there = read_samples("there")
    assert list(numbers["cv"].values()) == pytest.approx(np.deg2rad([-80, -20]).tolist(), abs=1e-6)
    assert numbers["lost_stereo"] == pytest.approx(there.n_invalid / 100)
    assert numbers["clashes"] == pytest.approx(there.n_clashes / 100)
    assert mdtraj.load("there/samples.h5").n_frames == 100
    short = mdtraj.load("there/samples.xtc", top="there/topology.pdb")
    assert short.n_frames == int(there.valid.sum())

    # In rad, printed; a part of the folder's name
    args = ["backmap", dipeptide, "--cv", "-1.4", "-0.35", "-n", "20"]
    code, out, _ = gencg(*args)
    assert code == 0
    assert "free energy" in out
    assert (dipeptide / "draws" / "cv-1.4_-0.35_seed1_n20" / "samples.h5").exists()


def no_topology(run: Path) -> list[object]:
    frame = mdtraj.load(str(run / "topology.pdb"))
    frame.save_xtc("a.xtc")
    return ["cv", run, "a.xtc"]


def other_topology(run: Path) -> list[object]:
    frame = mdtraj.load(str(run / "topology.pdb"))
    frame.atom_slice(range(10)).save_pdb("part.pdb")
    return [*no_topology(run), "--top", "part.pdb"]


def lacking_hydrogens(run: Path) -> list[object]:
    frame = mdtraj.load(str(run / "topology.pdb"))
    frame.atom_slice(frame.topology.select("element != H")).save_pdb("heavy.pdb")
    return ["cv", run, "heavy.pdb"]


def written(name: str, *args: object):
    def make(run: Path) -> list[object]:
        Path(name).write_text("nothing\n")
        return ["cv", run, name, *args]

    return make


def folder_as_trajectory(run: Path) -> list[object]:
    return ["cv", run, run]


BAD_INPUT = {
    "a missing trajectory": (lambda run: ["cv", run, "no.xtc"], "no.xtc does not exist"),
    "a folder": (folder_as_trajectory, "is a folder"),
    "no topology": (no_topology, "--top"),
    "a missing topology": (lambda run: [*no_topology(run), "--top", "no.pdb"], "no.pdb does not"),
    "a topology of fewer atoms": (other_topology, "cannot be read"),
    "an unknown format": (written("a.doc"), ".doc"),
    "a damaged trajectory": (written("a.h5"), "a.h5 cannot be read"),
    "a damaged array": (written("a.npy"), "no array"),
    "missing hydrogens": (lacking_hydrogens, "hydrogens"),
    "a table of another kind": (
        lambda run: [*lacking_hydrogens(run), "--out", "z.xls"], ".npy, .csv, .txt",
    ),
    "one value too few": (
        lambda run: ["backmap", run, "--cv", "0.3", "-n", "5"], "`cv` must give 2 numbers, for ",
    ),
    "one value too many": (
        lambda run: ["backmap", run, "--cv", "0.3", "-1", "2", "-n", "5"], "(rad), got 3",
    ),
    "a value that is not finite": (
        lambda run: ["backmap", run, "--cv", "nan", "0", "-n", "5"], "finite",
    ),
    "no samples": (lambda run: ["backmap", run, "--cv", "0", "0", "-n", "0"], "at least 1"),
    "an unknown output": (
        lambda run: ["backmap", run, "--cv", "0", "0", "-n", "5", "--format", "pdb"], "pdb",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line(name: str, dipeptide: Path, gencg) -> None:
    make, words = BAD_INPUT[name]
    args = make(dipeptide)
    before = sorted(dipeptide.rglob("*")) + sorted(Path().iterdir())
    code, out, err = gencg(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("gencg: ")
    assert words in err
    assert sorted(dipeptide.rglob("*")) + sorted(Path().iterdir()) == before


def test_explaining_the_dipeptide(dipeptide: Path, tmp_path: Path, gencg) -> None:
    # Samples of a generator that is trained, as it were
    run = tmp_path / "run"
    shutil.copytree(dipeptide, run)
    system = RunFolder.open(run).system()
    torch.set_default_dtype(torch.float64)
    write_samples(run, made_up_ensemble(system, 3000))
    torch.set_default_dtype(torch.float32)
    names = json.loads((run / "summary.json").read_text())["cv_names"]

    code, out, _ = gencg("explain", run)
    assert code == 0
    for name in names:
        assert f"{name}: a CV that is a torsion itself\n" in out
    assert out.startswith("slow 1")
    assert "1.00 cos" not in out
    written = json.loads((run / "figures" / "explain.json").read_text())["explanations"]
    assert {"slow 1", *(f"sin {name}" for name in names)} <= {row["name"] for row in written}
    pictures = list((run / "figures").glob("explain_*.png"))
    assert len(pictures) == len(written)

    code, out, _ = gencg("explain", run, "--json", "--max-terms", 1)
    content = json.loads(out)
    assert code == 0
    assert all(len(row["terms"]) == 1 for row in content["explanations"])
    assert all(Path(file).exists() for file in content["files"])
    code, _, err = gencg("explain", run, "--max-terms", 0)
    assert (code, err) == (2, "gencg: `max_terms` must be at least 1, got 0\n")


def test_a_toy_has_no_chemical_terms(well: Path, gencg) -> None:
    code, _, err = gencg("explain", well)
    assert (code, err.count("\n")) == (2, 1)
    assert "no chemical terms" in err


def test_a_toy_has_no_atoms(well: Path, dipeptide: Path, gencg) -> None:
    code, _, err = gencg("cv", well, dipeptide / "topology.pdb", "--out", "z.npy")
    assert (code, err.count("\n")) == (2, 1)
    assert "a toy has no atoms to match" in err
    code, _, err = gencg("backmap", well, "--cv", "3", "-n", "5", "--degrees")
    assert (code, err.count("\n")) == (2, 1)
    assert "`degrees` is for angles" in err


def test_a_run_without_cvs_says_so(gencg) -> None:
    args = ["double-well", *BUDGET, "--out", "run"]
    np.save("x.npy", np.zeros((2, 2)))
    assert gencg("fit", *args, "--cvs", "0")[0] == 0
    verbs = (["cv", "run", "x.npy"], ["backmap", "run", "--cv", "0", "-n", "5"])
    for verb in verbs:
        code, _, err = gencg(*verb)
        assert (code, err.count("\n")) == (2, 1)
        assert "without collective variables (--cvs 0)" in err

    assert gencg("fit", *args, "--override")[0] == 0
    for verb in verbs:
        code, _, err = gencg(*verb)
        assert (code, err.count("\n")) == (2, 1)
        assert "no collective variables yet; finish it with `gencg run`" in err


@pytest.mark.parametrize("verb", ["sample", "cv", "backmap"])
def test_every_verb_computes_with_the_threads_of_the_run(
    verb: str, well: Path, gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(well, "run")
    config = json.loads(Path("run/config.json").read_text()) | {"threads": 1}
    Path("run/config.json").write_text(json.dumps(config))
    np.save("x.npy", np.zeros((2, 2)))
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    args = {"sample": ["-n", "5"], "cv": ["x.npy"], "backmap": ["--cv", "-1", "-n", "50"]}
    assert gencg(verb, "run", *args[verb])[0] == 0
    assert set(seen) == {1}


def start(out: str, killed_in: str = "") -> int:
    """The same command in a process of its own, killed where asked; its exit code."""
    args = ["run", "double-well", *BUDGET, "--out", out, "--checkpoint-seconds", "0.001"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GENCG_COMPILE": "0"}
    command = [sys.executable, "-c", SHORT, killed_in, *args]
    return subprocess.run(command, env=environment, capture_output=True).returncode


def test_a_run_killed_in_its_second_half_goes_on_to_the_same_parameters() -> None:
    assert start("cut", "cvs") == -signal.SIGKILL
    assert not Path("cut/cvs.pt").exists()
    assert start("cut", "joint") == -signal.SIGKILL
    content = load_checkpoint("cut/joint.pt")
    assert 1 <= content["step"] < content["n_steps"]
    assert start("cut") == start("whole") == 0

    cut, whole = (load_checkpoint(f"{name}/joint.pt")["average"] for name in ("cut", "whole"))
    assert cut.keys() == whole.keys()
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    assert torch.equal(read_samples("cut").x, read_samples("whole").x)
    assert torch.equal(read_samples("cut").z, read_samples("whole").z)


def test_export_of_a_run(dipeptide: Path, well: Path, model_of_2020: Path, gencg) -> None:
    shutil.copytree(dipeptide, "run")
    code, out, err = gencg("export", "run", "--format", "plumed", "colvars", "colvar", "--json")
    assert (code, err) == (0, "")
    checks = json.loads(out)["checks"]
    files = ["cv.pt", "plumed.dat", "colvars.in", "COLVAR"]
    assert [name for c in checks if "itself" not in (name := c["file"])] == files
    assert {*files, "topology.pdb"} == {path.name for path in Path("run/export").iterdir()}
    assert max(check["value"] for check in checks) < 1e-4

    # The table holds what the run says of its samples, blurred as they are by the encoder
    table, samples = read_colvar("run/export/COLVAR"), read_samples("run")
    angles = np.stack([table[name] for name in table if name.startswith("cv_")], axis=1)
    frames = samples.select(samples.valid).to_mdtraj()
    z = samples.z[samples.valid].numpy()
    off = np.angle(np.exp(1j * (angles - z)))
    assert 0.05 < np.abs(off).mean() < 0.15
    np.testing.assert_array_equal(table["logweight"], samples.log_weights[samples.valid])

    # Of a trajectory what `gencg cv` says
    frames.save_pdb("frames.pdb")
    arguments = ("--trajectory", "frames.pdb", "--out", "there")
    code, out, _ = gencg("export", "run", "--format", "colvar", *arguments)
    assert (code, out.count("COLVAR: loaded again")) == (0, 1)
    assert gencg("cv", "run", "frames.pdb", "--out", "z.npy")[0] == 0
    table = read_colvar("there/COLVAR")
    angles = np.stack([table[name] for name in table if name.startswith("cv_")], axis=1)
    off = np.angle(np.exp(1j * (angles - np.load("z.npy"))))
    assert np.abs(off).max() < 1e-5

    for arguments, why in (
        (["run", "--format", "plumed"], "exists; choose another --out"),
        (["run", "--format", "gromos", "--out", "x"], "must be among torchscript"),
        (["run", "--format", "plumed", "--trajectory", "a.pdb", "--out", "x"], "for the format"),
        ([well, "--format", "plumed", "--out", "x"], "is no molecule"),
        ([model_of_2020, "--format", "plumed", "--out", "x"], "is no molecule"),
    ):
        code, _, err = gencg("export", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert why in err


def test_export_needs_collective_variables(gencg) -> None:
    assert gencg("fit", "butane", "--cvs", "0", *BUDGET, "--out", "run")[0] == 0
    code, _, err = gencg("export", "run", "--format", "plumed")
    assert (code, err.count("\n")) == (2, 1)
    assert "made without collective variables (--cvs 0)" in err


def test_states_of_a_run_are_told_in_a_table_and_as_json(dipeptide: Path, gencg, tmp_path) -> None:
    code, out, _ = gencg("states", dipeptide, "--n-states", 2, "--out", tmp_path / "two")
    assert code == 0
    assert "population (%)" in out
    assert "free energy (kJ/mol)" in out

    code, out, _ = gencg("states", dipeptide, "--n-states", 2, "--json", "--out", tmp_path / "two")
    found = json.loads(out)
    assert code == 0
    assert found["n_states"] == len(found["states"]) == 2
    shares = [state["population"][0] for state in found["states"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    first, second = found["states"]
    assert first["free_energy"] == [0.0, 0.0]
    # -kT ln of the ratio at 300 K
    expected = -2.494339 * np.log(shares[1] / shares[0])
    assert second["free_energy"][0] == pytest.approx(expected, rel=1e-4)
    names = {"states.json", "states.png", "state1.pdb", "state2.pdb"}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    for j, state in enumerate(found["states"], 1):
        frame = mdtraj.load(str(tmp_path / "two" / f"state{j}.pdb"))
        assert frame.n_atoms == 22
        assert "(ALA2)" in state["name"]


def test_a_walk_from_state_to_state_and_back_around_an_angle(
    dipeptide: Path, gencg, tmp_path
) -> None:
    out = tmp_path / "walk"
    options = ["--n-states", 2, "--points", 6, "-n", 12, "--out", out, "--format", "xtc"]
    code, text, _ = gencg("walk", dipeptide, "--from", 1, "--to", 2, *options, "--json")
    assert code == 0
    found = json.loads(text)
    assert found["energy_calls"] == 6 * 12
    assert min(found["free_energy"]) == 0.0
    assert np.shape(found["points"]) == (6, 2)

    # A frame for each point, the chosen sample of samples.h5, in every format
    samples = read_samples(out)
    assert samples.n_samples == 72
    for name in ("walk.pdb", "walk.xtc"):
        walk = mdtraj.load(str(out / name), top=str(out / "topology.pdb"))
        assert walk.n_frames == 6
    ends = mdtraj.load(str(out / "walk.pdb"))
    chosen = samples.select(torch.tensor(found["sample"])).to_mdtraj()
    heavy = [a.index for a in ends.topology.atoms if a.element.symbol != "H"]
    for k in range(6):
        assert mdtraj.rmsd(ends[k], chosen[k], atom_indices=heavy)[0] < 2e-3

    code, _, error = gencg("walk", dipeptide, "--from", 1, "--to", 2, *options)
    assert (code, "exists; choose another" in error) == (2, True)

    out = tmp_path / "around"
    code, text, _ = gencg(
        "walk", dipeptide, "--cv", 1, "--n-states", 2, "--points", 6, "-n", 12, "--out", out
    )
    assert code == 0
    assert "points along" in text
    assert "energy calls" in text


def test_a_run_is_explored(dipeptide: Path, tmp_path: Path) -> None:
    explorer = explore(dipeptide)
    assert explorer.names == tuple(json.loads((dipeptide / "summary.json").read_text())["cv_names"])
    assert sum(state.population[0] for state in explorer.states) == pytest.approx(1)
    z = explorer.ensemble.z[int(explorer.ensemble.log_weights.argmax())].tolist()
    there = explorer.at(z, decode=40)
    assert (there.decoded, there.n_energy_calls) == (True, 40)
    expected = torch.tensor(z, dtype=torch.float64)
    torch.testing.assert_close(there.ensemble.z[0], expected, atol=1e-6, rtol=0)
    assert explorer.at(z).n_energy_calls == 0
    explorer.save(tmp_path / "there")
    assert read_samples(tmp_path / "there").molecule is not None


def test_a_toy_has_states_a_walk_and_a_committor(well: Path, gencg, tmp_path) -> None:
    code, out, _ = gencg("states", well, "--json", "--out", tmp_path / "states")
    assert code == 0
    found = json.loads(out)
    assert found["n_states"] == 2
    # What they hold is another matter: so short a run knows neither its CV nor its wells
    assert sum(state["population"][0] for state in found["states"]) == pytest.approx(1)
    assert found["states"][1]["structure"] is None

    out = tmp_path / "walk"
    code, text, _ = gencg(
        "walk", well, "--from", 1, "--to", 2, "--points", 12, "-n", 20, "--committor", 2000,
        "--out", out, "--json",
    )  # fmt: skip
    assert code == 0
    q = json.loads(text)["committor"]
    assert json.loads(text)["energy_calls"] == 12 * 20 + 2000
    assert 0 <= q["mean"][0] < q["mean"][-1] <= 1
    assert min(q["relative_rate_back"], q["relative_rate_forth"], q["flux"]) > 0
    assert (out / "walk.png").exists()
    assert not (out / "walk.pdb").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        (("states", "--n-states", "9"), "`n_states` must lie between 2 and"),
        (("walk",), "a walk goes along --cv, or --from"),
        (("walk", "--from", "1"), "needs both --from and --to"),
        (("walk", "--from", "1", "--to", "1"), "got state 1 twice"),
        (("walk", "--from", "1", "--to", "moon"), "'moon' is no state of this run"),
        (("walk", "--cv", "7"), "`cv` must be one of 1:"),
        (("walk", "--cv", "1", "--committor", "5000"), "`committor` is between two states"),
        (("walk", "--cv", "1", "--points", "2"), "`points` must be at least 3"),
        (("walk", "--cv", "1", "-n", "2"), "`n` must be at least 10"),
        (("walk", "--from", "1", "--to", "2", "--committor", "10"), "at least 2000 energy calls"),
    ],
)
def test_states_and_walks_refuse(well: Path, gencg, args: tuple[str, ...], message: str) -> None:
    verb, *rest = args
    code, _, error = gencg(verb, well, *rest)
    assert (code, message in error) == (2, True), error


def test_a_model_of_2020_has_no_slow_functions(model_of_2020: Path, gencg) -> None:
    code, _, error = gencg("states", model_of_2020)
    assert (code, "has no slow functions to find states by" in error) == (2, True)
