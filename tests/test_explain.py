"""Explanations of collective variables: planted formulas come back, and nothing else does.

Cannot detect: whether a formula means anything to a chemist, or whether a slow function of a real
run has one.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

import gencg
from gencg.analysis import candidate_terms, explain, explain_angle
from gencg.analysis.descriptors import wells
from gencg.analysis.formulas import split
from gencg.analysis.sparse_bayes import best_subset, explained, relevance_determination
from gencg.analysis.terms import Terms
from gencg.coordinates.pairs import bonds_between
from gencg.ensemble import Ensemble
from gencg.plots.explanation import explanation_figure
from gencg.run.explain import _grouped, angle_of

N = 6000
PLANTED = {
    "sin phi(ALA2)": 0.9,
    "cos phi(ALA2) sin psi(ALA3)": -0.7,
    "d(ACE1-CH3, ALA4-N)": 2.0,
}


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    """Structures of a tetrapeptide in made-up wells, with made-up weights."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    system = gencg.systems.load("alanine-tetrapeptide")
    coordinates = system.coordinates
    k = int(coordinates.soft.sum())
    y = coordinates.centre + 0.05 * coordinates.scale * torch.randn(N, coordinates.dim)
    centres = torch.tensor([-1.3, 0.9, 2.6])[torch.randint(3, (N, k))]
    y[:, coordinates.soft] = torch.remainder(centres + 0.4 * torch.randn(N, k) + np.pi, 2 * np.pi)
    y[:, coordinates.soft] -= np.pi
    x, _ = coordinates.inverse(y)
    return Ensemble(
        x=coordinates.random_copies(x.contiguous()), y=y, z=y[:, :0], energy=torch.zeros(N),
        log_weights=0.8 * torch.randn(N), valid=torch.ones(N, dtype=torch.bool),
        temperature=300.0, molecule=system.molecule,
    )  # fmt: skip


@pytest.fixture(scope="module")
def terms(ensemble: Ensemble) -> Terms:
    return candidate_terms(ensemble)


def column(terms: Terms, name: str) -> np.ndarray:
    return terms.values([[term.name for term in terms.candidates].index(name)])[:, 0]


def planted(terms: Terms, noise: float = 0.3) -> np.ndarray:
    signal = sum(c * column(terms, name) for name, c in PLANTED.items())
    return 0.5 + signal + noise * signal.std() * np.random.default_rng(1).standard_normal(N)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_planted_formula_comes_back(ensemble: Ensemble, weighted: bool) -> None:
    terms = candidate_terms(
        ensemble.x,
        molecule=ensemble.molecule,
        log_weights=ensemble.log_weights if weighted else None,
    )
    assert len(terms) > 300
    found = explain(terms, planted(terms))
    assert found.found
    assert {item.term.name for item in found.terms} == set(PLANTED)
    for item in found.terms:
        # Four standard errors: one failure in 5000 for three terms, two weightings
        assert abs(item.coefficient - PLANTED[item.term.name]) < 4 * item.error
        assert 0.5 < item.bootstrap_error / item.error < 2.0
        assert item.inclusion > 0.95
    assert abs(found.r2 - 1 / 1.09) < 5 * found.r2_error
    assert found.r2_of_all > found.r2 - 0.03
    assert "sin phi(ALA2)" in found.formula
    assert "/nm d(ACE1-CH3, ALA4-N)" in found.formula


def test_without_noise_the_formula_is_exact(terms: Terms) -> None:
    values = planted(terms, noise=0.0)
    found = explain(terms, values)
    assert found.r2 == pytest.approx(1.0, abs=1e-9)
    assert found.constant == pytest.approx(0.5, abs=1e-5)
    np.testing.assert_allclose(found.evaluate(terms), values, atol=1e-5)


def test_few_effective_samples_make_errors_large(ensemble: Ensemble) -> None:
    # Errors go with the effective number of samples, not with their count
    even = candidate_terms(ensemble.x, molecule=ensemble.molecule)
    uneven = candidate_terms(
        ensemble.x, molecule=ensemble.molecule, log_weights=1.2 * torch.randn(N)
    )
    few, many = explain(uneven, planted(uneven)), explain(even, planted(even))
    ratio = {item.term.name: item.error for item in few.terms}["sin phi(ALA2)"]
    ratio /= {item.term.name: item.error for item in many.terms}["sin phi(ALA2)"]
    assert ratio == pytest.approx(np.sqrt(even.n_effective / uneven.n_effective), rel=0.3)


