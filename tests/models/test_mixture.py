"""Mixtures of generators have the density of all members, and know what any of them knows.

Cannot detect: members that err alike, which a mixture does not mend.
"""

import itertools
import math

import pytest
import torch

import gencg
from gencg.fit import as_result
from gencg.models.build import build_model, model_of
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import SplineDecoder
from gencg.models.mixture import MixtureDecoder, leading, members_of
from gencg.systems import alanine_dipeptide, double_well

SYSTEM = double_well()
TARGET = gencg.BoltzmannTarget(SYSTEM.energy, SYSTEM.coordinates, SYSTEM.temperature)
# Beyond these nothing is left of p, and of the generators below
GRID = torch.cartesian_prod(
    torch.linspace(-7, 7, 561, dtype=torch.float64), torch.linspace(-9, 9, 361, dtype=torch.float64)
)
AREA = 14 / 560 * 18 / 360


def result_at(place: float, width: float, *, seed: int = 0):
    """A generator of random parameters around one place of the first coordinate."""
    torch.manual_seed(seed)
    model = build_model(SYSTEM.coordinates).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model.decoder.flow.soft.centre.copy_(torch.tensor([place, 0.0]))
    model.decoder.flow.soft.scale.copy_(torch.tensor([width, 1.2]))
    return as_result(SYSTEM, model, target=TARGET)


def density(result) -> torch.Tensor:
    with torch.no_grad():
        model = result.model
        return model.log_prob(model.rows(len(GRID)), GRID).exp()


def test_the_density_is_that_of_all_members_and_normalised() -> None:
    a, b = result_at(-2.5, 0.7), result_at(1.0, 1.3, seed=1)
    mixed = gencg.mix([a, b], shares=[1, 3])
    expected = 0.25 * density(a) + 0.75 * density(b)
    torch.testing.assert_close(density(mixed), expected, rtol=1e-9, atol=1e-300)
    assert float(expected.sum()) * AREA == pytest.approx(1.0, abs=2e-3)


def test_samples_are_drawn_with_the_density_that_is_told() -> None:
    a, b = result_at(-2.5, 0.7), result_at(1.0, 1.3, seed=1)
    mixed = gencg.mix([a, b], shares=[1, 3])
    torch.manual_seed(3)
    with torch.no_grad():
        z, y, log_q = mixed.model.sample(40_000)
        # There and back: a copy takes the inverses of all members
        torch.testing.assert_close(log_q, mixed.model.log_prob(z, y.clone()))
    q = density(mixed)
    # Edges between points of the grid
    edges = [-8.0, -1.9875, 0.5125, 2.0125, 8.0]
    for low, high in itertools.pairwise(edges):
        inside = (GRID[:, 0] > low) & (GRID[:, 0] <= high)
        share = float((q * inside).sum()) * AREA
        drawn = float(((y[:, 0] > low) & (y[:, 0] <= high)).double().mean())
        assert drawn == pytest.approx(share, abs=4 * math.sqrt(share / 40_000) + 1e-3)


def test_its_forward_ess_is_no_less_than_the_harmonic_mean() -> None:
    p = torch.exp(TARGET.log_density(GRID))
    p = p / p.sum() / AREA

    def forward_ess(result) -> float:
        return 1 / float((p.square() / density(result)).sum() * AREA)

    a, b = result_at(-1.6, 1.6), result_at(-2.7, 1.9, seed=1)
    alone = [forward_ess(a), forward_ess(b)]
    assert min(alone) > 0.1
    harmonic = 1 / (0.3 / alone[0] + 0.7 / alone[1])
    assert 1.5 * max(alone) > forward_ess(gencg.mix([a, b], shares=[0.3, 0.7])) > harmonic
    # And of a generator with itself it is its own
    assert forward_ess(gencg.mix([a, a])) == pytest.approx(alone[0])


def test_what_one_member_has_lost_another_gives_back() -> None:
    left, right = result_at(-2.55, 0.35), result_at(2.35, 0.35, seed=1)
    masks = {"right": lambda e: e.y[:, 0] > 0}
    exact = SYSTEM.energy.populations(TARGET.beta)["right"]
    alone = gencg.draw(left.model, TARGET, 20_000, seed=4)
    assert alone.populations({"right": masks["right"](alone)})["right"][0] == 0
    both = gencg.draw(gencg.mix([left, right]).model, TARGET, 40_000, seed=4)
    found, error = both.populations({"right": masks["right"](both)})["right"]
    assert error < 0.1 * exact
    assert abs(found - exact) < 4 * error
    assert abs(both.log_z - SYSTEM.energy.log_partition(TARGET.beta)) < 4 * both.log_z_error


def test_a_mixture_of_mixtures_holds_all_members() -> None:
    a, b, c = (result_at(place, 1.0, seed=k) for k, place in enumerate((-2.0, 0.0, 2.0)))
    nested = gencg.mix([gencg.mix([a, b]), c])
    torch.testing.assert_close(density(nested), density(gencg.mix([a, b, c])))
    assert len(members_of(nested.model)) == 3
    # Copies: what is done to the mixture is not done to them
    assert members_of(nested.model)[2] is not c.model.decoder


