"""Experiments start, and their judgement of a run is right.

Cannot detect: whether the numbers are reached; that takes the runs themselves.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    "double_well.run", "alanine_dipeptide.run", "alanine_dipeptide.evaluate",
    "collective_variables.agreement", "slow_functions.run", "one_stage.run", "two_levels.run",
    "benchmarks.energy", "benchmarks.waiting", "peptides.weights",
]  # fmt: skip
EXPECTED = sorted((ROOT / "experiments").glob("*/expected.json"))


@pytest.fixture
def expectations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("experiments.expectations")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts(script: str) -> None:
    command = [sys.executable, "-m", f"experiments.{script}", "--help"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage")


def test_a_run_is_held_against_every_kind_of_rule(expectations: ModuleType) -> None:
    rules = {
        "log_z": {"value": 12.0, "tolerance": 0.01},
        "populations.right.raw": {"at_least": 0.005},
        "energy_calls": {"at_most": 100},
    }
    good = {
        "folder": "a", "log_z": 12.005, "populations": {"right": {"raw": 0.008}},
        "energy_calls": 100, "wall_seconds": 1,
    }  # fmt: skip
    assert expectations.misses(good, rules) == []
    assert len(expectations.table([good], rules).splitlines()) == 3

    bad = good | {"log_z": 11.0, "populations": {"right": {"raw": 0.0}}, "energy_calls": 101}
    assert len(expectations.misses(bad, rules)) == 3
    assert "log_z is 11, asked is value 12, tolerance 0.01" in expectations.misses(bad, rules)[0]

    # A number that is none is a miss, not a pass
    assert len(expectations.misses(good | {"log_z": float("nan")}, rules)) == 1


@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.parent.name)
def test_expected_numbers_say_how_they_were_made(path: Path) -> None:
    content = json.loads(path.read_text())
    assert content["seeds"] == [0, 1, 2]
    assert content["command"] == f"python -m experiments.{path.parent.name}.run"
    for rule in content["quantities"].values():
        assert set(rule) in ({"value", "tolerance"}, {"at_least"}, {"at_most"})


def test_canonical_correlations_see_the_span_and_not_its_basis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    agreement = importlib.import_module("experiments.collective_variables.agreement")
    canonical_correlations = agreement.canonical_correlations
    f, noise = torch.randn(2000, 2), torch.randn(2000, 1)
    weights = torch.softmax(torch.randn(2000), 0)
    turned = f @ torch.tensor([[1.0, 2.0], [-0.5, 3.0]]) + 5.0
    assert_close(canonical_correlations(f, turned, weights), torch.ones(2))
    assert float(canonical_correlations(f, noise, weights)[0]) < 0.2


def test_the_tail_of_weights_is_told_without_the_heaviest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    weights = importlib.import_module("experiments.peptides.weights")
    n, heavy = 1000, 500.0
    log_weights = torch.zeros(n, dtype=torch.float64)
    log_weights[[17, 600]] = torch.tensor(heavy).double().log()
    found = weights.tail(log_weights)
    total = n - 2 + 2 * heavy
    assert found["ess"] == pytest.approx(total**2 / (n - 2 + 2 * heavy**2) / n)
    one = (n - 2 + heavy) ** 2 / (n - 2 + heavy**2) / (n - 1)
    assert found["without"][1] == pytest.approx(one)
    assert [found["without"][k] for k in (3, 10, 30)] == pytest.approx([1.0] * 3)
    cut = weights.CUT * total / n
    assert found["cut"] == pytest.approx((n - 2 + 2 * cut) ** 2 / (n - 2 + 2 * cut**2) / n)
