"""Slow and fast latent variables and one linear map (Stupp, Koutsourelakis 2025)."""

import math
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

import gencg
from experiments.baselines.gaussian_decoder import HOT, OPTIMISATION, WIDTH, body_fixed
from gencg.coordinates.base import CoordinateMap
from gencg.distributions.flow import Chain, FlowDistribution
from gencg.distributions.networks import MLP
from gencg.distributions.torus import TorusNormal
from gencg.fit import FitResult
from gencg.models.base import ConditionalDistribution
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.two_block import spline_layers
from gencg.molecule import Molecule
from gencg.systems import System
from gencg.tempering import KLTempering

SLOW_SHARE = 15 / 24
"""Slow latent variables of all; 15 of 24 in the paper."""
NEAR_IDENTITY = 2.0
"""Logit on the diagonal of the untrained map."""


class LinearBijection(Flow):  # type: ignore[misc]
    r"""All coordinates from slow z and fast v by one invertible row-stochastic matrix.

    .. math:: u = W \begin{pmatrix} z \\ v \end{pmatrix}, \quad
              W_{ij} = \frac{e^{a_{ij}}}{\sum_k e^{a_{ik}}}, \qquad
              q(u) = \frac{q(z)\, N(v;\, \mu(z), \sigma(z)^2)}{|\det W|}

    q(z) is a spline flow from a normal and may have many modes, the fast variables have one for
    each z. z is a linear function of u, the first rows of :math:`W^{-1} u`, so that there is no
    encoder to be inexact. u are the coordinates in units of their scales around the reference.

    Args:
        coordinates: Gives the number of coordinates, centre and scale.
        n_slow: Number of slow variables.
        order: Which coordinate each latent variable starts at, ``(dim,)``; slow ones first.
        width: Spread of the untrained density in units of the scale.
        n_layers: Coupling layers of the slow block.
        hidden: Hidden widths of its networks and of that of the fast variables.
        n_bins: Bins of each spline.

    Raises:
        ValueError: If `n_slow` is not between 1 and the number of coordinates.

    References:
        | Energy-based coarse-graining in molecular dynamics: a flow-based framework without data
          (Stupp, Koutsourelakis, 2025), https://arxiv.org/abs/2504.20940
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_slow: int,
        order: Tensor,
        width: float = 1.0,
        n_layers: int = 8,
        hidden: Sequence[int] = (128, 128),
        n_bins: int = 12,
    ) -> None:
        super().__init__()
        dim = coordinates.dim
        if not 1 <= n_slow <= dim:
            raise ValueError(f"`n_slow` must lie between 1 and {dim}, got {n_slow}")
        self.n_slow, self.n_fast = n_slow, dim - n_slow
        self.register_buffer("centre", coordinates.centre.float())
        self.register_buffer("scale", coordinates.scale.float())
        layers = spline_layers(
            n_slow, periodic=False, n_layers=n_layers, n_bins=n_bins, n_context=0, hidden=hidden
        )
        self.slow = Chain(layers)
        self.log_width = nn.Parameter(torch.full((n_slow,), math.log(width)))
        self.shift = nn.Parameter(torch.zeros(n_slow))
        self.fast = MLP(n_slow, 2 * self.n_fast, hidden=hidden) if self.n_fast else None
        if self.fast is not None:
            self.fast.layers[-1].bias.data[self.n_fast :] = math.log(width)  # type: ignore[union-attr,operator,index]
        diagonal = torch.zeros(dim, dim)
        diagonal[order, torch.arange(dim)] = NEAR_IDENTITY + math.log(dim)
        self.logits = nn.Parameter(diagonal)

    @property
    def matrix(self) -> Tensor:
        """The map W, ``(dim, dim)``; every row sums to one."""
        return torch.softmax(self.logits, dim=-1)

    def slow_variables(self, y: Tensor) -> Tensor:
        """z of coordinates ``(n, dim)``, ``(n, n_slow)``."""
        return self._latent(y)[:, : self.n_slow]

    def forward(self, eps: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates from noise, and the log-determinant."""
        none = eps[:, :0]
        z, log_det = self.slow(eps[:, : self.n_slow], none)
        z = z * self.log_width.exp() + self.shift
        log_det = log_det + self.log_width.sum()
        parts = [z]
        if self.fast is not None:
            loc, log_scale = self.fast(z).chunk(2, dim=-1)
            parts.append(loc + log_scale.exp() * eps[:, self.n_slow :])
            log_det = log_det + log_scale.sum(-1)
        u = torch.cat(parts, -1) @ self.matrix.T
        return self.centre + self.scale * u, log_det + self._log_volume()

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Noise of coordinates, and the log-determinant of the inverse."""
        latent = self._latent(y)
        z, v = latent[:, : self.n_slow], latent[:, self.n_slow :]
        eps, log_det = self.slow.inverse((z - self.shift) / self.log_width.exp(), z[:, :0])
        log_det = log_det - self.log_width.sum() - self._log_volume()
        if self.fast is None:
            return eps, log_det
        loc, log_scale = self.fast(z).chunk(2, dim=-1)
        return torch.cat([eps, (v - loc) / log_scale.exp()], -1), log_det - log_scale.sum(-1)

    def _latent(self, y: Tensor) -> Tensor:
        return torch.linalg.solve(self.matrix, ((y - self.centre) / self.scale).T).T

    def _log_volume(self) -> Tensor:
        return torch.linalg.slogdet(self.matrix).logabsdet + self.scale.log().sum()


class LinearBijectionDecoder(ConditionalDistribution):
    """`LinearBijection` as a generator without context."""

    def __init__(self, flow: LinearBijection) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, context: Tensor) -> TorchDistribution:
        base = TorusNormal(0, self.flow.n_slow + self.flow.n_fast, like=context)
        return FlowDistribution(base, self.flow, context)


def heavy_first(molecule: Molecule | None, names: Sequence[str]) -> Tensor:
    """Order of coordinates: those of heavy atoms before those of hydrogens."""
    if molecule is None:
        return torch.arange(len(names))
    element = dict(zip(molecule.names, molecule.elements, strict=True))
    light = [element[name.split("(", 1)[1][:-1]] == "H" for name in names]
    return torch.tensor(
        [i for is_light in (False, True) for i, x in enumerate(light) if x == is_light]
    )


def build(system: System, *, n_slow: int | None = None, seed: int) -> CoarseGrainedModel:
    """The untrained model, near the reference structure for a molecule.

    Args:
        system: What is sampled, in the coordinates of the model.
        n_slow: Slow variables; `SLOW_SHARE` of all by default, for a toy one.
        seed: Of the initial parameters.
    """
    dim, toy = system.coordinates.dim, system.molecule is None
    n_slow = n_slow or (1 if toy else math.ceil(SLOW_SHARE * dim))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = LinearBijection(
            system.coordinates,
            n_slow=n_slow,
            order=heavy_first(system.molecule, system.coordinates.names),
            width=1.0 if toy else WIDTH,
        )
    return CoarseGrainedModel(LinearBijectionDecoder(flow))


def train(
    system: System,
    *,
    calls: float,
    seed: int,
    temperature: float | None = None,
    n_slow: int | None = None,
    batch_size: int = 256,
) -> FitResult:
    """Reverse KL down a ladder that the growth of the KL divergence paces, as in the paper.

    Args:
        system: What to sample, in whatever coordinates.
        calls: Energy calls.
        seed: Decides everything random.
        temperature: In K; the system's own by default.
        n_slow: Slow variables.
        batch_size: Samples per step.
    """
    system = body_fixed(system)
    kind = "toy" if system.molecule is None else "molecule"
    return gencg.fit(
        system,
        temperature=temperature,
        energy_calls=calls,
        batch_size=batch_size,
        model=build(system, n_slow=n_slow, seed=seed),
        tempering=KLTempering(start=HOT[kind], deadline=0.7),
        optimisation=OPTIMISATION[kind],
        estimator="plain",
        seed=seed,
    )
