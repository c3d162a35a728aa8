"""The joint model of slow CVs: the map, the prior, the decoder and the covering mixture.

Cannot detect collective variables that are not slow: that is for the Dirichlet form.
"""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from gencg.coordinates.base import Cartesian, CoordinateMap
from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.geometry import wrap
from gencg.models.build import build_model
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import FlowPrior, MapEncoder, collective_model
from gencg.models.continuous import FlowMatchingDecoder
from gencg.models.cv_map import CollectiveMap
from gencg.models.decoders import SplineDecoder
from gencg.models.mixture import CoveringModel

SMALL = {
    "n_soft_layers": 2,
    "n_bins": 4,
    "soft_hidden": (8,),
    "n_stiff_layers": 2,
    "stiff_hidden": (8,),
}
SHEAR = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [2.0, 0.0, -1.0]], dtype=torch.float64)


class _Angles(CoordinateMap):
    """Three soft angles, one of them a rotor, among two narrow coordinates; x is y."""

    def __init__(self) -> None:
        self.event_shape, self.dim = (5,), 5
        self.names = tuple(f"y{i}" for i in range(5))
        self.soft = torch.tensor([True, False, True, False, True])
        self.periodic = self.soft.clone()
        self.centre = torch.linspace(0.1, 2, 5)
        self.scale = torch.full((5,), 0.05)
        self.fold = torch.tensor([1, 1, 3, 1, 1])

    def forward(self, x):
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, y):
        return y, y.new_zeros(y.shape[:-1])


def _shake(module: torch.nn.Module, std: float = 0.3) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)


def _torus_map(n_cvs: int) -> CollectiveMap:
    return CollectiveMap(SHEAR, n_cvs=n_cvs, periodic=True, hidden=(8,))


def _line_map(n_cvs: int) -> CollectiveMap:
    matrix = torch.linalg.qr(torch.randn(3, 3))[0]
    return CollectiveMap(
        matrix,
        n_cvs=n_cvs,
        periodic=False,
        centre=torch.tensor([1.0, 2.0, 3.0]),
        scale=torch.tensor([0.5, 2.0, 3.0]),
        hidden=(8,),
    )


MAPS = {"torus": _torus_map, "line": _line_map}
MODELS = {
    "torus": lambda n: (_Angles(), _torus_map(n)),
    "line": lambda n: (Cartesian(3, scale=2.0), _line_map(n)),
}


def _joint(name: str, n_cvs: int, resolution: float = 0.1) -> CoarseGrainedModel:
    coordinates, cv_map = MODELS[name](n_cvs)
    generator = CoarseGrainedModel(SplineDecoder(coordinates, **SMALL))
    model = collective_model(generator, cv_map, resolution=resolution).double()
    # Wilder splines lose digits in the inverse
    _shake(model, 0.1)
    return model


def _grid(n: int, low: float = -math.pi, high: float = math.pi) -> tuple[torch.Tensor, float]:
    """Midpoints of a square grid, and the area of a cell."""
    width = (high - low) / n
    points = low + (torch.arange(n) + 0.5) * width
    return torch.cartesian_prod(points, points), width**2


