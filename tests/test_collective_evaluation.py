"""The evaluation of collective variables: its dynamics, its scores, its measures.

Cannot detect: whether the CVs of a run are good, or dynamics long enough; that takes the runs
themselves.
"""

import dataclasses
import importlib
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import gencg
from gencg.energies.base import Energy
from gencg.units import BOLTZMANN_CONSTANT

ROOT = Path(__file__).parents[1]
SCRIPTS = ["dynamics", "score", "metadynamics", "run", "table"]
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
    found = c.left_handed_difference(angles, np.log([0.25, 1, 1, 1, 1]), temperature=300.0)
    assert found == pytest.approx(KT * math.log(16.0))


def test_the_bias_behind_the_weights_is_that_of_the_simulation(dipeptide, tmp_path: Path) -> None:
    metadynamics = module("metadynamics")
    given = {
        "molecule": dipeptide.molecule, "temperature": 300.0, "sigma": 0.35, "height": 1.2,
        "bias_factor": 10.0, "stride": 0.01, "step": 0.001, "hydrogen_mass": None,
        "platform": "Reference", "forcefield": metadynamics.FORCE_FIELDS["alanine-dipeptide"],
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


def test_metadynamics_are_compared_by_median_times() -> None:
    metadynamics = module("metadynamics")
    right = {"ps": 30.0, "crossings": 3, "times": [10.0, 20.0, 30.0]}
    results = {
        "a96-0": [right | {"difference": [14.0, 15.0, 15.2]}],
        "phi, psi": [right | {"difference": [20.0, 15.9, 15.5]}],
    }
    found = metadynamics.compare(results, 15.0)
    assert found["ratio"] == 0.5
    assert found["reaches_bar"]
    assert "| phi, psi | 0.03 | 3 | 20 | +0.50 |" in metadynamics.markdown(found)
    results["phi, psi"][0]["difference"] = [20.0, 20.0, 20.0]
    found = metadynamics.compare(results, 15.0)
    assert not found["reaches_bar"]
    # JSON has no infinity
    written = metadynamics.plain(found)
    assert written["ratio"] is None
    assert written["variables"]["phi, psi"]["settled_ps"] == [None]
    assert written["variables"]["a96-0"] == found["variables"]["a96-0"]
