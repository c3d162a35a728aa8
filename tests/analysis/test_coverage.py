"""Lost modes are found, kept modes are not accused, and what cannot be told is left open.

Cannot detect: a mode that the ladder itself never visited; nothing in a run can.
"""

import numpy as np
import pytest

from gencg.analysis import check_coverage, judge
from gencg.analysis.coverage import Coverage
from gencg.analysis.verdict import overall
from gencg.units import inverse_temperature

BETA = inverse_temperature(300.0)
MINOR = 0.03
GAP = -np.log(MINOR / (1 - MINOR)) / BETA  # kJ/mol between the two wells


def two_wells(n: int, beta: float, seed: int, *, minor: bool = True) -> tuple[np.ndarray, ...]:
    """Exact samples of two square wells at +-90 degrees: angles (n, 1) and energies (n,)."""
    rng = np.random.default_rng(seed)
    share = 1 / (1 + np.exp(beta * GAP)) if minor else 0.0
    in_minor = rng.random(n) < share
    angle = np.where(in_minor, 1.5, -1.5) + rng.uniform(-0.1, 0.1, n)
    return angle[:, None], GAP * in_minor


def ladder(n: int = 400) -> list[tuple]:
    stages = []
    for k, temperature in enumerate([1200, 900, 700, 500, 400, 350, 300]):
        beta = inverse_temperature(temperature)
        y, energy = two_wells(n, beta, k)
        stages.append((beta, y, energy, np.zeros(n)))
    return stages


def check(minor: bool, stages: list | None) -> Coverage:
    y, _ = two_wells(20_000, BETA, 99, minor=minor)
    return check_coverage(y, np.zeros(len(y)), stages, beta=BETA, names=["torsion"])


def test_a_lost_mode_is_named_with_its_population() -> None:
    coverage = check(False, ladder())
    assert coverage.checked
    assert sum(b.expected for b in coverage.lost) == pytest.approx(MINOR, rel=0.5)
    assert all(1.2 < b.low < b.high < 1.9 for b in coverage.lost)
    assert all(b.found == 0 for b in coverage.lost)
    assert "torsion 75 to 90 deg (expected 0.0" in str(coverage.lost[0])


def test_a_kept_mode_is_not_accused() -> None:
    coverage = check(True, ladder())
    assert coverage.lost == ()
    assert coverage.n_bins >= 2
    assert coverage.hottest == pytest.approx(1200.0)


def test_a_mode_below_the_threshold_is_not_reported() -> None:
    y, _ = two_wells(20_000, BETA, 99, minor=False)
    log_weights = np.zeros(len(y))
    options = {"beta": BETA, "names": ["torsion"], "threshold": 0.05}
    assert check_coverage(y, log_weights, ladder(), **options).lost == ()


def test_stages_that_are_too_hot_tell_nothing() -> None:
    """A steep energy in many dimensions: reweighting leaves a handful of samples."""
    rng = np.random.default_rng(0)
    energy = rng.gamma(30, 1 / inverse_temperature(1200.0), 400)
    hot = (inverse_temperature(1200.0), rng.uniform(-3, 3, (400, 1)), energy, np.zeros(400))
    coverage = check(True, [hot])
    assert coverage.checked
    assert coverage.n_bins == 0
    assert coverage.hottest == 0.0


def test_without_hotter_stages_nothing_is_checked() -> None:
    assert not check(True, None).checked
    assert not check(True, []).checked
    assert not check(True, [stage for stage in ladder() if stage[0] >= BETA]).checked


def test_samples_without_weight_are_left_out() -> None:
    stages = [
        (beta, np.concatenate([y, y]), np.concatenate([u, np.full(len(u), np.nan)]),
         np.concatenate([w, np.full(len(w), -np.inf)]))
        for beta, y, u, w in ladder()
    ]  # fmt: skip
    assert check(False, stages).lost == check(False, ladder()).lost


GOOD = {"n_samples": 100_000, "ess": 0.9, "pareto_k": 0.2, "valid_share": 1.0,
        "coverage": Coverage(True, n_bins=9, n_effective=500.0, hottest=400.0),
        "state_samples": {"alpha_L": 80.0, "beta": 9e4}}  # fmt: skip


@pytest.mark.parametrize(
    "change, index, level, words",
    [
        ({}, 0, "good", "worth 90,000 independent"),
        ({"ess": 0.05}, 0, "fair", "rare states are not"),
        ({"ess": 1e-5}, 0, "poor", "train longer"),
        ({"pareto_k": 0.6}, 1, "fair", "long tail"),
        ({"pareto_k": 0.8}, 1, "poor", "dominate"),
        ({"pareto_k": 1.2}, 1, "poor", "no finite mean"),
        ({"pareto_k": float("inf")}, 1, "open", "too few"),
        ({"valid_share": 0.999}, 2, "good", "100 of 100,000"),
        ({"valid_share": 0.95}, 2, "fair", "wastes"),
        ({"valid_share": 0.5}, 2, "poor", "geometry"),
        ({"coverage": Coverage(False)}, 3, "open", "Not checked"),
        ({"coverage": Coverage(True)}, 3, "open", "Could not be told"),
        ({"coverage": check(False, ladder())}, 3, "poor", "Lost: torsion"),
        ({"coverage": check(True, ladder())}, 3, "good", "up to 1200 K"),
        ({"state_samples": {"alpha_L": 4.0, "beta": 9e4}}, 4, "fair", "alpha_L on 4."),
        ({"state_samples": {"alpha_L": 80.0}}, 4, "good", "at least 80 samples"),
    ],
)
def test_verdicts(change, index, level, words) -> None:
    verdicts = judge(**{**GOOD, **change})
    assert verdicts[index].level == level
    assert words in verdicts[index].text
    assert all(v.level == "good" for k, v in enumerate(verdicts) if k != index)
    top = overall(verdicts)
    assert top.level == ("good" if level == "open" else level)
    assert (verdicts[index].name.lower() in top.text) == (level in ("fair", "poor"))


def test_without_states_there_is_no_verdict_on_them() -> None:
    assert len(judge(**{**GOOD, "state_samples": {}})) == 4
