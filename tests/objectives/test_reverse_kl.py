"""Reverse KL: formula, bound, estimators. Cannot detect a mode the generator never visits."""

import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian
from gencg.energies.base import Energy
from gencg.energies.toy import DoubleWell
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import GaussianDecoder, SplineDecoder
from gencg.models.encoders import GaussianEncoder
from gencg.models.priors import GaussianPrior
from gencg.objectives.path import frozen_twin
from gencg.objectives.reverse_kl import LEAST_ESS, ReverseKL, weights_of_order
from gencg.target import BoltzmannTarget
from gencg.units import temperature_of

BETA = 1.0


class Harmonic(Energy):
    r"""U = |x|² / 2."""

    def __init__(self, dim: int) -> None:
        super().__init__((dim,))

    def energy(self, x):
        return 0.5 * x.square().sum(-1)


def _target(energy: Energy) -> BoltzmannTarget:
    return BoltzmannTarget(energy, Cartesian(*energy.event_shape), temperature_of(BETA))


def _spline() -> CoarseGrainedModel:
    small = {"n_soft_layers": 2, "n_bins": 4, "soft_hidden": (8,)}
    return _shaken(CoarseGrainedModel(SplineDecoder(Cartesian(2), **small)))


def _gaussian() -> CoarseGrainedModel:
    c = Cartesian(2)
    return _shaken(
        CoarseGrainedModel(
            GaussianDecoder(c, n_cvs=1, hidden=(8,)),
            prior=GaussianPrior(1),
            encoder=GaussianEncoder(c, n_cvs=1, hidden=(8,)),
            n_cvs=1,
        )
    )


def _shaken(model: CoarseGrainedModel) -> CoarseGrainedModel:
    model.double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


MODELS = {"spline without CVs": _spline, "Gaussian of 2020": _gaussian}


@pytest.mark.parametrize("path_gradient", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_its_formula(name, path_gradient) -> None:
    model, target = MODELS[name](), _target(DoubleWell())
    objective = ReverseKL(target, n_samples=64, path_gradient=path_gradient, drop_worst=0.0)
    torch.manual_seed(3)
    found = objective.evaluate(model, BETA)

    torch.manual_seed(3)
    z, y, log_q = model.sample(64)
    losses = log_q - model.log_encoder(z, y) - target.log_density(y, beta=BETA)
    assert_close(found.loss, losses.mean())
    assert_close(found.log_weights, -losses.detach())
    assert_close(found.y, y.detach())


@pytest.mark.parametrize("name", MODELS)
def test_the_plain_estimator_is_the_elbo_of_pyro(name) -> None:
    model = MODELS[name]()
    objective = ReverseKL(_target(DoubleWell()), n_samples=32, path_gradient=False, drop_worst=0.0)
    torch.manual_seed(5)
    ours = objective.loss(model, BETA)
    torch.manual_seed(5)
    elbo = Trace_ELBO(max_plate_nesting=1)
    theirs = elbo.differentiable_loss(objective.model, objective.guide, model, BETA) / 32
    assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, list(model.parameters()), allow_unused=True),
        torch.autograd.grad(theirs, list(model.parameters()), allow_unused=True),
        strict=True,
    ):
        assert_close(a, b)


@pytest.mark.parametrize("name", MODELS)
def test_both_estimators_share_one_mean(name) -> None:
    # Standard errors over 40 batches of 500; 4.5 of them fail 1 in 1e5 per entry
    model, means, errors = MODELS[name](), [], []
    for path_gradient in (False, True):
        objective = ReverseKL(
            _target(Harmonic(2)),
            n_samples=500,
            path_gradient=path_gradient,
            drop_worst=0.0,
            clip_above=math.inf,
        )
        draws = []
        for _ in range(40):
            model.zero_grad()
            objective.loss(model, BETA).backward()
            draws.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        stacked = torch.stack(draws)
        means.append(stacked.mean(0))
        errors.append(stacked.std(0) / math.sqrt(40))
    error = (errors[0] ** 2 + errors[1] ** 2).sqrt() + 1e-12
    assert ((means[0] - means[1]).abs() / error).max() < 4.5


def test_no_gradient_is_longer_than_so_many_medians() -> None:
    objective = ReverseKL(_target(DoubleWell()), n_samples=8, clip_above=3.0)
    scale = objective.target.coordinates.scale
    gradient = torch.randn(101, 2) / scale
    gradient[:3] *= torch.tensor([1e2, 1e4, 1e30])[:, None]
    gradient[50:60] = 0.0  # dropped
    length = (gradient * scale).norm(dim=-1)
    longest = 3.0 * length[length > 0].median()
    clipped = objective._clipped(gradient)
    assert_close((clipped * scale).norm(dim=-1), length.clamp_max(longest))
    # Directions stay, and so does every row that is short enough
    assert_close(
        clipped[:3] / clipped[:3].norm(dim=-1, keepdim=True),
        gradient[:3] / gradient[:3].norm(dim=-1, keepdim=True),
    )
    short = length <= longest
    assert short.sum() > 80
    assert torch.equal(clipped[short], gradient[short])
    assert not objective._clipped(torch.zeros(5, 2)).any()