@pytest.mark.parametrize("n_cvs", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_around_a_flow_matching_decoder_the_joint_density_is_exact_too(name, n_cvs) -> None:
    coordinates, cv_map = MODELS[name](n_cvs)
    generator = CoarseGrainedModel(FlowMatchingDecoder(coordinates, n_soft_units=9, hidden=(8,)))
    model = collective_model(generator, cv_map).double()
    for parameter in model.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    # The soft coordinates beside the CVs travel along a velocity as well
    assert all(isinstance(layer, ContinuousFlow) for layer in model.decoder.flow.rest.layers)
    assert len(model.decoder.flow.rest.layers) == (n_cvs < 3)
    with torch.no_grad():
        z, y, log_q = model.sample(20)
        assert_close(model.log_prob(z, y.clone()), log_q, atol=1e-3, rtol=0)


# The map


@pytest.mark.parametrize("n_cvs", [1, 2, 3])
@pytest.mark.parametrize("name", MAPS)
def test_the_map_is_one_to_one_with_constant_volume(name, n_cvs) -> None:
    cv_map = MAPS[name](n_cvs).double()
    _shake(cv_map)
    s = 3 * (2 * torch.rand(20, 3) - 1)
    cv_map.standardise(s)  # nothing on the torus
    xi, v = cv_map(s)
    assert xi.shape == (20, n_cvs)
    assert v.shape == (20, 3 - n_cvs)
    assert_close(cv_map.inverse(xi, v), s)
    for row in s[:4]:
        jacobian = torch.func.jacrev(lambda a: torch.cat(cv_map(a[None]), -1)[0])(row)
        # The orthogonal matrix is kept in single precision
        log_det = torch.linalg.slogdet(jacobian)[1]
        assert_close(log_det, -cv_map.log_scale, atol=1e-6, rtol=0)
    if name == "torus":
        assert float(cv_map.log_scale) == 0


@pytest.mark.parametrize("n_cvs", [1, 2])
def test_the_map_of_the_torus_knows_no_seam(n_cvs) -> None:
    cv_map = _torus_map(n_cvs).double()
    _shake(cv_map)
    s = 3 * (2 * torch.rand(20, 3) - 1)
    turned = s + 2 * math.pi * torch.randint(-2, 3, s.shape)
    for a, b in zip(cv_map(s), cv_map(turned), strict=True):
        assert ((a >= -math.pi) & (a < math.pi)).all()
        assert_close(wrap(a - b), torch.zeros_like(a))


def test_a_fresh_map_is_its_matrix() -> None:
    cv_map = _torus_map(2).double()
    s = torch.randn(5, 3)
    xi, v = cv_map(s)
    assert_close(torch.cat([xi, v], -1), wrap(s @ SHEAR.T))


def test_bad_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="`n_cvs` must lie between 1 and 3 soft coordinates, got"):
        CollectiveMap(torch.eye(3), n_cvs=4, periodic=True)
    with pytest.raises(ValueError, match="between 1 and 3 soft coordinates, got 0"):
        CollectiveMap(torch.eye(3), n_cvs=0, periodic=True)
    with pytest.raises(ValueError, match=r"must be an integer matrix of determinant ±1, got 2\.0"):
        CollectiveMap(torch.diag(torch.tensor([2.0, 1.0])), n_cvs=1, periodic=True)
    with pytest.raises(ValueError, match="must be an integer matrix"):
        CollectiveMap(torch.diag(torch.tensor([2.0, 0.5])), n_cvs=1, periodic=True)
    with pytest.raises(ValueError, match=r"must be a matrix of determinant ±1, got 4\.0"):
        CollectiveMap(2 * torch.eye(2), n_cvs=1, periodic=False)
    for name in ("centre", "scale"):
        with pytest.raises(ValueError, match="`centre` and `scale` are for the line"):
            CollectiveMap(torch.eye(2), n_cvs=1, periodic=True, **{name: torch.ones(2)})


# Prior, decoder, encoder


@pytest.mark.parametrize("periodic", [True, False])
def test_the_prior_integrates_to_one(periodic) -> None:
    edge = math.pi if periodic else 8.0
    for n_cvs in (1, 2):
        prior = FlowPrior(n_cvs, periodic=periodic, n_layers=2, n_bins=4, hidden=(8,)).double()
        _shake(prior)
        if n_cvs == 2:
            z, cell = _grid(400, -edge, edge)
        else:
            z = ((torch.arange(4000) + 0.5) / 2000 - 1)[:, None] * edge
            cell = edge / 2000
        mass = prior(torch.zeros(len(z), 0)).log_prob(z).exp().sum() * cell
        assert_close(mass, torch.tensor(1.0), atol=2e-3, rtol=0)


