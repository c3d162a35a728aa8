"""The model of 2020: body-fixed Cartesians, diagonal Gaussians, two-dimensional latent."""

import dataclasses
import math

import torch

import gencg
from gencg.coordinates.body_frame import BodyFrame
from gencg.fit import FitResult
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import GaussianDecoder
from gencg.models.encoders import GaussianEncoder
from gencg.models.priors import GaussianPrior
from gencg.systems import System
from gencg.tempering import KLTempering
from gencg.training import Optimisation

DECODER, ENCODER = (100, 100, 100), (150, 150, 150)
"""Hidden widths of the two networks, with tanh between the layers."""
WIDTH = 0.1
"""Standard deviations of the untrained decoder, in units of the coordinates' scale."""
HOT = {"toy": 16.0, "molecule": 1e3}
"""Start of the ladder over the target temperature."""
OPTIMISATION = {
    "toy": Optimisation(learning_rate=1e-3, optimiser="adam", precision="float32"),
    "molecule": Optimisation(learning_rate=1e-2, warm_up=50, optimiser="adam", precision="float32"),
}
"""Adam without rounded products, which would move Cartesians by more than a bond is wide. Of rates
1e-3, 3e-3 and 1e-2 for 1e5 calls of the dipeptide, seed 0, the last has the highest effective
sample size, here (4e-5, 1.5e-4, 4.6e-4) and for the linear bijection (2.6e-4, 2.3e-4, 2.7e-3)."""


def body_fixed(system: System) -> System:
    """The same system in the coordinates of 2020; a toy, which has no rigid motion, as it is."""
    if system.molecule is None:
        return system
    return dataclasses.replace(system, coordinates=BodyFrame(system.molecule))


def build(system: System, *, n_cvs: int, seed: int) -> CoarseGrainedModel:
    r"""Prior :math:`N(0, I)`, decoder and encoder with diagonal Gaussians.

    A molecule's decoder starts narrow around the reference structure: with spreads of a bond
    length nearly every sample is a clash.

    Args:
        system: What is sampled, in the coordinates of the model.
        n_cvs: Dimension of the latent space.
        seed: Of the initial parameters.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = GaussianDecoder(system.coordinates, n_cvs=n_cvs, hidden=DECODER)
        encoder = GaussianEncoder(system.coordinates, n_cvs=n_cvs, hidden=ENCODER)
        for part in (decoder, encoder):
            last = part.net.layers[-1]
            assert isinstance(last, torch.nn.Linear)
            # A last layer of zeros would have z say nothing, and nothing pull it away from there
            last.reset_parameters()
    if system.molecule is not None:
        last = decoder.net.layers[-1]
        assert isinstance(last, torch.nn.Linear)
        last.bias.data[system.coordinates.dim :] += math.log(WIDTH)
    return CoarseGrainedModel(decoder, prior=GaussianPrior(n_cvs), encoder=encoder, n_cvs=n_cvs)


def train(
    system: System,
    *,
    calls: float,
    seed: int,
    temperature: float | None = None,
    n_cvs: int | None = None,
    batch_size: int = 256,
) -> FitResult:
    """Reverse KL with the reparametrised gradient, Adam, and the tempering rule of 2020.

    Args:
        system: What to sample, in whatever coordinates.
        calls: Energy calls.
        seed: Decides everything random.
        temperature: In K; the system's own by default.
        n_cvs: Dimension of the latent space; 2 for a molecule and 1 for a toy by default.
        batch_size: Samples per step.
    """
    system = body_fixed(system)
    kind = "toy" if system.molecule is None else "molecule"
    n_cvs = n_cvs or (1 if kind == "toy" else 2)
    return gencg.fit(
        system,
        temperature=temperature,
        energy_calls=calls,
        batch_size=batch_size,
        model=build(system, n_cvs=n_cvs, seed=seed),
        tempering=KLTempering(start=HOT[kind], deadline=0.7),
        optimisation=OPTIMISATION[kind],
        estimator="plain",
        seed=seed,
    )
