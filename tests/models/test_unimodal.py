"""The one-stage decoder and its encoder: exact densities with one peak.

Cannot detect: a peak that is too stiff for its task, or a z that carries nothing.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import gencg
from gencg.coordinates.base import Cartesian
from gencg.models.build import unimodal_model
from gencg.models.encoders import SoftEncoder
from gencg.models.two_block import SoftSpace
from gencg.models.unimodal import UnimodalFlowDecoder, winding
from gencg.objectives.reverse_kl import ReverseKL
from gencg.systems import butane, double_well
from gencg.target import BoltzmannTarget
from gencg.tempering import GeometricLadder
from gencg.training import Optimisation

WIDEST = 1.4


class _Angles(Cartesian):
    """Three soft angles, the second a symmetric rotor, among seven coordinates."""

    def __init__(self) -> None:
        super().__init__(7)
        self.soft = torch.tensor([True, True, False, False, True, False, False])
        self.periodic = self.soft.clone()
        self.fold = torch.tensor([1, 3, 1, 1, 1, 1, 1])


CASES = {
    "angles, periodic z": (_Angles, True),
    "angles, real z": (_Angles, False),
    "torus, periodic z": (lambda: Cartesian(2, periodic=True), True),
    "plane": (lambda: Cartesian(2, scale=0.7), False),
}


def _shake(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def _decoder(name: str, *, n_cvs: int = 2, max_width: float = 1.0) -> UnimodalFlowDecoder:
    build, periodic = CASES[name]
    decoder = UnimodalFlowDecoder(
        build(), n_cvs=n_cvs, periodic=periodic, max_width=max_width, hidden=(8,),
        n_stiff_layers=2, stiff_hidden=(8,),
    ).double()  # fmt: skip
    _shake(decoder)
    return decoder


@pytest.mark.parametrize("name", CASES)
def test_every_peak_has_an_exact_density(name) -> None:
    decoder = _decoder(name)
    z = torch.randn(30, 2)
    distribution = decoder(z)
    y = distribution.rsample()
    kept = distribution.log_prob(y)

    # The density of a drawn sample is that of the inverse pass
    assert_close(decoder(z).log_prob(y.detach()), kept)

    # It is the base's, less the log-determinant of the autograd Jacobian
    eps = torch.randn(30, decoder.dim)
    _, log_det = decoder.flow(eps, z)
    for i in range(3):
        jacobian = torch.func.jacrev(lambda e, i=i: decoder.flow(e[None], z[[i]])[0][0])(eps[i])
        assert_close(torch.linalg.slogdet(jacobian)[1], log_det[i])

    # Every parameter gets a finite gradient
    (kept.sum() + y.square().sum()).backward()
    for key, parameter in decoder.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    single = decoder.float()(z.float())
    assert single.rsample().dtype == torch.float32


def _grid(name: str, n: int, reach: float) -> tuple[Tensor, float]:
    periodic = CASES[name][0]().periodic.all()
    half = math.pi if periodic else reach
    axis = (torch.arange(n) + 0.5) / n * 2 * half - half
    return torch.cartesian_prod(axis, axis), (2 * half / n) ** 2


@pytest.mark.parametrize("name", ["torus, periodic z", "plane"])
def test_every_peak_integrates_to_one(name) -> None:
    decoder = _decoder(name)
    s, cell = _grid(name, 400, 8.0)
    for z in torch.randn(3, 2):
        mass = decoder(z.expand(len(s), 2)).log_prob(s).exp().sum() * cell
        assert_close(mass, torch.tensor(1.0), atol=1e-5, rtol=0)


def test_the_torus_density_repeats_every_turn() -> None:
    decoder = _decoder("torus, periodic z")
    s, z = torch.randn(5, 2), torch.randn(5, 2)
    assert_close(decoder(z).log_prob(s + 2 * math.pi), decoder(z).log_prob(s))
    assert_close(decoder(z + 2 * math.pi).log_prob(s), decoder(z).log_prob(s))


def _n_maxima(density: Tensor, *, periodic: bool) -> int:
    """Cells of a square grid above their eight neighbours; a ridge between cells counts once."""
    pads = "circular" if periodic else "constant"
    wide = torch.nn.functional.pad(density[None, None], (1, 1, 1, 1), mode=pads)[0, 0]
    n, around = len(density), []
    for i in range(3):
        around += [wide[i : i + n, j : j + n] for j in range(3) if (i, j) != (1, 1)]
    return int((density > torch.stack(around).amax(0)).sum())


@pytest.mark.parametrize("name", ["torus, periodic z", "plane"])
def test_there_is_one_peak_for_every_z(name) -> None:
    s, _ = _grid(name, 160, 8.0)
    for seed in range(5):
        torch.manual_seed(seed)
        # As wide as allowed: narrow ones are nearly normal
        decoder = _decoder(name, max_width=WIDEST)
        z = torch.randn(2)
        density = decoder(z.expand(len(s), 2)).log_prob(s).exp().reshape(160, 160)
        assert _n_maxima(density, periodic=name != "plane") == 1


@pytest.mark.parametrize("periodic, width", [(True, WIDEST), (False, 3.0)])
def test_the_log_density_is_concave_in_the_noise(periodic, width) -> None:
    # What the docstring proves, where the precision is the least allowed
    coordinates = Cartesian(2, periodic=periodic)
    decoder = UnimodalFlowDecoder(coordinates, n_cvs=1, periodic=periodic, max_width=width)
    block = decoder.double().flow.soft
    last = block.net.layers[-1]
    torch.nn.init.constant_(last.bias, -100.0)  # the narrowing B is next to nothing
    last.bias.data[[0, 1, 3]] = 0.0
    loc, factor = block.peak(torch.zeros(1, 1))

    def log_density(u: Tensor) -> Tensor:
        s = loc[0] + (2 * torch.atan(u) if periodic else u)
        return decoder(torch.zeros(1, 1)).log_prob(s[None])[0]

    for u in 3 * torch.randn(50, 2):
        hessian = torch.autograd.functional.hessian(log_density, u)
        assert torch.linalg.eigvalsh(hessian).max() < 0
    assert torch.linalg.eigvalsh(factor @ factor.mT).min() > (2.0 if periodic else 0.0)


def test_periodic_cvs_wind_around_torsions_that_are_no_rotors() -> None:
    space = SoftSpace(_Angles())
    assert_close(winding(space, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
    decoder = _decoder("angles, periodic z")
    z = torch.linspace(-math.pi, math.pi, 1000)[:, None] * torch.tensor([1.0, 0.0])
    loc, _ = decoder.flow.soft.peak(z)
    assert_close(loc[-1] - loc[0], torch.tensor([2 * math.pi, 0.0, 0.0]))
    with pytest.raises(ValueError, match="`n_cvs` must be at most 2, the number of soft torsions"):
        winding(space, 3)


@pytest.mark.parametrize("name", CASES)
def test_the_encoder_is_smooth_and_sees_soft_coordinates_alone(name) -> None:
    build, periodic = CASES[name]
    coordinates = build()
    encoder = SoftEncoder(coordinates, n_cvs=2, periodic=periodic, hidden=(8,)).double()
    _shake(encoder)
    y, z = torch.randn(6, coordinates.dim), torch.randn(6, 2)
    density = encoder(y).log_prob(z)

    moved = torch.where(coordinates.soft, y, y + 1)
    assert_close(encoder(moved).log_prob(z), density)
    # Two thirds of a folded rotor's turns are other labels of the same: a whole turn of the others
    turn = 2 * math.pi * coordinates.periodic * (coordinates.fold == 1)
    assert_close(encoder(y + turn).log_prob(z), density)

    z = encoder(y).rsample()
    assert z.shape == encoder(y).mean.shape == (6, 2)
    if periodic:
        assert (z.abs() <= math.pi).all()
    # The width stays where five images of the wrapped normal are enough
    assert (encoder(100 * y).log_prob(encoder(100 * y).mean) > -3).all()
    encoder(y).log_prob(z.detach()).sum().backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_bad_settings_are_refused() -> None:
    plane, torus = Cartesian(2), Cartesian(2, periodic=True)
    with pytest.raises(ValueError, match="`n_cvs` must be at least 1, got 0"):
        UnimodalFlowDecoder(plane, n_cvs=0, periodic=False)
    with pytest.raises(ValueError, match="`periodic` z need soft coordinates that are angles"):
        UnimodalFlowDecoder(plane, n_cvs=1, periodic=True)
    for width in (0.0, 1.42, math.nan):
        with pytest.raises(ValueError, match="`max_width` must be positive and, for angles"):
            UnimodalFlowDecoder(torus, n_cvs=1, periodic=True, max_width=width)
    stiff = Cartesian(2)
    stiff.soft = torch.zeros(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="must have soft coordinates"):
        UnimodalFlowDecoder(stiff, n_cvs=1, periodic=False)


@pytest.mark.parametrize("name", CASES)
def test_encoder_and_decoder_start_as_each_others_inverse(name) -> None:
    coordinates = CASES[name][0]()
    model = unimodal_model(coordinates, n_cvs=2).double()
    assert model.periodic_cvs == bool(coordinates.periodic.any())
    z = torch.randn(5, 2)
    loc, _ = model.decoder.flow.soft.peak(z)
    space = model.decoder.flow.stiff.space
    y = torch.zeros(5, coordinates.dim)
    y[:, space.soft_index] = space.soft_centre + space.soft_scale * loc
    back = model.encoder(y).mean
    assert_close(torch.remainder(back - z + 1, 2 * math.pi), torch.ones(5, 2))


@pytest.mark.parametrize("build", [butane, double_well])
def test_both_gradients_of_the_bound_share_one_mean(build) -> None:
    system = build()
    model = unimodal_model(system.coordinates, n_cvs=1).double()
    _shake(model)
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    parameter = model.decoder.flow.soft.net.layers[-1].bias
    means, errors = [], []
    for path in (True, False):
        objective = ReverseKL(
            target, n_samples=1000, path_gradient=path, drop_worst=0.0, clip_above=math.inf
        )
        draws = []
        for seed in range(30):
            torch.manual_seed(seed)
            (gradient,) = torch.autograd.grad(objective.loss(model, target.beta / 8), parameter)
            draws.append(gradient)
        means.append(torch.stack(draws).mean(0))
        errors.append(torch.stack(draws).std(0) / math.sqrt(30))
    # Five standard errors; the seeds are common, which only brings them nearer
    assert ((means[0] - means[1]).abs() < 5 * (errors[0] + errors[1])).all()


@pytest.mark.slow
def test_the_one_stage_flow_keeps_the_well_of_eight_per_mille() -> None:
    torch.set_default_dtype(torch.float32)
    system = double_well()
    result = gencg.fit(
        system, model=unimodal_model(system.coordinates, n_cvs=1), energy_calls=6e5,
        batch_size=256, tempering=GeometricLadder(start=16.0), seed=0,
        optimisation=Optimisation(learning_rate=1e-3, optimiser="adam"),
    )  # fmt: skip
    ensemble = gencg.draw(result.model, result.target, 100_000)
    assert ensemble.log_z == pytest.approx(12.0649, abs=0.01)
    right = system.energy.states(ensemble.x)["right"]
    assert ensemble.populations({"right": right}, raw=True)["right"][0] > 0.001
