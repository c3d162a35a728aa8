"""The evaluation of collective variables: its dynamics, its scores, its measures.

Cannot detect: whether the CVs of a run are good, or dynamics long enough; that takes the runs
themselves.
"""

import dataclasses
import importlib
import json
import math
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from cv_samples import made_up_ensemble
from torch.testing import assert_close

import gencg
from gencg.analysis import candidate_terms, explain
from gencg.config import RunConfig
from gencg.energies.base import Energy
from gencg.systems.registry import FORCE_FIELDS
from gencg.units import BOLTZMANN_CONSTANT

ROOT = Path(__file__).parents[1]
SCRIPTS = ["dynamics", "score", "metadynamics", "batched", "run", "table", "explained"]
KT = BOLTZMANN_CONSTANT * 300.0


@pytest.fixture(autouse=True)
def _experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="module")
def dipeptide() -> gencg.System:
    return gencg.systems.load("alanine-dipeptide")


def module(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.collective_variables.{name}")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_starts(script: str) -> None:
    command = [sys.executable, "-m", f"experiments.collective_variables.{script}", "--help"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage")


# --- Dynamics ------------------------------------------------------------------------------------


class Well(Energy):
    """k/2 x² in every direction of one atom."""

    def __init__(self, k: float) -> None:
        super().__init__((1, 3))
        self.k = k

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.k * (x**2).sum((-1, -2))


def langevin(k: float, n_replicas: int, **settings: Any) -> Any:
    # A mass of one, so that k is the square of the frequency; in equilibrium from the start
    x = math.sqrt(KT / k) * torch.randn(n_replicas, 1, 3)
    masses = torch.ones(1)
    return module("langevin").Langevin(Well(k), x, masses, temperature=300.0, **settings)


def test_langevin_in_a_harmonic_well_is_exact() -> None:
    r"""Variance kT/k at a step as long as the period over 2 pi; then the exact autocorrelation,

    C(t) = exp(-g t / 2) (cos w t + g / (2 w) sin w t), w² = k - g² / 4.
    """
    coarse = langevin(25.0, 4000, time_step=0.2, friction=2.0)
    coarse.run(200)
    # 12,000 numbers: relative standard error sqrt(2 / 12000) = 0.013
    assert float(coarse.x.var()) / (KT / 25.0) == pytest.approx(1.0, abs=0.05)

    k, friction, step = 25.0, 3.0, 0.005
    fine = langevin(k, 20_000, time_step=step, friction=friction)
    begin, w = fine.x.clone(), math.sqrt(k - friction**2 / 4)
    for _ in range(4):
        fine.run(50)
        t = fine.n_steps * step
        exact = math.cos(w * t) + friction / (2 * w) * math.sin(w * t)
        found = float((begin * fine.x).mean()) / (KT / k)
        # Standard error 1 / sqrt(60000) = 0.004 at most times sqrt(2)
        assert found == pytest.approx(math.exp(-friction * t / 2) * exact, abs=0.02)


def test_langevin_goes_on_where_it_stopped_and_counts_its_calls() -> None:
    whole = langevin(1.0, 5)
    whole.run(3)
    state = {k: v.clone() if hasattr(v, "clone") else v for k, v in whole.state_dict().items()}
    whole.run(4)
    other = langevin(1.0, 5, seed=7)
    other.load_state_dict(state)
    other.run(4)
    assert torch.equal(whole.x, other.x)
    assert whole.energy.n_gradient_calls == 35


def test_langevin_refuses_what_it_cannot_do() -> None:
    one, masses = module("langevin").Langevin, torch.ones(1)
    with pytest.raises(ValueError, match=r"`positions` must have shape \(n_replicas, 1, 3\)"):
        one(Well(1.0), torch.zeros(2, 3), masses, temperature=300.0)
    with pytest.raises(ValueError, match="`friction` must be positive, got 0"):
        one(Well(1.0), torch.zeros(2, 1, 3), masses, temperature=300.0, friction=0.0)


def test_dynamics_go_on_after_a_kill(dipeptide, tmp_path: Path, monkeypatch) -> None:
    dynamics, trajectories = module("dynamics"), module("trajectories")
    x = torch.as_tensor(dipeptide.molecule.positions).repeat(3, 1, 1)
    monkeypatch.setattr(dynamics, "equilibrium", lambda *args, **given: x)
    monkeypatch.setattr(trajectories.Settings, "system", lambda self: dipeptide)
    settings = trajectories.Settings(
        "alanine-dipeptide", replicas=3, stride=5, block=2, settle=4, seed=1
    )
    whole = dynamics.Recording(tmp_path / "whole", settings)
    for _ in range(3):
        whole.block()

    dynamics.Recording(tmp_path / "parts", settings).block()
    # Killed after frames were written and before the checkpoint
    with open(tmp_path / "parts" / "frames.bin", "ab") as file:
        file.write(b"half a frame")
    again = dynamics.Recording(tmp_path / "parts", settings)
    for _ in range(2):
        again.block()
    one, other = (trajectories.Trajectories.read(tmp_path / name) for name in ("whole", "parts"))
    assert one.x.shape == (6, 3, 22, 3)
    assert np.array_equal(one.x, other.x)
    # Replicas come first where they are looked at, whatever the chunk
    first = one.each(lambda x: x[:, 0], chunk=4)
    assert first.shape == (3, 6, 3)
    assert np.array_equal(first[1, 4], one.x[4, 1, 0].astype(np.float64))

    with pytest.raises(ValueError, match="dynamics of other settings"):
        dynamics.Recording(tmp_path / "parts", dataclasses.replace(settings, seed=2))
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ValueError, match="`target` must be a molecule"):
        dynamics.Recording(tmp_path / "toy", trajectories.Settings("double-well"))


# --- Scores --------------------------------------------------------------------------------------

CHAIN = np.array([[0.95, 0.05, 0.0], [0.04, 0.86, 0.10], [0.0, 0.20, 0.80]])
"""Reversible; its populations are 0.348, 0.435, 0.217."""


def populations(p: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(p.T)
    first = np.real(vectors[:, np.argmax(np.real(values))])
    return first / first.sum()


def walks(p: np.ndarray, n_replicas: int, n_frames: int, *, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    steps = np.cumsum(p, 1)
    states = [generator.choice(len(p), size=n_replicas, p=populations(p))]
    for _ in range(n_frames - 1):
        u = generator.random(n_replicas)
        states.append((u[:, None] > steps[states[-1]]).sum(1))
    return np.stack(states, 1)


def test_score_of_an_exact_chain_is_the_sum_of_its_squared_eigenvalues() -> None:
    vamp = module("vamp")
    exact = np.sort(np.linalg.eigvals(CHAIN).real)[::-1]
    counts = 1000.0 * populations(CHAIN)[:, None] * CHAIN
    for m in (1, 2, 3):
        functions = vamp.SingularFunctions.of(counts, m)
        assert functions.values == pytest.approx(exact[:m])
        found = vamp.vamp2(functions.moments(counts[None]).sum(0))
        assert found == pytest.approx((exact[:m] ** 2).sum())

    # Functions that see two of three states as one are less slow
    lump = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    lumped = vamp.SingularFunctions.of(lump.T @ counts @ lump, 2)
    assert 1.0 < (lumped.values**2).sum() < (exact[:2] ** 2).sum()

    # A state that is never seen changes nothing
    wider = np.pad(counts, (0, 1))
    functions = vamp.SingularFunctions.of(wider, 4)
    assert vamp.vamp2(functions.moments(wider[None]).sum(0)) == pytest.approx((exact**2).sum())


def test_score_on_held_out_walks_is_that_of_the_chain_within_its_error() -> None:
    vamp = module("vamp")
    states = walks(CHAIN, 100, 2000)
    assert vamp.pair_counts(states, 3, 3).sum() == 100 * 1997
    train = np.arange(100) < 50
    for lag in (1, 5):
        scores = vamp.held_out_scores(
            states, train, lag=lag, n_states=3, n_functions=3,
            weights=vamp.bootstrap_weights(50, 100, seed=0),
        )  # fmt: skip
        exact = (np.linalg.eigvals(np.linalg.matrix_power(CHAIN, lag)).real ** 2).sum()
        error = scores[1:].std()
        assert 0 < error < 0.05
        # Three standard errors fail once in 400 seeds
        assert scores[0] == pytest.approx(exact, abs=3 * error)
    with pytest.raises(ValueError, match=r"`lag` must lie in \[1, 2000\), got 2000"):
        vamp.pair_counts(states, 2000, 3)


def test_a_replica_in_a_state_that_none_leaves_takes_no_function() -> None:
    vamp = module("vamp")
    assert vamp.largest_connected(np.array([[5, 1, 0], [1, 9, 0], [0, 0, 99]])).tolist() == [
        False, False, True,
    ]  # fmt: skip
    # The way back is missing
    assert vamp.largest_connected(np.array([[5, 1], [0, 9]])).tolist() == [False, True]
    states = walks(CHAIN, 100, 2000)
    given = {"lag": 1, "n_functions": 3, "weights": np.ones((1, 50))}
    train = np.arange(100) < 50
    plain = vamp.held_out_scores(states, train, n_states=3, **given)
    states[0] = 3
    trapped = vamp.held_out_scores(states, train, n_states=4, **given)
    assert trapped == pytest.approx(plain, abs=0.02)


def test_score_is_that_of_deeptime() -> None:
    decomposition = pytest.importorskip("deeptime.decomposition")
    covariance = importlib.import_module("deeptime.covariance")
    vamp = module("vamp")
    halves = [vamp.pair_counts(walks(CHAIN, 20, 300, seed=s), 2, 3).sum(0) for s in (0, 1)]
    models = []
    for counts in halves:
        joint = counts / counts.sum()
        given = covariance.CovarianceModel(
            cov_00=np.diag(joint.sum(1)), cov_0t=joint, cov_tt=np.diag(joint.sum(0)),
            mean_0=joint.sum(1), mean_t=joint.sum(0), bessels_correction=False, lagtime=2,
        )  # fmt: skip
        models.append(decomposition.VAMP(lagtime=2).fit_from_covariances(given).fetch_model())
    for m in (2, 3):
        functions = vamp.SingularFunctions.of(halves[0], m)
        own = float(vamp.vamp2(functions.moments(halves[1][None]).sum(0)))
        theirs = models[0].score(2, test_model=models[1], dim=m, epsilon=1e-12)
        assert own == pytest.approx(theirs)


def test_nothing_of_the_held_out_half_is_in_clusters_or_fitted_cvs() -> None:
    score, competitors = module("score"), module("competitors")
    generator = np.random.default_rng(0)
    features = np.cumsum(generator.standard_normal((6, 60, 3)), 1)
    changed = features.copy()
    changed[3:] *= generator.standard_normal((3, 60, 3))
    scoring = score.Scoring((2,), n_clusters=5, n_functions=3, n_draws=4)
    kinds = [
        lambda f: competitors.Fixed("fixed", f, periodic=True),
        lambda f: competitors.PrincipalComponents("pca", f, 2),
    ]
    try:
        importlib.import_module("deeptime")
    except ImportError:
        pass
    else:
        kinds += [
            lambda f: competitors.TimeLagged("TICA", "tica", f, 2),
            lambda f: competitors.TimeLagged("VAMP", "vamp", f, 2),
        ]
    for kind in kinds:
        (train, states), (_, others) = (
            scoring._states(kind(f), fold=0, lag=2) for f in (features, changed)
        )
        assert train.tolist() == [True] * 3 + [False] * 3
        assert np.array_equal(states[:3], others[:3])
        assert not np.array_equal(states[3:], others[3:])


def test_cvs_are_scored_by_what_they_know_of_the_slow_motion() -> None:
    score, competitors = module("score"), module("competitors")
    hidden = walks(CHAIN, 40, 500)
    noise = np.random.default_rng(1).standard_normal((40, 500))
    angle = 2.0 * hidden + 0.2 * noise
    scoring = score.Scoring((1, 4), n_clusters=8, n_functions=3, n_draws=20)
    scores = {
        name: scoring(competitors.Fixed(name, z[..., None], periodic=periodic))
        for name, z, periodic in (
            ("own", angle, True),
            ("TICA", angle, True),
            ("VAMP", noise, False),
            ("random 0", 2.0 * (hidden > 0) + 0.2 * noise, False),
        )
    }
    exact = [(np.linalg.eigvals(np.linalg.matrix_power(CHAIN, n)).real ** 2).sum() for n in (1, 4)]
    assert scores["own"][:, 0] == pytest.approx(exact, abs=0.1)
    assert scores["VAMP"][:, 0] == pytest.approx([1.0, 1.0], abs=0.02)
    assert (scores["random 0"][:, 0] < scores["own"][:, 0] - [0.3, 0.03]).all()

    result = score.summarise(scores, ["own"])
    ratio = result["ratios"]["own"]
    # The same CVs under two names: draws are shared, so that even the error vanishes
    assert ratio["best"] == ["TICA", "TICA"]
    assert ratio["ratio"] == pytest.approx([1.0, 1.0])
    assert ratio["error"] == pytest.approx([0.0, 0.0])
    assert ratio["reaches_bar"]
    table = score.markdown(result | {"lags_ps": [0.5, 2.0]})
    assert "| own / best of TICA, VAMP | 1.000 ± 0.000 | 1.000 ± 0.000 |" in table


def test_competitors_have_as_many_cvs_as_asked() -> None:
    competitors = module("competitors")
    labels, angles = ("phi(A)", "psi(A)", "phi(B)", "psi(B)"), np.zeros((2, 3, 4))
    chosen = {n: competitors.hand_chosen(labels, angles, n) for n in (1, 2, 4)}
    assert [[c.name for c in chosen[n]] for n in (1, 2, 4)] == [[], ["phi of all"], ["phi, psi"]]
    assert chosen[2][0].values(np.ones(2, bool), 1).shape == (2, 3, 2)
    features = {"a": np.random.default_rng(0).standard_normal((2, 3, 4))}
    assert {c.n_cvs for c in competitors.linear_competitors(features, 3)} == {3}
    one, other = (competitors.random_combinations(features["a"], 2, seed=s) for s in (0, 1))
    assert one.shape == (2, 3, 2)
    assert not np.allclose(one, other)


def test_visits_to_alpha_l_are_counted_in_each_replica() -> None:
    degrees = np.array([[60.0, 61.0, -80.0, 60.0], [-80.0, 60.0, 130.0, -80.0], [-80.0] * 4])
    angles = np.radians(np.stack([degrees, 0 * degrees], -1))
    found = module("score").left_handed(["phi(ALA2)", "psi(ALA2)"], angles)["ALA2"]
    assert found["population"] == pytest.approx(4 / 12)
    assert found["error"] == pytest.approx(np.std([0.75, 0.25, 0.0], ddof=1) / 3**0.5)
    assert found["visits"] == 3


def test_features_do_not_see_which_hydrogen_is_which(dipeptide) -> None:
    features = module("features")
    molecule, coordinates = dipeptide.molecule, dipeptide.coordinates
    quads = features.heavy_torsions(molecule)
    known = {frozenset((q, q[::-1])) for q in quads}
    assert {frozenset((q, q[::-1])) for _, q in molecule.phi_psi()} <= known
    assert {molecule.elements[i] for quad in quads for i in quad} == {"C", "N", "O"}
    bonds = {frozenset(bond) for bond in molecule.bonds.tolist()}
    assert all({frozenset(p) for p in pairwise(q)} <= bonds for q in quads)

    x = torch.as_tensor(molecule.positions) + 0.01 * torch.randn(20, molecule.n_atoms, 3)
    turned = coordinates.random_copies(x)
    assert not torch.equal(turned, x)
    assert_close(
        torch.exp(1j * features.soft_torsions(dipeptide, turned)),
        torch.exp(1j * features.soft_torsions(dipeptide, x)),
    )
    assert_close(features.quad_torsions(quads, turned), features.quad_torsions(quads, x))


# --- Formulas ------------------------------------------------------------------------------------


def test_formulas_of_slow_functions_are_told_run_by_run(dipeptide, tmp_path: Path) -> None:
    table = module("explained").table
    ensemble = made_up_ensemble(dipeptide, 3000)
    terms = candidate_terms(ensemble, coordinates=dipeptide.coordinates)
    names = [term.name for term in terms.candidates]
    step = terms.values([names.index("cos phi(ALA2)")])[:, 0]
    noise = np.random.default_rng(0).standard_normal(len(step))
    found = [
        explain(terms, values, name=name, n_bootstraps=10).numbers()
        for name, values in (("slow 1", 3 * step), ("slow 2", noise), ("cos phi(ALA2)", step))
    ]
    (tmp_path / "figures").mkdir()
    (tmp_path / "config.json").write_text(RunConfig("butane").to_json())
    with pytest.raises(ValueError, match="holds no explanation of a slow function"):
        table([tmp_path])
    (tmp_path / "figures" / "explain.json").write_text(json.dumps({"explanations": found}))
    _, _, *rows = (
        [c.strip() for c in line.split("|")][1:-1] for line in table([tmp_path]).splitlines()
    )
    # Collective variables are not slow functions
    assert [row[:2] for row in rows] == [[tmp_path.name, "slow 1"], [tmp_path.name, "slow 2"]]
    assert rows[0][2:6] == ["1", "3.00 cos phi(ALA2)", "1.000 ± 0.000", "1.00 / 1.00"]
    assert rows[1][3] == "no short formula"
    assert all(rows[1][k].startswith("(") for k in (2, 4, 5))


# --- Metadynamics --------------------------------------------------------------------------------


def test_crossings_and_times_are_counted() -> None:
    c = module("crossings")
    # Touching the other core once is one crossing, hesitating between them is none
    degrees = np.array([-80.0, -20.0, 10.0, -90.0, 20.0, 60.0, 55.0, 0.0, -60.0, 179.0, -60.0])
    assert c.crossings(np.radians(degrees)) == 2
    assert c.settled([1.0, 2.0, 3.0, 4.0], [9.0, 5.5, 7.0, 5.9], 5.0, 1.0) == 4.0
    assert c.settled([1.0, 2.0], [5.0, 4.5], 5.0, 1.0) == 1.0
    assert c.settled([1.0, 2.0], [5.0, math.inf], 5.0, 1.0) == math.inf
    assert c.difference(0.5, temperature=300.0) == 0.0
    assert c.difference(0.0, temperature=300.0) == math.inf

    # Weights undo a bias: a state of 1 in 5 frames at a quarter of the weight of the others
    angles = np.radians([[60.0, 0.0]] + [[-80.0, 0.0]] * 4)
    found = c.differences(angles, np.log([0.25, 1, 1, 1, 1]), temperature=300.0)
    assert found["alpha_L"] == pytest.approx(KT * math.log(16.0))
    # All of the rest is helical
    assert found["alpha_R"] == -math.inf
    extended = c.differences(
        np.radians([[-60.0, 140.0], [-170.0, 170.0], [-80.0, -40.0]]),
        np.zeros(3),
        temperature=300.0,
    )
    assert extended == {"alpha_L": math.inf, "alpha_R": pytest.approx(KT * math.log(2.0))}


def test_the_bias_behind_the_weights_is_that_of_the_simulation(dipeptide, tmp_path: Path) -> None:
    metadynamics = module("metadynamics")
    given = {
        "molecule": dipeptide.molecule, "temperature": 300.0, "sigma": 0.35, "height": 1.2,
        "bias_factor": 10.0, "stride": 0.01, "step": 0.001, "hydrogen_mass": None,
        "platform": "Reference", "forcefield": FORCE_FIELDS["alanine-dipeptide"],
        "seed": 0,
    }  # fmt: skip
    biased = metadynamics.Biased(tmp_path / "run", **given)
    biased.block()
    assert biased.calls == 10 * metadynamics.BLOCK
    assert biased.picoseconds == pytest.approx(0.5)
    z = np.array(biased.seen["variables"][-1:])
    assert biased.seen["angles"][-1] == pytest.approx(z[0], abs=1e-4)
    unbiased = float(
        dipeptide.energy(
            torch.tensor(
                biased._simulation.context.getState(positions=True)
                .getPositions(asNumpy=True)
                ._value[None]
            )
        )
    )
    bias = biased.potential_energy - unbiased
    assert bias > 1.0
    # Off by at most half a cell of a grid of 3.75 degrees
    assert KT * biased.log_weights(z)[0] == pytest.approx(bias, rel=0.05)

    # Gone on with: the same bias, step and frames
    again = metadynamics.Biased(tmp_path / "run", **given)
    assert again.calls == biased.calls
    assert again.line == biased.line
    assert again.log_weights(z) == pytest.approx(biased.log_weights(z))
    assert np.array_equal(again.seen["variables"], biased.seen["variables"])
    with pytest.raises(ValueError, match="`stride` must be a multiple of 5 steps, got 7 steps"):
        metadynamics.Biased(tmp_path / "other", **given | {"stride": 0.007})


def test_metadynamics_are_compared_by_median_times(tmp_path: Path) -> None:
    c = module("comparison")
    reference = c.Reference({"alpha_L": 15.0}, {"alpha_L": 0.1}, {"alpha_L": "given"})
    right = {"ps": 30.0, "crossings": 3, "times": [10.0, 20.0, 30.0]}

    def course(*values: float) -> dict[str, Any]:
        return right | {"alpha_L": list(values)}

    early, late, never = (
        course(14.0, 15.0, 15.2),
        course(20.0, 15.9, 15.5),
        course(20.0, 20.0, math.inf),
    )
    results = {"a96-0": [early] * 3, "phi, psi": [late] * 3, "psi": [late, never, never]}
    found = c.compare(results, reference)
    assert found["ratios"]["a96-0"]["alpha_L"] == {"ratio": 0.5, "error": 0.0, "reaches_bar": True}
    assert found["variables"]["a96-0"]["alpha_L"]["right_ps"] == 10.0
    assert not found["ratios"]["psi"]["alpha_L"]["reaches_bar"]
    row = found["variables"]["psi"]["alpha_L"]
    assert row["arrived"] == pytest.approx(1 / 3)
    assert row["quartiles_ps"] == [20.0 if k == 0 else math.inf for k in (1, 1)]
    assert found["variables"]["phi, psi"]["alpha_L"]["course"][1] == [20.0, pytest.approx(0.9)]
    # Of one that is right from 20 ps on and two that never are, the median is never right
    assert row["right_ps"] == math.inf
    assert found["variables"]["phi, psi"]["alpha_L"]["right_ps"] == 20.0
    text = c.markdown(found)
    assert (
        "| phi, psi | 3 x 0.03 | 3.00 ± 0.00 | alpha_L | 20 ± 0 |  | 20 (20, 20) | 100% |" in text
    )
    c.draw(found, tmp_path / "courses.png")
    assert (tmp_path / "courses.png").read_bytes().startswith(b"\x89PNG")
    assert "+5.00 ± nan" not in text
    assert "(2 infinite)" in text

    # Where phi and psi do not arrive, nothing is better than they are
    found = c.compare({"a96-0": [early], "phi, psi": [never]}, reference)
    assert not found["ratios"]["a96-0"]["alpha_L"]["reaches_bar"]
    # JSON has no infinity
    written = c.plain(found)
    assert written["ratios"]["a96-0"]["alpha_L"]["ratio"] is None
    assert written["variables"]["phi, psi"]["alpha_L"]["settled_ps"] == [None]


# --- Batched metadynamics -------------------------------------------------------------------------


def hills(*axes: Any, n: int = 3, **given: Any) -> Any:
    settings = {"height": 1.2, "bias_factor": 5.0, "temperature": 300.0, "dtype": torch.float64}
    return module("hills").Hills(axes, n, **settings | given)


def test_bias_is_the_sum_of_hills_each_lower_where_the_bias_is_high() -> None:
    h = module("hills")
    axes = (h.Axis(0.35), h.Axis(0.2, -1.0, 2.0, periodic=False))
    bias = hills(*axes)
    widths, low = torch.tensor([0.35, 0.2]), torch.tensor([-math.pi, -1.0])
    span = torch.tensor([2 * math.pi, 3.0])
    z = (low + span * torch.rand(3, 2)).double().requires_grad_()
    exact = torch.zeros(3, dtype=torch.float64)
    for _ in range(30):
        centre = (low + span * torch.rand(3, 2)).double()
        height = 1.2 * torch.exp(-bias(centre)[0] / (KT * 4))
        bias.add(centre)
        offset = z - centre
        turn = offset[:, 0] - 2 * math.pi * torch.round(offset[:, 0] / (2 * math.pi))
        offset = torch.stack([turn, offset[:, 1]], dim=-1)
        exact = exact + height * torch.exp(-0.5 * ((offset / widths) ** 2).sum(-1))
    (slopes,) = torch.autograd.grad(exact.sum(), z)
    value, found = bias(z.detach())
    assert_close(value, exact.detach(), atol=1e-3, rtol=1e-3)
    assert_close(found, slopes, atol=2e-2, rtol=1e-2)
    assert bias.grid.amax() > 1.2  # hills lie on each other

    # The slope is that of the interpolated bias, also across the seam and between cells
    for place in (-3.1415, 3.1415, 0.3, 0.3927):
        at = torch.tensor([[place, 0.4]]).double().repeat(3, 1)
        step = torch.tensor([1e-6, 0.0]).double()
        slope = (bias(at + step)[0] - bias(at - step)[0]) / 2e-6
        assert_close(bias(at)[1][:, 0], slope, atol=1e-6, rtol=1e-5)
    # Beyond the ends of a line nothing pulls
    beyond = torch.tensor([[0.3, 2.5]]).double().repeat(3, 1)
    assert_close(bias(beyond)[0], bias(torch.tensor([[0.3, 2.0]]).double().repeat(3, 1))[0])
    assert bool((bias(beyond)[1][:, 1] == 0).all())
    # Frames of a replica meet its own bias
    frames = (low + span * torch.rand(3, 4, 2)).double()
    each = torch.stack([bias(frame)[0] for frame in frames.unbind(1)], dim=1)
    assert_close(bias.log_weights(frames), each / KT)
    with pytest.raises(ValueError, match="`bias_factor` must be above 1 and finite, got 1"):
        hills(h.Axis(0.35), bias_factor=1.0)
    with pytest.raises(ValueError, match="`axes` must hold one axis or more"):
        hills()


def test_bias_is_that_of_openmm(dipeptide) -> None:
    """The same hills at the same places give OpenMM's grid."""
    openmm = pytest.importorskip("openmm")
    from openmm import app

    forces = [openmm.CustomTorsionForce("theta") for _ in range(2)]
    for force, (_, quad) in zip(forces, dipeptide.molecule.phi_psi(), strict=True):
        force.addTorsion(*quad, [])
    h = module("hills")
    bias = hills(h.Axis(0.35), h.Axis(0.5), n=1)
    system = openmm.System()
    for mass in dipeptide.molecule.masses:
        system.addParticle(mass)
    variables = [
        app.BiasVariable(force, -math.pi, math.pi, axis.width, True, gridWidth=axis.n_points + 1)
        for force, axis in zip(forces, bias.axes, strict=True)
    ]
    theirs = app.Metadynamics(system, variables, 300.0, 5.0, 1.2, 1)
    context = openmm.Context(
        system,
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    for turn in range(6):
        x = dipeptide.molecule.positions + 0.02 * np.random.default_rng(turn).normal(size=(22, 3))
        context.setPositions(x)
        z = np.array(theirs._force.getCollectiveVariableValues(context))
        energy = context.getState(energy=True, groups={31}).getPotentialEnergy()
        height = theirs.height * np.exp(-energy._value / (KT * 4))
        theirs._addGaussian(z, height, context)
        bias.add(torch.tensor(z)[None])
    # Its axes are in reverse and hold the seam twice; its bias at z is a spline of its own
    grid = theirs.getFreeEnergy()._value.T[:-1, :-1]
    assert_close(bias.free_energy()[0].numpy(), grid, atol=1e-3, rtol=1e-3)
    assert float(np.ptp(grid)) > 3.0


def test_gradient_of_a_bias_of_any_function_of_torsions_is_exact(dipeptide) -> None:
    biased, h = module("biased"), module("hills")
    molecule = dipeptide.molecule
    quads = module("features").heavy_torsions(molecule)[:3]
    axes = [h.Axis(0.35), h.Axis(0.4, -3.0, 3.0, periodic=False)]

    def function(torsions: torch.Tensor) -> torch.Tensor:
        mixed = torsions.cos() @ torsions.new_tensor([0.6, -0.4, 1.0])
        return torch.stack([torsions[:, 1] + 0.2 * torsions[:, 0].sin(), mixed], dim=-1)

    for variables in (
        biased.Variables("torsions", quads[:2], [h.Axis(0.35)] * 2),
        biased.Variables("mixed", quads, axes, function=function),
    ):
        bias = hills(*variables.axes, n=5)
        x = torch.as_tensor(molecule.positions) + 0.02 * torch.randn(5, 22, 3).double()
        for _ in range(4):
            bias.add(variables(x + 0.01 * torch.randn_like(x)))
        value, gradient = variables.bias(x, bias)
        assert_close(bias(variables(x))[0], value)
        step = torch.randn_like(x)
        moved = [variables.bias(x + s * step, bias)[0] for s in (1e-6, -1e-6)]
        slopes = (moved[0] - moved[1]) / 2e-6
        assert_close((gradient * step).sum((1, 2)), slopes, atol=1e-5, rtol=1e-5)

        # Kicks of the bias every third step are as strong as three
        energy = biased.BiasedEnergy(dipeptide.energy, variables, bias, every=3)
        plain = dipeptide.energy.energy_and_gradient(x)[1]
        kicks = [energy.energy_and_gradient(x)[1] - plain for _ in range(4)]
        assert_close(kicks[0], 3 * gradient, atol=1e-6, rtol=1e-6)
        assert float(kicks[1].abs().max()) == float(kicks[2].abs().max()) == 0.0
        assert_close(kicks[3], kicks[0])
    with pytest.raises(ValueError, match="`quads` of none must name the atoms of a torsion"):
        biased.Variables("none", [], axes)


class TwoWells(Energy):
    """12 (x² - 1)² + 2 x kJ/mol of one atom along x, harmonic across."""

    def __init__(self) -> None:
        super().__init__((1, 3))

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return self.profile(x[:, 0, 0]) + 10 * (x[:, 0, 1:] ** 2).sum(1)

    def profile(self, x: torch.Tensor) -> torch.Tensor:
        """Free energy along x."""
        return 12 * (x**2 - 1) ** 2 + 2 * x

    def energy_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = 20 * x
        gradient[:, 0, 0] = 48 * x[:, 0, 0] * (x[:, 0, 0] ** 2 - 1) + 2
        return self.energy(x), gradient


class Along:
    """x itself as the variable."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, :1].clone()

    def bias(self, x: torch.Tensor, bias: Any) -> tuple[torch.Tensor, torch.Tensor]:
        value, slope = bias(self(x))
        return value, torch.nn.functional.pad(slope, (0, 2))[:, None]


def test_metadynamics_finds_the_free_energy_of_two_wells() -> None:
    """The bias tends to -(g - 1)/g F, and weights by it give the populations of both wells."""
    biased, h = module("biased"), module("hills")
    n, variables = 100, Along()
    bias = hills(h.Axis(0.15, -2.0, 2.0, periodic=False), n=n, height=1.0, bias_factor=6.0)
    energy = biased.BiasedEnergy(TwoWells(), variables, bias, every=2)
    x = torch.tensor([[[-1.0, 0, 0]]]).double().expand(n, -1, -1)
    dynamics = module("langevin").Langevin(
        energy, x, torch.ones(1), temperature=300.0, time_step=0.02, friction=1.0
    )
    seen = []
    for _ in range(240):
        dynamics.run(20)
        seen.append(variables(dynamics.x))
        bias.add(seen[-1])
    points = bias.points()[:, 0]
    truth = TwoWells().profile(points)
    offset = (bias.free_energy().mean(0) - truth)[truth < 14.0]
    # Up to a constant; kT is 2.5 and the barrier 12 kJ/mol
    assert float(offset.std()) < 0.5

    frames = torch.stack(seen[48:], dim=1)
    weights = bias.log_weights(frames).softmax(1)
    right = (weights * (frames[..., 0] > 0)).sum(1)
    exact = float(torch.softmax(-truth / KT, 0)[points > 0].sum())
    # Mean of all replicas beside its own error; unweighted frames are there half of the time
    error = float(right.std() / math.sqrt(n))
    assert error < 0.2 * exact
    assert abs(float(right.mean()) - exact) < 4 * error + 0.01
    assert float((frames > 0).double().mean()) > 1.5 * exact


def test_batched_metadynamics_go_on_after_a_kill(dipeptide, tmp_path: Path, monkeypatch) -> None:
    batched, h = module("batched"), module("hills")
    monkeypatch.setattr(batched, "BLOCK", 2)
    monkeypatch.setattr(batched, "SETTLE", 4)
    molecule = dipeptide.molecule
    variables = module("biased").Variables(
        "phi, psi", [quad for _, quad in molecule.phi_psi()], [h.Axis(0.35)] * 2
    )
    settings = batched.Settings(replicas=3, stride=0.0125, step=0.0025, every=2)
    given = {"system": dipeptide, "variables": variables, "settings": settings}
    whole = batched.simulate(tmp_path / "whole.pt", 0.1, **given)
    assert whole.picoseconds == pytest.approx(0.1)
    batched.simulate(tmp_path / "parts.pt", 0.05, **given)
    parts = batched.simulate(tmp_path / "parts.pt", 0.1, **given)
    assert torch.equal(whole.dynamics.x, parts.dynamics.x)
    assert torch.equal(whole.hills.grid, parts.hills.grid)
    one, other = whole.results(), parts.results()
    assert one == other
    assert one[0]["times"] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert len(one) == 3
    assert one[1]["alpha_L"][-1] == math.inf

    make = partial(batched.Metadynamics, tmp_path / "whole.pt", dipeptide, variables)
    with pytest.raises(ValueError, match="holds metadynamics of other settings"):
        make(dataclasses.replace(settings, height=2.0))
    with pytest.raises(ValueError, match=r"`stride` must be a multiple of 5 steps of 0.0025 ps"):
        make(dataclasses.replace(settings, stride=0.03))
    toy = gencg.systems.load("double-well")
    with pytest.raises(ValueError, match="`system` must be a molecule"):
        batched.Metadynamics(tmp_path / "toy.pt", toy, variables, settings)


def test_hydrogens_take_mass_from_their_atoms(dipeptide) -> None:
    molecule = dipeptide.molecule
    masses = torch.as_tensor(molecule.masses)
    raise_mass = module("biased").heavier_hydrogens
    found = raise_mass(masses, molecule.elements, molecule.neighbours, hydrogen_mass=3.0)
    hydrogen = torch.tensor([e == "H" for e in molecule.elements])
    assert bool((found[hydrogen] == 3.0).all())
    assert float(found.sum()) == pytest.approx(float(masses.sum()))
    unchanged = raise_mass(masses, molecule.elements, molecule.neighbours, hydrogen_mass=None)
    assert torch.equal(unchanged, masses)
    with pytest.raises(ValueError, match="`hydrogen_mass` must leave mass to heavy atoms, got 6"):
        raise_mass(masses, molecule.elements, molecule.neighbours, hydrogen_mass=6.0)


def test_variables_of_files_and_components(dipeptide, tmp_path: Path) -> None:
    from gencg.export.cv_function import CVFunction
    from gencg.export.torchscript import write_torchscript

    v, h = module("variables"), module("hills")
    molecule = dipeptide.molecule
    pairs = dict(molecule.phi_psi())

    class Shifted(torch.nn.Module):
        def forward(self, torsions: torch.Tensor) -> torch.Tensor:
            moved = torsions + 0.5
            return torch.stack([moved.cos(), moved.sin()], dim=-1).flatten(1)

    columns = [f"{f} {name}" for name in pairs for f in ("cos", "sin")]
    function = CVFunction(
        torsions=pairs, distances={}, module=Shifted(), columns=tuple(columns), n_atoms=22,
        angles={name: 2 * k for k, name in enumerate(pairs)},
    )  # fmt: skip
    x = (torch.as_tensor(molecule.positions) + 0.02 * torch.randn(40, 22, 3)).float()
    path = write_torchscript(tmp_path / "cv.pt", function, x)
    found = v.of_file("cvs", path, h.Axis(0.35))
    plain = module("biased").Variables("phi, psi", list(pairs.values()), found.axes)
    turned = gencg.geometry.wrap(found(x) - plain(x) - 0.5)
    assert_close(turned, torch.zeros_like(turned), atol=1e-5, rtol=0.0)
    bias = hills(*found.axes, n=40, dtype=torch.float32)
    bias.add(found(x))
    assert float(found.bias(x + 0.01, bias)[1].abs().max()) > 0.0

    line = v.line_axis(-1.0, 3.0, 0.5)
    assert (line.low, line.high, line.width) == pytest.approx((-1.8, 3.8, 0.1))
    component = v.Components(torch.randn(500, 2).double() * torch.tensor([0.05, 1.0]), 1)
    weights = component.vectors[:, 0].abs()
    # The torsion that moves, its sine and cosine at places 1 and 3
    assert float(weights[[1, 3]].square().sum()) > 0.99
