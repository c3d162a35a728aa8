"""Decoders q(y|z): from collective variables to all coordinates of the molecule."""

from collections.abc import Sequence

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.coordinates.internal import InternalCoordinates
from gencg.distributions.flow import Chain, FlowDistribution
from gencg.distributions.networks import MLP
from gencg.distributions.torus import TorusNormal
from gencg.models.base import ConditionalDistribution
from gencg.models.contacts import Contacts, has_contacts
from gencg.models.locality import Locality
from gencg.models.two_block import (
    SoftBlock,
    SoftSpace,
    StiffBlock,
    TwoBlockFlow,
    autoregressive_layers,
)

DEFAULT_LOCALITY = Locality()
N_PASSES = 2
"""Passes of an autoregressive soft block."""
FEW_SOFT = 8
"""Soft coordinates up to which the soft block is narrow and the stiff one sees no contacts."""


class TwoBlockDecoder(ConditionalDistribution):
    r"""A decoder in two blocks, :math:`q(y|z) = q(s|z)\, q(v|s,z)`.

    What trains, probes, reuses and mixes the blocks asks for no more than this.

    Args:
        flow: The two blocks.
    """

    flow: TwoBlockFlow

    def __init__(self, flow: TwoBlockFlow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, context: Tensor) -> TorchDistribution:
        base = TorusNormal(self.flow.n_angles, self.flow.n_normal, like=context)
        return FlowDistribution(base, self.flow, context)


class SplineDecoder(TwoBlockDecoder):
    r"""Two-block spline flow: soft coordinates first, everything stiff given them.

    .. math:: q(y|z) = q(s|z)\, q(v|s,z)

    The soft block starts uniform on the torus (normal on the line for toys) and passes
    rational-quadratic splines, one coordinate after the other (`autoregressive`) or half of them at
    a time; the stiff block starts normal and passes affine coupling layers, one triangular matrix,
    and a shift and scale chosen by the soft coordinates, around the reference structure.

    Args:
        coordinates: Gives the number of coordinates, which are soft, centre and scale.
        n_cvs: Number of collective variables z, may be zero.
        n_soft_layers: Coupling layers of a soft block that is not autoregressive; None takes one
            for each soft coordinate, 6 at least and 12 at most.
        n_bins: Bins of each spline; None takes 12, and 16 where the soft block is autoregressive.
        soft_hidden: Hidden widths in the soft block; None takes 64 up to 8 soft coordinates, 128
            beyond.
        n_stiff_layers: Coupling layers of the stiff block.
        stiff_hidden: Hidden widths in the stiff block.
        locality: Windows of the blocks of a long molecule; None lets every entry see all.
        contacts: Whether the stiff block sees which atoms the soft coordinates bring near each
            other (`Contacts`); None takes yes beyond 8 soft coordinates, where there are such
            atoms, up to 200 stiff ones in one window.
        autoregressive: Whether the soft block moves one coordinate after the other
            (`autoregressive_layers`) in place of half of them (`spline_layers`); None takes yes for
            two torsions or more in one window.
        seed: Chooses the fixed permutations.

    Raises:
        ValueError: If soft coordinates are partly on the circle and partly on the line, or
            `contacts` or `autoregressive` are asked for where there can be none.
    """

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_cvs: int = 0,
        n_soft_layers: int | None = None,
        n_bins: int | None = None,
        soft_hidden: Sequence[int] | None = None,
        n_stiff_layers: int = 10,
        stiff_hidden: Sequence[int] = (160, 160),
        locality: Locality | None = DEFAULT_LOCALITY,
        contacts: bool | None = None,
        autoregressive: bool | None = None,
        seed: int = 0,
    ) -> None:
        space = SoftSpace(coordinates)
        width = 64 if space.n_soft <= FEW_SOFT else 128
        n_windows = 1 if locality is None else locality.n_soft_windows(space.n_soft)
        if autoregressive is None:
            whole = DEFAULT_LOCALITY.n_soft_windows(space.n_soft) == n_windows == 1
            several = space.periodic and space.n_soft > 1
            autoregressive = several and whole and n_soft_layers is None
        elif autoregressive and (space.n_soft < 2 or n_windows > 1 or n_soft_layers is not None):
            raise ValueError(
                "`autoregressive` is for two soft coordinates or more in one window and instead of "
                f"`n_soft_layers` couplings, got {space.n_soft} in {n_windows} with "
                f"n_soft_layers={n_soft_layers}; leave it out"
            )
        if contacts is None:
            cuts = [DEFAULT_LOCALITY if locality is None else locality, DEFAULT_LOCALITY]
            whole = all(cut.n_stiff_windows(space.n_stiff) == 1 for cut in cuts)
            contacts = space.n_soft > FEW_SOFT and whole and has_contacts(coordinates)
        near = None
        if contacts:
            if not isinstance(coordinates, InternalCoordinates):
                raise ValueError(
                    "`contacts` are for coordinates of a molecule, got True for "
                    f"{type(coordinates).__name__}; leave them out"
                )
            # What the other networks begin with does not depend on it
            with torch.random.fork_rng():
                near = Contacts(coordinates)
        chain = None
        if autoregressive:
            chain = Chain(
                autoregressive_layers(
                    space.soft_position,
                    periodic=space.periodic,
                    n_passes=N_PASSES,
                    n_bins=16 if n_bins is None else n_bins,
                    n_context=n_cvs,
                    hidden=soft_hidden or (width, width),
                )
            )
        soft = SoftBlock(
            space,
            n_context=n_cvs,
            n_layers=n_soft_layers or min(max(6, space.n_soft), 12),
            n_bins=12 if n_bins is None else n_bins,
            hidden=soft_hidden or (width, width),
            locality=locality,
            chain=chain,
        )
        stiff = StiffBlock(
            coordinates,
            space,
            n_context=n_cvs,
            n_layers=n_stiff_layers,
            hidden=stiff_hidden,
            locality=locality,
            contacts=near,
            generator=torch.Generator().manual_seed(seed),
        )
        super().__init__(TwoBlockFlow(soft, stiff))


class GaussianDecoder(ConditionalDistribution):
    r"""Diagonal Gaussian :math:`q(y|z) = N(\mu(z), \sigma(z)^2)`, the decoder of 2020.

    Unimodal for each z, so that z has to carry what is multimodal.

    References:
        | Embedded-physics machine learning for coarse-graining and collective variable
          discovery without data (Schöberl et al., 2020), https://arxiv.org/abs/2002.10148
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_cvs: int,
        hidden: Sequence[int] = (100, 100, 100),
    ) -> None:
        super().__init__()
        self.net = MLP(n_cvs, 2 * coordinates.dim, hidden=hidden, activation=torch.nn.Tanh)
        self.register_buffer("centre", coordinates.centre.float())
        self.register_buffer("scale", coordinates.scale.float())

    def forward(self, context: Tensor) -> TorchDistribution:
        loc, log_scale = self.net(context).chunk(2, dim=-1)
        return Normal(self.centre + self.scale * loc, self.scale * log_scale.exp()).to_event(1)