def test_an_exact_generator_has_no_gradient_clipped_or_not() -> None:
    target = _target(Harmonic(2))
    decoder = SplineDecoder(Cartesian(2), n_soft_layers=2, n_bins=4, soft_hidden=(8,))
    model = CoarseGrainedModel(decoder).double()
    # The untrained decoder is the standard normal, which is this Boltzmann factor
    beta = 1.0
    for clip in (0.1, 5.0, math.inf):
        model.zero_grad()
        objective = ReverseKL(target, n_samples=64, drop_worst=0.0, clip_above=clip)
        objective.loss(model, beta).backward()
        largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
        assert largest < 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_bounded_by_the_partition_function(name) -> None:
    energy = DoubleWell()
    objective = ReverseKL(_target(energy), n_samples=20_000, drop_worst=0.0, compress_above=1e9)
    with torch.no_grad():
        loss = objective.loss(MODELS[name](), BETA)
    assert loss > -energy.log_partition(BETA)


def test_path_gradients_vanish_where_the_model_is_the_target() -> None:
    # q = N(0, 1) in both dimensions and U = |x|²/2 at beta 1: every sample has gradient 0
    decoder = SplineDecoder(Cartesian(2), n_soft_layers=2, n_bins=4, soft_hidden=(8,))
    model = CoarseGrainedModel(decoder).double()
    norms = {}
    for path_gradient in (False, True):
        objective = ReverseKL(
            _target(Harmonic(2)), n_samples=100, path_gradient=path_gradient, drop_worst=0.0
        )
        model.zero_grad()
        objective.loss(model, BETA).backward()
        norms[path_gradient] = max(float(p.grad.abs().max()) for p in model.parameters())
    assert norms[True] < 1e-12
    assert norms[False] > 1e-3


def test_a_linear_gaussian_model_has_the_gradient_worked_out_by_hand() -> None:
    # q = N(m, e^{2s}), U = x²/2: L = (m² + e^{2s}) / 2 - s - 1/2 log(2 pi e), so
    # dL/dm = m, dL/ds = e^{2s} - 1
    model = CoarseGrainedModel(GaussianDecoder(Cartesian(1), n_cvs=0, hidden=())).double()
    last = model.decoder.net.layers[-1]
    with torch.no_grad():
        last.bias.copy_(torch.tensor([0.7, -0.4]))
    objective = ReverseKL(_target(Harmonic(1)), n_samples=400_000, drop_worst=0.0)
    loss = objective.loss(model, BETA)
    loss.backward()
    variance = math.exp(-0.8)
    expected = 0.5 * (0.49 + variance) + 0.4 - 0.5 * math.log(2 * math.pi * math.e)
    assert_close(loss.detach(), torch.tensor(expected), atol=5e-3, rtol=0)  # 5 standard errors
    assert_close(last.bias.grad, torch.tensor([0.7, variance - 1]), atol=6e-3, rtol=0)


def test_worst_and_broken_samples_are_counted_and_left_out() -> None:
    class Broken(Harmonic):
        def energy(self, x):
            u = super().energy(x)
            return torch.where(x[:, 0] > 1.0, torch.full_like(u, math.nan), u)

    model = _spline()
    objective = ReverseKL(_target(Broken(2)), n_samples=200, drop_worst=0.5)
    found = objective.evaluate(model, BETA)
    n_broken = int((found.y[:, 0] > 1.0).sum())
    assert found.n_invalid == n_broken > 0
    assert found.n_dropped == 100 - n_broken
    assert torch.isfinite(found.loss)
    found.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_high_energies_are_compressed_and_counted_but_weights_are_not() -> None:
    model, target = _spline(), _target(Harmonic(2))
    objective = ReverseKL(target, n_samples=500, compress_above=0.5, drop_worst=0.0)
    found = objective.evaluate(model, BETA)
    assert found.n_compressed == int((found.energy > 0.5).sum()) > 0
    y = found.y
    expected = target.log_density(y, beta=BETA) - model.log_prob(y.new_zeros(500, 0), y)
    assert_close(found.log_weights, expected.detach())


