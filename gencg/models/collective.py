"""The joint model of slow CVs: prior, decoder through the CV map, encoder around it."""

import copy
import math
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor

from gencg.distributions.continuous_flow import ContinuousFlow
from gencg.distributions.couplings import ConditionalAffine
from gencg.distributions.flow import Chain, FlowDistribution
from gencg.distributions.gated_field import GatedField
from gencg.distributions.torus import TorusNormal, WrappedNormal
from gencg.geometry import wrap
from gencg.models.base import ConditionalDistribution
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.continuous import SOFT_SOLVER, FlowMatchingDecoder, soft_sharpness, soft_units
from gencg.models.cv_map import CollectiveMap
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.two_block import StiffBlock, log_normal, log_uniform, spline_layers


class FlowPrior(ConditionalDistribution):
    """Spline flow q(z), on the torus for angles and from a normal on the line."""

    def __init__(
        self,
        n_cvs: int,
        *,
        periodic: bool,
        n_layers: int = 6,
        n_bins: int = 16,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self.n_cvs, self.periodic = n_cvs, periodic
        layers = spline_layers(
            n_cvs,
            periodic=periodic,
            n_layers=n_layers,
            n_bins=n_bins,
            n_context=0,
            hidden=hidden,
        )
        self.flow = Chain(layers)

    def forward(self, context: Tensor) -> TorchDistribution:
        rows = context[:, :0]
        n_angles = self.n_cvs if self.periodic else 0
        base = TorusNormal(n_angles, self.n_cvs - n_angles, like=rows)
        return FlowDistribution(base, self.flow, rows)


class MapEncoder(ConditionalDistribution):
    r"""Encoder :math:`r(z|y)`: a (wrapped) normal of resolution :math:`\sigma` around the CV.

    .. math:: r(z|y) = N(z;\, \xi(s(y)),\, \sigma^2)

    Args:
        cv_map: The map that gives :math:`\xi`.
        soft_index: Which coordinates y are soft, ``(k,)`` int.
        resolution: :math:`\sigma`, in rad for angles.

    Raises:
        ValueError: If `resolution` is outside (0, 0.5]. Beyond, half a turn is only a few widths
            away and the decoder's normal around z would overlap with itself.
    """

    soft_index: Tensor
    resolution: Tensor

    def __init__(self, cv_map: CollectiveMap, soft_index: Tensor, *, resolution: float) -> None:
        super().__init__()
        if not (math.isfinite(resolution) and 0 < resolution <= 0.5):
            raise ValueError(f"`resolution` must lie in (0, 0.5], got {resolution}")
        self.map = cv_map
        self.register_buffer("soft_index", soft_index)
        self.register_buffer("resolution", torch.tensor(resolution))

    def cvs(self, y: Tensor) -> Tensor:
        r"""Collective variables :math:`\xi` of coordinates y, ``(n, n_cvs)``."""
        xi, _ = self.map(y[:, self.soft_index])
        out: Tensor = xi
        return out

    def forward(self, context: Tensor) -> TorchDistribution:
        xi = self.cvs(context)
        scale = self.resolution.to(xi).expand_as(xi)
        if self.map.periodic:
            return WrappedNormal(xi, scale)
        return Normal(xi, scale).to_event(1)


class _CollectiveFlow(Flow):  # type: ignore[misc]
    r"""Noise and z to y: :math:`\xi` near z, the other soft coordinates v, then the stiff block."""

    stiff: StiffBlock
    map: CollectiveMap

    def __init__(
        self,
        stiff: StiffBlock,
        cv_map: CollectiveMap,
        *,
        resolution: float,
        hidden: Sequence[int],
        rest: Chain,
    ) -> None:
        super().__init__()
        self.stiff, self.map = stiff, cv_map
        self.resolution = resolution
        d, k = cv_map.n_cvs, stiff.space.n_soft
        self.near = ConditionalAffine(d, n_context=n_features(cv_map), hidden=hidden)
        self.rest = rest
        self.n_angles = k - d if cv_map.periodic else 0
        self.n_normal = k + stiff.space.n_stiff - self.n_angles

    def forward(self, eps: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        k = self.stiff.space.n_soft
        s, log_det = self.soft(eps[:, :k], z)
        y, log_det_stiff = self.stiff(eps[:, k:], s, z[:, :0])
        return y, log_det + log_det_stiff

    def inverse(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        s, eps_stiff, log_det_stiff = self.stiff.inverse(y, z[:, :0])
        eps, log_det = self.soft_inverse(s, z)
        return torch.cat([eps, eps_stiff], dim=-1), log_det + log_det_stiff

    def soft(self, eps: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Soft coordinates from noise, v first as in the base, and the log-determinant."""
        n_v = self.stiff.space.n_soft - self.map.n_cvs
        offset, log_det = self.near(eps[:, n_v:], self.map.features(z))
        xi = self._wrap(z + self.resolution * offset)
        v, log_det_v = self.rest(eps[:, :n_v], self.map.features(xi))
        constant = self.map.n_cvs * math.log(self.resolution) + self.map.log_scale
        return self.map.inverse(xi, v), log_det + log_det_v + constant

    def soft_inverse(self, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Noise of soft coordinates, and the log-determinant of the inverse."""
        xi, v = self.map(s)
        eps_v, log_det_v = self.rest.inverse(v, self.map.features(xi))
        # Half a turn is at least six widths of the encoder away: no other image counts
        offset = self._wrap(xi - z) / self.resolution
        eps, log_det = self.near.inverse(offset, self.map.features(z))
        constant = self.map.n_cvs * math.log(self.resolution) + self.map.log_scale
        return torch.cat([eps_v, eps], dim=-1), log_det + log_det_v - constant

    def _wrap(self, u: Tensor) -> Tensor:
        return wrap(u) if self.map.periodic else u


class CollectiveDecoder(ConditionalDistribution):
    r"""Decoder through the inverse of the CV map, :math:`s = T^{-1}(\xi, v)`.

    .. math:: q(y|z) = q(\xi|z)\, q(v|\xi)\, q(\text{stiff}|s)

    :math:`q(\xi|z)` is a normal near z whose shift and width a network chooses (where the
    encoder is exact it is the posterior of :math:`\xi` given its blurred value z), q(v|ξ) a
    spline flow unless another is given, and the stiff block is the one of the generator without
    CVs.

    Args:
        stiff: Stiff block, of a trained generator for instance.
        cv_map: The map T.
        resolution: Width :math:`\sigma` of the encoder.
        n_layers: Spline couplings of q(v|ξ).
        n_bins: Bins of each spline.
        hidden: Hidden widths of all networks.
        rest: Flow of v in place of the splines; its context are `n_features` of ξ.
    """

    flow: _CollectiveFlow

    def __init__(
        self,
        stiff: StiffBlock,
        cv_map: CollectiveMap,
        *,
        resolution: float,
        n_layers: int = 6,
        n_bins: int = 12,
        hidden: Sequence[int] = (64, 64),
        rest: Chain | None = None,
    ) -> None:
        super().__init__()
        rest = rest or Chain(
            spline_layers(
                stiff.space.n_soft - cv_map.n_cvs,
                periodic=cv_map.periodic,
                n_layers=n_layers,
                n_bins=n_bins,
                n_context=n_features(cv_map),
                hidden=hidden,
            )
        )
        self.flow = _CollectiveFlow(stiff, cv_map, resolution=resolution, hidden=hidden, rest=rest)

    def forward(self, context: Tensor) -> TorchDistribution:
        base = TorusNormal(self.flow.n_angles, self.flow.n_normal, like=context)
        return FlowDistribution(base, self.flow, context)

    def soft_log_prob(self, s: Tensor, z: Tensor) -> Tensor:
        """Log-density of the soft coordinates given z, ``(n,)``: what `refit_soft` fits."""
        eps, log_det = self.flow.soft_inverse(s, z)
        n_angles = self.flow.n_angles
        return log_uniform(eps[:, :n_angles]) + log_normal(eps[:, n_angles:]) + log_det


def collective_model(
    generator: CoarseGrainedModel,
    cv_map: CollectiveMap,
    *,
    resolution: float = 0.1,
    width: int | None = None,
) -> CoarseGrainedModel:
    """Joint model of prior, decoder and encoder around a trained generator without CVs.

    The stiff block and the map are copied with their values; prior and soft decoder start fresh.
    Around a `FlowMatchingDecoder` the soft decoder is a continuous flow, too.

    Args:
        generator: Model with `TwoBlockDecoder` and no CVs.
        cv_map: Map of its soft coordinates.
        resolution: Width of the encoder, in rad for angles.
        width: Of the hidden layers of prior and soft decoder; by default 64 up to eight soft
            coordinates, 128 beyond.

    Raises:
        ValueError: If the generator has CVs or another decoder.
    """
    if not isinstance(generator.decoder, TwoBlockDecoder) or generator.n_cvs:
        raise ValueError("`generator` must have a TwoBlockDecoder and no CVs")
    stiff, cv_map = copy.deepcopy(generator.decoder.flow.stiff), copy.deepcopy(cv_map)
    # Together as large as a soft block of couplings
    k = stiff.space.n_soft
    n_layers, width = min(max(6, k), 12), width or (64 if k <= 8 else 128)
    continuous = isinstance(generator.decoder, FlowMatchingDecoder)
    decoder = CollectiveDecoder(
        stiff,
        cv_map,
        resolution=resolution,
        n_layers=n_layers,
        hidden=(width, width),
        rest=_continuous(cv_map, width) if continuous else None,
    )
    prior = FlowPrior(
        cv_map.n_cvs,
        periodic=cv_map.periodic,
        n_layers=min(max(6, 2 * cv_map.n_cvs), 12),
        hidden=(width, width),
    )
    return CoarseGrainedModel(
        decoder,
        prior=prior,
        encoder=MapEncoder(cv_map, stiff.space.soft_index, resolution=resolution),
        n_cvs=cv_map.n_cvs,
    )


def n_features(cv_map: CollectiveMap) -> int:
    """How many features of its CVs a map gives to networks."""
    return 4 * cv_map.n_cvs if cv_map.periodic else cv_map.n_cvs


def _continuous(cv_map: CollectiveMap, width: int) -> Chain | None:
    """The flow of the soft coordinates beside the CVs; None where there are none."""
    n = cv_map.n_soft - cv_map.n_cvs
    if n == 0:
        return None
    field = GatedField(
        torch.full((n,), cv_map.periodic),
        n_context=n_features(cv_map),
        n_units=soft_units(n),
        n_times=6,
        sharpness=soft_sharpness(cv_map.periodic),
        hidden=(width, width),
    )
    return Chain([ContinuousFlow(field, solver=SOFT_SOLVER)])