def test_averages_are_over_the_weights(ensemble: Ensemble) -> None:
    # Half of the samples, of nine tenths of the weight, follow +cos, the others -cos
    sign = torch.where(torch.rand(N) < 0.5, 1.0, -1.0)
    terms = candidate_terms(
        ensemble.x, molecule=ensemble.molecule, log_weights=torch.log(5 + 4 * sign)
    )
    assert terms.n_effective == pytest.approx(N * 100 / 164, rel=0.03)
    values = sign.numpy() * column(terms, "cos psi(ALA2)")
    found = explain(terms, values, min_r2=0.5, max_terms=1)
    (item,) = found.terms
    assert item.term.name == "cos psi(ALA2)"
    assert item.coefficient == pytest.approx(0.8, abs=0.05)
    assert found.r2 == pytest.approx(0.64, abs=0.07)


def test_rigid_motion_and_order_of_the_samples_do_not_matter(ensemble: Ensemble) -> None:
    turn, _ = torch.linalg.qr(torch.randn(3, 3))
    turn = turn * torch.linalg.det(turn)
    moved = Ensemble(
        **{**vars(ensemble), "x": ensemble.x @ turn.T + torch.tensor([1.0, -2.0, 3.0])}
    )
    terms, same = candidate_terms(ensemble), candidate_terms(moved)
    for part, (_, values) in zip(terms.blocks(), same.blocks(), strict=True):
        np.testing.assert_allclose(values, part[1], atol=1e-7)

    # In another order the parts hold other samples, and the formula is the same
    order = torch.randperm(N)
    shuffled = candidate_terms(ensemble.select(order))
    values = planted(terms)
    one, other = explain(terms, values), explain(shuffled, values[order.numpy()])
    assert {i.term.name for i in one.terms} == {i.term.name for i in other.terms} == set(PLANTED)
    assert abs(one.r2 - other.r2) < 5 * (one.r2_error + other.r2_error)