def test_the_twin_follows_an_optimiser_and_a_loaded_state() -> None:
    model = _spline()
    twin = frozen_twin(model)
    optimiser = torch.optim.Adam(model.parameters())
    model.sample(4)[2].sum().backward()
    optimiser.step()
    model.load_state_dict(
        {k: v + 1 for k, v in model.state_dict().items() if v.is_floating_point()}, strict=False
    )
    assert frozen_twin(model, twin) is twin
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        assert not q.requires_grad
    assert frozen_twin(_spline(), twin) is not twin


def test_nothing_enters_the_store_of_pyro() -> None:
    ReverseKL(_target(DoubleWell()), n_samples=8).loss(_gaussian(), BETA)
    assert not list(pyro.get_param_store().keys())


def test_the_order_falls_where_few_samples_have_all_the_weight() -> None:
    """The weights are a power of the true ones: the order's, or one that leaves the least ESS."""
    torch.manual_seed(0)
    even, uneven = 0.5 * torch.randn(500), 300.0 * torch.randn(500)
    for log_w, expected in ((even, 0.5), (uneven, None)):
        log_w[7] = -torch.inf
        share = weights_of_order(0.5, log_w)
        there = torch.isfinite(log_w)
        assert share[7] == 0
        assert_close(share.sum(), torch.tensor(1.0, dtype=share.dtype))
        log_share = share[there].log()
        moved = log_w[there] - log_w[there].mean()
        power = (log_share @ moved) / (moved @ moved)
        assert_close(log_share - log_share.mean(), power * moved)
        if expected is None:
            assert 0 < power < 0.5
            ess = 1 / share.square().sum() / there.sum()
            assert_close(ess, torch.tensor(LEAST_ESS, dtype=ess.dtype), atol=1e-4, rtol=0)
        else:
            assert_close(power, torch.tensor(expected, dtype=power.dtype))


def test_each_block_has_the_gradient_of_its_order() -> None:
    coordinates = Cartesian(2)
    coordinates.soft = torch.tensor([True, False])
    small = {"n_soft_layers": 2, "n_bins": 4, "soft_hidden": (8,)}
    decoder = SplineDecoder(coordinates, **small, n_stiff_layers=2, stiff_hidden=(8,))
    model = _shaken(CoarseGrainedModel(decoder))

    def gradients(**options: float) -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(3)
        objective = ReverseKL(_target(DoubleWell()), n_samples=200, **options)
        objective.loss(model, BETA).backward()
        named = model.decoder.flow.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.grad is not None}

    apart = gradients(order=0.5, stiff_order=0.0)
    half, zero = gradients(order=0.5), gradients(order=0.0)
    assert {name.partition(".")[0] for name in apart} == {"soft", "stiff"}
    assert all(
        any(g.norm() > 0 for n, g in apart.items() if n.startswith(k)) for k in ("soft", "stiff")
    )
    for name, gradient in apart.items():
        own, other = (half, zero) if name.startswith("soft") else (zero, half)
        assert_close(gradient, own[name])
        assert own[name].norm() == 0 or not torch.allclose(gradient, other[name], rtol=1e-3)
    for name, gradient in gradients(order=0.5, stiff_order=0.5).items():
        assert torch.equal(gradient, half[name])


def test_no_order_of_the_stiff_block_without_one() -> None:
    coordinates = Cartesian(2)
    model = CoarseGrainedModel(GaussianDecoder(coordinates, n_cvs=0, hidden=(8,))).double()
    objective = ReverseKL(_target(DoubleWell()), n_samples=8, order=0.5, stiff_order=0.0)
    with pytest.raises(ValueError, match="`stiff_order` needs a decoder of two blocks, got Gaussi"):
        objective.evaluate(model, BETA)


def test_no_order_for_a_model_with_collective_variables() -> None:
    with pytest.raises(ValueError, match="`order` must be 0 for a model with collective variables"):
        ReverseKL(_target(DoubleWell()), n_samples=8, order=0.5).evaluate(_gaussian(), BETA)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_samples": 1}, "`n_samples` must be at least 2, got 1"),
        ({"order": -0.5}, r"`order` must lie in \[0, 2\], got -0.5"),
        ({"order": 0.5, "stiff_order": 0.6}, r"`stiff_order` must lie in \[0, 0.5\], .*got 0.6"),
        ({"stiff_order": -0.1}, r"`stiff_order` must lie in \[0, 0\], up to `order`, got -0.1"),
        ({"order": 0.5, "path_gradient": False}, "`order` must be 0 without path gradients"),
        ({"compress_above": 0.0}, "`compress_above` must be positive, got 0.0"),
        ({"drop_worst": 1.0}, r"`drop_worst` must lie in \[0, 1\), got 1.0"),
    ],
)
def test_bad_settings_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ReverseKL(_target(DoubleWell()), **options)