@pytest.mark.parametrize("n_cvs", [1, 2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_every_joint_model(name, n_cvs) -> None:
    model = _joint(name, n_cvs)
    z, y, log_q = model.sample(30)
    assert z.shape == (30, n_cvs)
    assert model.periodic_cvs == (name == "torus")

    # The density of a sample by the inverse pass is the one kept while drawing
    assert_close(model.log_prob(z.clone(), y.clone()), log_q)

    # The log-determinant of the decoder is that of the autograd Jacobian
    flow = model.decoder.flow
    eps = model.decoder(z).base.sample()
    out, log_det = flow(eps, z)
    for i in range(3):
        jacobian = torch.func.jacrev(lambda a, i=i: flow(a[None], z[i : i + 1])[0][0])(eps[i])
        exact = torch.linalg.slogdet(jacobian)[1]
        assert_close(exact, log_det[i], atol=1e-6, rtol=0)  # the matrix is rounded on the line
    back, back_log_det = flow.inverse(out, z)
    assert_close(back_log_det, -log_det)
    n = flow.n_angles
    assert_close(wrap(back[:, :n] - eps[:, :n]), torch.zeros_like(eps[:, :n]))
    assert_close(back[:, n:], eps[:, n:])

    # Soft and stiff density multiply
    space = flow.stiff.space
    s, noise, log_det_stiff = flow.stiff.inverse(y, z[:, :0])
    log_stiff = torch.distributions.Normal(0, 1).log_prob(noise).sum(-1) + log_det_stiff
    assert s.shape[1] == space.n_soft
    assert_close(
        model.decoder.soft_log_prob(s, z) + log_stiff, model.decoder(z).log_prob(y.clone())
    )

    # Every parameter gets a finite gradient
    (log_q.sum() + model.log_encoder(z, y).sum()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("periodic", [True, False])
def test_the_decoder_integrates_to_one(periodic) -> None:
    coordinates = Cartesian(2, periodic=periodic)
    cv_map = CollectiveMap(torch.eye(2), n_cvs=1, periodic=periodic, hidden=(8,))
    generator = CoarseGrainedModel(SplineDecoder(coordinates, **SMALL))
    model = collective_model(generator, cv_map, resolution=0.3).double()
    _shake(model, 0.15)
    y, cell = _grid(160) if periodic else _grid(240, -7, 7)
    z = torch.full((len(y), 1), 3.0 if periodic else 0.5)
    mass = model.decoder(z).log_prob(y).exp().sum() * cell
    assert_close(mass, torch.tensor(1.0), atol=3e-3, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_encoder_is_a_normal_around_the_first_outputs_of_the_map(name) -> None:
    model = _joint(name, 2, resolution=0.2)
    z, y, _ = model.sample(50)
    encoder = model.encoder
    assert isinstance(encoder, MapEncoder)
    xi, _ = encoder.map(y[:, encoder.soft_index])
    assert_close(encoder.cvs(y), xi)
    assert_close(encoder(y).mean, xi)
    offset = z - xi
    if name == "torus":
        offset = wrap(offset)
        # One image is all there is within five widths of the centre
        offset = offset.clamp(-1, 1)
        z = xi + offset
    expected = torch.distributions.Normal(0, 0.2).log_prob(offset).sum(-1)
    assert_close(model.log_encoder(z, y), expected)


def test_a_fresh_decoder_puts_the_cvs_within_the_resolution_of_z() -> None:
    generator = CoarseGrainedModel(SplineDecoder(_Angles(), **SMALL))
    model = collective_model(generator, _torus_map(2), resolution=0.1).double()
    z, y, _ = model.sample(5000)
    offset = wrap(model.encoder.cvs(y) - z) / 0.1
    # Five standard errors
    assert_close(offset.mean(0), torch.zeros(2), atol=0.07, rtol=0)
    assert_close(offset.std(0), torch.ones(2), atol=0.05, rtol=0)


def test_the_joint_model_is_a_copy_with_the_stiff_block_of_the_generator() -> None:
    generator = CoarseGrainedModel(SplineDecoder(_Angles(), **SMALL))
    _shake(generator)
    before = copy.deepcopy(generator.state_dict())
    model = collective_model(generator, _torus_map(1))
    own, source = model.decoder.flow.stiff, generator.decoder.flow.stiff
    for key, value in source.state_dict().items():
        assert torch.equal(own.state_dict()[key], value), key
    _shake(model)
    for key, value in generator.state_dict().items():
        assert torch.equal(before[key], value), key


def test_bad_joint_models_are_refused() -> None:
    generator = CoarseGrainedModel(SplineDecoder(_Angles(), **SMALL))
    for resolution in (0.0, -1.0, 0.6, math.nan):
        with pytest.raises(ValueError, match=r"`resolution` must lie in \(0, 0\.5\]"):
            collective_model(generator, _torus_map(1), resolution=resolution)
    with pytest.raises(ValueError, match="`generator` must have a TwoBlockDecoder and no CVs"):
        collective_model(build_model(_Angles(), n_cvs=1), _torus_map(1))


# The covering mixture


def _covering(share: float = 0.4) -> tuple[CoveringModel, list[CoarseGrainedModel]]:
    model = CoarseGrainedModel(SplineDecoder(_Angles(), **SMALL)).double()
    _shake(model)
    members = [model]
    for _ in range(2):
        other = copy.deepcopy(model)
        _shake(other.decoder.flow.soft)
        members.append(other)
    snapshots = [m.decoder.flow.soft.state_dict() for m in members[1:]]
    return CoveringModel(model, snapshots, share=share).double(), members


def test_the_covering_density_is_the_mixture_of_its_members() -> None:
    covering, members = _covering()
    z, y, log_q = covering.sample(101)
    assert z.shape == (101, 0)
    assert y.shape == (101, 5)
    terms = [
        math.log(share) + member.log_prob(z, y)
        for share, member in zip((0.4, 0.3, 0.3), members, strict=True)
    ]
    assert_close(log_q, torch.logsumexp(torch.stack(terms), 0), atol=1e-6, rtol=1e-6)
    assert_close(covering.log_encoder(z, y), torch.zeros(101))


def test_the_covering_soft_density_integrates_to_one() -> None:
    model = CoarseGrainedModel(SplineDecoder(Cartesian(2, periodic=True), **SMALL)).double()
    _shake(model)
    other = copy.deepcopy(model)
    _shake(other)
    covering = CoveringModel(model, [other.decoder.flow.soft.state_dict()]).double()
    s, cell = _grid(400)
    assert_close(covering.log_soft(s).exp().sum() * cell, torch.tensor(1.0), atol=2e-3, rtol=0)


def test_weights_from_the_covering_model_are_exact() -> None:
    covering, members = _covering()
    z, y, log_q = covering.sample(20_000)
    # A member seen through the mixture: the mean weight is 1, fails for 1 seed in 16,000
    weights = (members[2].log_prob(z, y) - log_q).exp().detach()
    assert weights.max() <= 1 / 0.3 + 1e-6
    error = weights.std() / math.sqrt(len(weights))
    assert abs(float(weights.mean()) - 1) < 4 * float(error)


def test_without_snapshots_the_covering_model_is_the_model() -> None:
    model = CoarseGrainedModel(SplineDecoder(_Angles(), **SMALL)).double()
    _shake(model)
    z, y, log_q = CoveringModel(model, []).sample(10)
    assert_close(log_q, model.log_prob(z, y))


def test_bad_covering_models_are_refused() -> None:
    model = CoarseGrainedModel(SplineDecoder(_Angles(), **SMALL))
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"`share` must lie in \(0, 1\], got"):
            CoveringModel(model, [], share=share)
    with pytest.raises(ValueError, match="`model` must have a TwoBlockDecoder without CVs"):
        CoveringModel(build_model(_Angles(), n_cvs=1), [])