def test_equal_atoms_have_no_names(ensemble: Ensemble) -> None:
    # Relabelling the hydrogens of the methyl groups changes no term
    coordinates = gencg.InternalCoordinates(ensemble.molecule)
    torch.manual_seed(5)
    relabelled = coordinates.random_copies(ensemble.x[:500])
    a = candidate_terms(ensemble.x[:500], molecule=ensemble.molecule)
    b = candidate_terms(relabelled, molecule=ensemble.molecule)
    for (_, one), (_, other) in zip(a.blocks(), b.blocks(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_a_shuffled_target_has_no_short_formula(terms: Terms) -> None:
    values = np.random.default_rng(2).permutation(planted(terms))
    found = explain(terms, values)
    assert not found.found
    assert found.formula == "no short formula"
    assert "no short formula" in str(found)
    assert "best attempt" in found._repr_html_()
    assert abs(found.r2) < 0.05
    assert all(0 <= item.inclusion <= item.inclusion_of_any <= 1 for item in found.terms)


def test_what_takes_many_terms_has_no_short_formula(terms: Terms) -> None:
    index = [k for k, term in enumerate(terms.candidates) if term.kind == "product"][::9]
    u = terms.values(index)
    values = (u / u.std(0)) @ np.random.default_rng(3).choice([-1.0, 1.0], len(index))
    found = explain(terms, values)
    assert not found.found
    assert f"{found.r2_of_all:.3f}" in found.verdict


@pytest.mark.parametrize(
    "kind", ["the same torsion by other atoms", "a distance that follows it", "its negative"]
)
def test_two_names_for_one_thing_are_told(ensemble: Ensemble, kind: str) -> None:
    plain = candidate_terms(ensemble)
    cosine = column(plain, "cos psi(ALA2)")
    noise = np.random.default_rng(4).standard_normal((2, N))
    twin = {
        "the same torsion by other atoms": cosine + 0.1 * noise[0] * cosine.std(),
        "a distance that follows it": 0.4 - 0.1 * cosine + 0.01 * noise[0] * cosine.std(),
        "its negative": -cosine,
    }[kind]
    terms = candidate_terms(ensemble, given={"twin": twin})
    values = cosine + 0.5 * column(terms, "sin phi(ALA3)") + 0.1 * noise[1]
    found = explain(terms, values)
    items = {item.term.name: item for item in found.terms}
    assert len({"twin", "cos psi(ALA2)"} & set(items)) == 1
    (name,) = {"twin", "cos psi(ALA2)"} & set(items)
    assert ({"twin", "cos psi(ALA2)"} - {name}) <= {s.name for s in items[name].stand_ins}
    assert items[name].inclusion_of_any > 0.95
    assert "nearly the same" in str(found)


def test_held_out_samples_have_no_part_in_the_formula(terms: Terms) -> None:
    # Whatever the last part says, the formula is the same, and R² alone tells of it
    values = planted(terms)
    spoiled = values.copy()
    last = split(N, seed=0)[2]
    spoiled[last] = np.random.default_rng(5).permutation(spoiled[last])
    one, other = explain(terms, values), explain(terms, spoiled)
    assert one.attempt == other.attempt
    assert other.r2 < 0.0 < 0.85 < one.r2


def test_an_angle_is_explained_by_cos_and_sin(ensemble: Ensemble, terms: Terms) -> None:
    quads = dict(ensemble.molecule.phi_psi())
    angle = gencg.analysis.torsion_angles(ensemble.x, [quads["psi(ALA3)"]])[:, 0]
    for explanation, function in zip(
        explain_angle(terms, angle, name="psi(ALA3)"), ("cos", "sin"), strict=True
    ):
        assert explanation.formula == f"1.00 {function} psi(ALA3)"
        assert explanation.name == f"{function} psi(ALA3)"
        assert explanation.is_itself
        # Where few samples carry it, the doubt has to be told
        assert not replace(explanation, n_carrying=5.0).is_itself
    found = explain(terms, 2 * np.cos(angle), name="cos psi(ALA3)")
    assert not found.is_itself


@pytest.mark.parametrize("name", ["psi(A)", "1 psi(A) -1 psi(B)", "1 x 2 y"])
def test_an_angle_is_named_by_its_cos(name: str) -> None:
    assert angle_of(f"cos {_grouped(name)}") == name


def test_a_rare_state_of_few_samples_is_doubted(terms: Terms) -> None:
    values = np.zeros(N)
    values[:12] = 1.0
    found = explain(terms, values)
    assert not found.found
    assert "do not rely on it" in found.verdict


def test_numbers_and_picture_tell_the_same(ensemble: Ensemble, terms: Terms) -> None:
    values = planted(terms)
    found = explain(terms, values, name="mine")
    numbers = found.numbers()
    assert numbers["formula"] == found.formula
    assert [row["name"] for row in numbers["terms"]] == [i.term.name for i in found.terms]
    assert set(numbers["terms"][0]) >= {"coefficient", "error", "inclusion", "stand_ins", "atoms"}
    figure = explanation_figure(found, ensemble.molecule, terms, values)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"φ(2)", "ψ(3)"} <= set(texts)
    assert "mine = " in figure.get_suptitle()


def test_wells_lie_between_the_minima_of_the_density() -> None:
    rng = np.random.default_rng(0)
    angle = np.concatenate([rng.normal(-1.2, 0.2, 4000), rng.normal(2.9, 0.25, 6000)])
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    arcs = wells(angle, np.full(len(angle), 1e-4))
    assert len(arcs) == 2
    for low, high in arcs:
        assert -np.pi <= (low + high) / 2 < np.pi
    (one,) = [(low, high) for low, high in arcs if low < -1.2 < high]
    assert -2.5 < one[0] < -1.6
    assert -0.6 < one[1] < 2.3
    assert sum(high - low for low, high in arcs) == pytest.approx(2 * np.pi)
    assert wells(rng.normal(0.3, 0.2, 4000), np.full(4000, 1 / 4000)) == []


def test_bonds_between_atoms(ensemble: Ensemble) -> None:
    molecule = ensemble.molecule
    steps = bonds_between(molecule)
    assert (steps == steps.T).all()
    assert all(steps[i, j] == 1 for i, j in molecule.bonds)
    assert (steps == 1).sum() == 2 * len(molecule.bonds)


def correlated(n: int = 3000, p: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised terms, a target of four of them, and the coefficients."""
    rng = np.random.default_rng(7)
    u = rng.standard_normal((n, p)) @ (np.eye(p) + 0.3 * rng.standard_normal((p, p)))
    u = (u - u.mean(0)) / u.std(0)
    b = np.zeros(p)
    b[[3, 8, 15, 20]] = 1.0, -0.6, 0.4, 0.2
    t = u @ b + 0.7 * rng.standard_normal(n)
    scale = t.std()
    return u, (t - t.mean()) / scale, b / scale


def test_relevance_determination_agrees_with_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    u, t, b = correlated()
    n = len(u)
    ours = relevance_determination(u.T @ u / n, u.T @ t / n, n)
    theirs = linear_model.ARDRegression(fit_intercept=False, threshold_lambda=1e6).fit(u, t)
    mean, errors = np.zeros(len(b)), np.full(len(b), np.inf)
    mean[list(ours.index)], errors[list(ours.index)] = ours.mean, ours.errors
    np.testing.assert_allclose(mean, theirs.coef_, atol=0.004)
    assert ours.noise == pytest.approx(1 / theirs.alpha_, rel=0.01)
    assert {3, 8, 15, 20} <= set(ours.index)
    assert (np.abs(mean - b)[b != 0] < 4 * errors[b != 0]).all()


def test_sequential_replacement_finds_the_exhaustive_best() -> None:
    u, t, _ = correlated()
    gram, cross = u[:, :12].T @ u[:, :12] / len(u), u[:, :12].T @ t / len(u)
    for size in (1, 2, 3, 4):
        best = max(combinations(range(12), size), key=lambda s: explained(gram, cross, s))
        assert best_subset(gram, cross, size) == best


@pytest.mark.parametrize(
    "change, options, message",
    [
        (lambda v: v * 0 + 3.0, {}, "`values` must vary, got 3 for every sample"),
        (lambda v: np.where(np.arange(N) == 7, np.nan, v), {}, "must be finite .* got nan for"),
        (lambda v: v[:-1], {}, r"`values` must have shape \(6000,\), .* got \(5999,\)"),
        (lambda v: np.stack([v, v], 1), {}, r"got \(6000, 2\); explain several .* one by one"),
        (lambda v: v, {"max_terms": 0}, "`max_terms` must be at least 1, got 0"),
        (lambda v: v, {"tolerance": 1.0}, r"`tolerance` must lie in \[0, 1\), got 1"),
        (lambda v: v, {"min_r2": -0.1}, r"`min_r2` must lie in \[0, 1\), got -0.1"),
        (lambda v: v, {"n_bootstraps": 1}, "`n_bootstraps` must be at least 2, got 1"),
    ],
)
def test_bad_values_are_refused(terms: Terms, change, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(terms, change(planted(terms)), **options)


def test_bad_samples_are_refused(ensemble: Ensemble) -> None:
    few = ensemble.select(torch.arange(150))
    with pytest.raises(ValueError, match=r"at least 200 effective samples, got .* of 150; draw"):
        explain(few, np.arange(150.0))
    with pytest.raises(ValueError, match=r"`samples` must have shape \(n, 42, 3\)"):
        candidate_terms(ensemble.x[:, :5], molecule=ensemble.molecule)
    with pytest.raises(ValueError, match=r"no terms to write .* give a molecule"):
        candidate_terms(torch.zeros(300, 2))
    with pytest.raises(ValueError, match=r"`kinds` must be among torsion, .* got 'angle'"):
        candidate_terms(ensemble, kinds=["angle"])
    with pytest.raises(ValueError, match="`given` term 'mine' must hold 6000 finite numbers"):
        candidate_terms(ensemble, given={"mine": np.full(N, np.nan)})
    with pytest.raises(ValueError, match="finite wherever they have weight"):
        candidate_terms(torch.full((300, 42, 3), torch.nan), molecule=ensemble.molecule)


def test_samples_without_weight_are_not_looked_at(ensemble: Ensemble) -> None:
    x = ensemble.x.clone()
    x[:40] = torch.nan
    log_weights = ensemble.log_weights.clone()
    log_weights[:40] = -torch.inf
    terms = candidate_terms(x, molecule=ensemble.molecule, log_weights=log_weights)
    values = np.full(N, np.nan)
    values[terms.rows] = column(terms, "sin phi(ALA2)")
    assert explain(terms, values).formula == "1.00 sin phi(ALA2)"


def test_a_toy_is_explained_in_terms_of_its_own() -> None:
    x = torch.randn(2000, 2)
    terms = candidate_terms(x, given={"x1": x[:, 0], "x2": x[:, 1]})
    assert explain(terms, 2 * x[:, 0] - x[:, 1]).formula == "2.00 x1 - 1.00 x2"
