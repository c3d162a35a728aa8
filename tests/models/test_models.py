"""Model parts: exact densities, finite gradients. Cannot detect a model too small for its task."""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian, CoordinateMap
from gencg.distributions.solvers import AdaptiveSteps
from gencg.models.build import build_model
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import FlowMatchingDecoder
from gencg.models.decoders import GaussianDecoder, SplineDecoder
from gencg.models.encoders import GaussianEncoder
from gencg.models.priors import GaussianPrior

SMALL = {"n_soft_layers": 2, "n_bins": 4, "soft_hidden": (8,), "n_stiff_layers": 2}


class _Mixed(CoordinateMap):
    """Seven coordinates, two of them soft angles, in mixed order; x is y."""

    def __init__(self) -> None:
        self.event_shape, self.dim = (7,), 7
        self.names = tuple(f"y{i}" for i in range(7))
        self.soft = torch.tensor([False, True, False, False, True, False, False])
        self.periodic = self.soft.clone()
        self.centre = torch.linspace(0.1, 2, 7)
        self.scale = torch.full((7,), 0.05)
        self.fold = torch.ones(7, dtype=torch.long)
        self.fold[4] = 3

    def forward(self, x):
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, y):
        return y, y.new_zeros(y.shape[:-1])


COORDINATES = {
    "mixed": _Mixed,
    "plane": lambda: Cartesian(2),
    "circle": lambda: Cartesian(1, periodic=True),
}
EXACT = AdaptiveSteps(rtol=1e-10, atol=1e-10)
DECODERS = {
    "flow matching": lambda c, n: FlowMatchingDecoder(
        c,
        n_cvs=n,
        n_soft_units=9,
        n_stiff_units=7,
        hidden=(8,),
        soft_solver=EXACT,
        stiff_solver=EXACT,
    ),
    "spline": lambda c, n: SplineDecoder(c, n_cvs=n, stiff_hidden=(8,), **SMALL),
    "Gaussian": lambda c, n: GaussianDecoder(c, n_cvs=n, hidden=(8, 8)),
}


def _shake(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("n_cvs", [0, 2])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder(name, coordinates, n_cvs) -> None:
    decoder = DECODERS[name](COORDINATES[coordinates](), n_cvs).double()
    _shake(decoder)
    z = torch.randn(20, n_cvs)

    # The density of a drawn sample is that of the inverse pass
    distribution = decoder(z)
    y = distribution.rsample()
    assert y.shape[0] == 20
    kept = distribution.log_prob(y)
    assert_close(decoder(z).log_prob(y.detach()), kept)

    # Every parameter gets a finite gradient
    (kept.sum() + y.square().sum()).backward()
    for key, parameter in decoder.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key

    # The dtype is the one of the model
    single = decoder.float()(z.float())
    assert single.rsample().dtype == torch.float32


def test_the_two_block_density_integrates_to_one() -> None:
    decoder = SplineDecoder(Cartesian(2), **SMALL, stiff_hidden=(8,)).double()
    _shake(decoder)
    grid = (torch.arange(500) + 0.5) / 500 * 16 - 8
    y = torch.cartesian_prod(grid, grid)
    mass = decoder(torch.zeros(len(y), 0)).log_prob(y).exp().sum() * (16 / 500) ** 2
    assert_close(mass, torch.tensor(1.0), atol=2e-3, rtol=0)


def test_an_untrained_molecule_decoder_sits_at_the_reference_structure() -> None:
    coordinates = _Mixed()
    model = CoarseGrainedModel(SplineDecoder(coordinates, **SMALL)).double()
    _, y, _ = model.sample(20_000)
    stiff = ~coordinates.soft
    error = (y[:, stiff].mean(0) - coordinates.centre[stiff]) / (0.05 / math.sqrt(20_000))
    assert error.abs().max() < 5  # 1 in 1e6 under the null
    assert (y[:, coordinates.soft].abs() <= math.pi).all()


def test_sample_gives_the_joint_density() -> None:
    coordinates = _Mixed()
    model = build_model(coordinates, n_cvs=2).double()
    _shake(model)
    z, y, log_q = model.sample(15)
    assert_close(model.log_prob(z, y), log_q)
    expected = model.prior(z).log_prob(z) + model.decoder(z).log_prob(y)
    assert_close(log_q, expected)
    assert_close(model.log_encoder(z, y), model.encoder(y).log_prob(z))


def test_without_cvs_prior_and_encoder_weigh_nothing() -> None:
    model = build_model(_Mixed()).double()
    z, y, log_q = model.sample(5)
    assert z.shape == (5, 0)
    assert_close(model.log_encoder(z, y), torch.zeros(5))
    assert_close(log_q, model.decoder(z).log_prob(y))


def test_the_encoder_knows_no_seam() -> None:
    coordinates = _Mixed()
    encoder = GaussianEncoder(coordinates, n_cvs=1, hidden=(8,)).double()
    _shake(encoder)
    y = torch.randn(3, 7)
    turned = y + 2 * math.pi * coordinates.periodic
    assert_close(encoder(y).mean, encoder(turned).mean)


def test_bad_parts_are_refused() -> None:
    decoder = GaussianDecoder(_Mixed(), n_cvs=1)
    with pytest.raises(ValueError, match="`prior` and `encoder` are needed for n_cvs=1"):
        CoarseGrainedModel(decoder, n_cvs=1)
    with pytest.raises(ValueError, match="`n_cvs` must be at least 1"):
        CoarseGrainedModel(
            decoder, prior=GaussianPrior(1), encoder=GaussianEncoder(_Mixed(), n_cvs=1)
        )
    with pytest.raises(ValueError, match="`n_cvs` must not be negative, got -1"):
        build_model(_Mixed(), n_cvs=-1)
    mixture = _Mixed()
    mixture.periodic[1] = False
    with pytest.raises(ValueError, match="all periodic or all on the line"):
        SplineDecoder(mixture)