def test_a_mixture_is_built_again_from_its_parameters() -> None:
    system = alanine_dipeptide()
    target = gencg.BoltzmannTarget(system.energy, system.coordinates, 300.0)
    models = [build_model(system.coordinates, autoregressive=kind) for kind in (True, False)]
    mixed = gencg.mix([as_result(system, model, target=target) for model in models]).model
    again = model_of(system.coordinates, mixed.state_dict()).to(mixed.rows(0))
    again.load_state_dict(mixed.state_dict())
    torch.manual_seed(0)
    with torch.no_grad():
        z, y, _ = mixed.sample(50)
        torch.testing.assert_close(again.log_prob(z, y), mixed.log_prob(z, y))


def test_the_first_member_leads() -> None:
    a, b = result_at(-2.0, 1.0), result_at(2.0, 1.0, seed=1)
    mixed = gencg.mix([b, a])
    torch.testing.assert_close(density(mixed.leading), density(b))
    assert a.leading is a
    assert leading(a.model) is a.model


def test_each_row_is_drawn_in_its_own_context() -> None:
    torch.manual_seed(2)
    members = [SplineDecoder(SYSTEM.coordinates, n_cvs=1).double() for _ in range(3)]
    for parameter in torch.nn.ModuleList(members).parameters():
        torch.nn.init.normal_(parameter, std=0.12)
    context = torch.linspace(-3, 3, 500, dtype=torch.float64)[:, None]
    with torch.no_grad():
        q = MixtureDecoder(members, shares=[1, 2, 5])(context)
        y = q.rsample()
        there, back = q.log_prob(y), q.log_prob(y.clone())
        torch.testing.assert_close(there, back)
        # In another order it would be told
        turned = MixtureDecoder(members, shares=[1, 2, 5])
        torch.testing.assert_close(turned(context).log_prob(y), back)
        assert (turned(context.flip(0)).log_prob(y) - back).abs().median() > 0.1


def test_densities_there_and_back_have_the_same_gradients() -> None:
    model = gencg.mix([result_at(-2.0, 1.0), result_at(2.0, 1.0, seed=1)], shares=[1, 2]).model
    torch.manual_seed(5)
    z, y, kept = model.sample(300)
    found = torch.autograd.grad(kept.sum(), list(model.parameters()), retain_graph=True)
    # Through the sample as well
    inverse = model.log_prob(z, y.clone())
    again = torch.autograd.grad(inverse.sum(), list(model.parameters()))
    for a, b in zip(found, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_a_mixture_can_be_trained() -> None:
    torch.set_default_dtype(torch.float32)
    mixed = gencg.mix([result_at(-1.5, 1.5), result_at(1.0, 1.5, seed=1)], shares=[3, 1])
    before = gencg.draw(mixed.model.float(), TARGET, 4000, seed=1).ess
    trained = gencg.fit(
        SYSTEM, model=mixed.model, energy_calls=2e4, batch_size=200,
        tempering=gencg.NoTempering(), seed=0,
    )  # fmt: skip
    after = gencg.draw(trained.model, TARGET, 4000, seed=1).ess
    assert after > before + 0.2


def test_gradients_reach_every_member() -> None:
    a, b = result_at(-2.0, 1.0), result_at(2.0, 1.0, seed=1)
    model = gencg.mix([a, b]).model
    torch.manual_seed(5)
    _, y, _ = model.sample(400)
    y[:, 0].sum().backward()
    found = [m.flow.soft.chain.layers[0].net.layers[-1].bias.grad for m in members_of(model)]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in found)


def test_what_cannot_be_mixed_is_told() -> None:
    a = result_at(-2.0, 1.0)
    with pytest.raises(ValueError, match="`results` must be two or more, got 1"):
        gencg.mix([a])
    for shares in ([1.0], [1.0, 0.0], [1.0, math.inf], [1.0, math.nan]):
        with pytest.raises(ValueError, match="`shares` must be 2 positive finite numbers, one for"):
            gencg.mix([a, a], shares=shares)
        with pytest.raises(ValueError, match="`shares` must be 2 positive finite numbers, one for"):
            MixtureDecoder([a.model.decoder] * 2, shares=shares)
    with pytest.raises(ValueError, match="`members` must be two or more, got 1"):
        MixtureDecoder([a.model.decoder])
    other = SplineDecoder(alanine_dipeptide().coordinates)
    with pytest.raises(ValueError, match="`members` must have the same numbers of angles"):
        MixtureDecoder([a.model.decoder, other])
    hot = gencg.BoltzmannTarget(SYSTEM.energy, SYSTEM.coordinates, 2 * SYSTEM.temperature)
    hotter = as_result(SYSTEM, a.model, target=hot)
    with pytest.raises(ValueError, match="`results` must be of one temperature, number 1 is of"):
        gencg.mix([a, hotter])
    peptide = alanine_dipeptide()
    target = gencg.BoltzmannTarget(peptide.energy, peptide.coordinates, SYSTEM.temperature)
    of_peptide = as_result(peptide, CoarseGrainedModel(other), target=target)
    with pytest.raises(ValueError, match="`results` must be of one molecule, number 1 is of"):
        gencg.mix([a, of_peptide])
    with_cv = as_result(SYSTEM, build_model(SYSTEM.coordinates, n_cvs=1), target=TARGET)
    with pytest.raises(ValueError, match="must have two blocks and no collective variables, numb"):
        gencg.mix([a, with_cv])
    with pytest.raises(ValueError, match="FlowMixture draws one sample per row"):
        gencg.mix([a, a]).model.decoder(torch.zeros(3, 0).double()).rsample((2,))
