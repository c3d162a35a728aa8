"""The one-stage decoder: one peak for each z, so that z has to carry what is multimodal."""

import math
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from gencg.coordinates.base import CoordinateMap
from gencg.distributions.flow import FlowDistribution
from gencg.distributions.networks import MLP, harmonics
from gencg.distributions.torus import TorusNormal
from gencg.geometry import wrap
from gencg.models.base import ConditionalDistribution
from gencg.models.two_block import SoftSpace, StiffBlock


class UnimodalBlock(nn.Module):
    r"""One peak of bounded width and any correlation over the soft coordinates, :math:`q(s|z)`.

    .. math:: P(z) = p_0 I + B(z) B(z)^T = C C^T, \qquad u = C^{-T} \epsilon, \qquad
              \epsilon \sim N(0, I)

    and :math:`s = \mu(z) + 2 \arctan u` on the torus, :math:`s = \mu(z) + u` on the line in units
    of the coordinates' scale. Networks of z give :math:`\mu` and the lower triangle of B.

    On the torus the density falls smoothly to zero at the antipode of :math:`\mu`: the arctangent
    covers the circle once, so that no sum over images is needed, in any number of dimensions.

    **One maximum for every z.** As a function of u, :math:`\log q(s|z) = -\tfrac12 u^T P u +
    \sum_i \log(1 + u_i^2) + \mathrm{const}`. The second derivative of the last term is at most 2,
    so that the whole is strictly concave when :math:`p_0 > 2`, and a change of variables moves
    no stationary point. With :math:`p_0 = 4 / w^2` the width of every direction is about w rad at
    most and the condition reads :math:`w < \sqrt 2`. On the line :math:`p_0 = 1 / w^2`, any w.

    Angles z wind around torsions s (`winding`), real z start on random axes.

    Args:
        space: Which coordinates are soft, and whether they are angles.
        n_cvs: Number of collective variables z.
        periodic: Whether z are angles.
        max_width: The width w, in rad or in units of the coordinates' scale.
        hidden: Hidden widths of the network.
    """

    rows: Tensor
    columns: Tensor
    axes: Tensor

    def __init__(
        self,
        space: SoftSpace,
        *,
        n_cvs: int,
        periodic: bool,
        max_width: float,
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        self.space, self.periodic = space, periodic
        k = space.n_soft
        self.root_precision = 2 / max_width if space.periodic else 1 / max_width
        rows, columns = torch.tril_indices(k, k)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)
        self.net = MLP(4 * n_cvs if periodic else n_cvs, k + len(rows), hidden=hidden)
        if periodic:
            # Whole numbers: nothing to learn
            self.register_buffer("axes", winding(space, n_cvs))
        else:
            self.axes = nn.Parameter(nn.init.orthogonal_(torch.empty(k, n_cvs)))

    def forward(self, eps: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Soft coordinates from noise, both ``(n, n_soft)``, and the log-determinant."""
        loc, factor = self.peak(z)
        u = torch.linalg.solve_triangular(factor.mT, eps[..., None], upper=True)[..., 0]
        log_det = -_log_diagonal(factor)
        if self.space.periodic:
            return wrap(loc + 2 * torch.atan(u)), log_det + _log_stretch(u)
        scale = self.space.soft_scale
        return self.space.soft_centre + scale * (loc + u), log_det + scale.log().sum()

    def inverse(self, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Noise of soft coordinates, and the log-determinant of the inverse."""
        loc, factor = self.peak(z)
        log_det = _log_diagonal(factor)
        if self.space.periodic:
            u = torch.tan(wrap(s - loc) / 2)
            log_det = log_det - _log_stretch(u)
        else:
            u = (s - self.space.soft_centre) / self.space.soft_scale - loc
            log_det = log_det - self.space.soft_scale.log().sum()
        return (factor.mT @ u[..., None])[..., 0], log_det

    def peak(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""Place :math:`\mu`, ``(n, n_soft)``, and factor C of the precision, lower triangular."""
        k = self.space.n_soft
        out = self.net(harmonics(z) if self.periodic else z)
        # The exponent is bounded as that of the affine couplings is: a step may not collapse it
        entries = torch.where(
            self.rows == self.columns, torch.exp(4 * torch.tanh(out[:, k:] / 4)), out[:, k:]
        )
        b = out.new_zeros(len(z), k, k)
        b[:, self.rows, self.columns] = entries
        eye = torch.eye(k, dtype=out.dtype, device=out.device)
        factor = self.root_precision * torch.linalg.cholesky(eye + b @ b.mT)
        return out[:, :k] + z @ self.axes.T, factor


def winding(space: SoftSpace, n_cvs: int) -> Tensor:
    """Which soft torsion each periodic z winds around, ``(n_soft, n_cvs)`` of zeros and ones.

    They are the first ones that are no symmetric rotors. A circle that is not wound around can be
    covered only by going back on one's way, and a network cannot learn to wind: the number of
    turns does not change along a continuous path.

    Raises:
        ValueError: If there are fewer than `n_cvs`.
    """
    folded = set(space.folded.tolist())
    free = [i for i in range(space.n_soft) if i not in folded]
    if len(free) < n_cvs:
        raise ValueError(
            f"`n_cvs` must be at most {len(free)}, the number of soft torsions that are no "
            f"symmetric rotors, got {n_cvs}"
        )
    return torch.eye(space.n_soft)[:, free[:n_cvs]]


class UnimodalFlowDecoder(ConditionalDistribution):
    r"""Decoder with one peak in the soft coordinates: `UnimodalBlock`, then the stiff block.

    .. math:: q(y|z) = q(s|z)\, q(v|s)

    The stiff coordinates v see z through s alone, so that what the encoder has to invert is
    :math:`q(s|z)`, low-dimensional.

    Args:
        coordinates: Gives the number of coordinates, which are soft, centre and scale.
        n_cvs: Number of collective variables z.
        periodic: Whether z are angles; the soft coordinates must be angles, too.
        max_width: Bound on the width of the peak, in rad or in units of the coordinates' scale.
        hidden: Hidden widths of the network of the peak.
        n_stiff_layers: Coupling layers of the stiff block.
        stiff_hidden: Hidden widths in the stiff block.
        seed: Chooses the fixed permutations.

    Raises:
        ValueError: If `n_cvs` is below 1, there are no soft coordinates or they are partly on the
            circle, `max_width` is not positive or for angles not below the square root of 2, or
            periodic z have nothing to wind around.
    """

    flow: "_UnimodalFlow"

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_cvs: int,
        periodic: bool,
        max_width: float = 1.0,
        hidden: Sequence[int] = (64, 64),
        n_stiff_layers: int = 10,
        stiff_hidden: Sequence[int] = (160, 160),
        seed: int = 0,
    ) -> None:
        super().__init__()
        space = SoftSpace(coordinates)
        if n_cvs < 1:
            raise ValueError(f"`n_cvs` must be at least 1, got {n_cvs}")
        if space.n_soft == 0:
            raise ValueError("`coordinates` must have soft coordinates for z to carry, got none")
        if periodic and not space.periodic:
            raise ValueError("`periodic` z need soft coordinates that are angles")
        if not 0 < max_width < (math.sqrt(2) if space.periodic else math.inf):
            raise ValueError(
                "`max_width` must be positive and, for angles, below 1.41 rad, where a second "
                f"peak begins, got {max_width}"
            )
        soft = UnimodalBlock(
            space, n_cvs=n_cvs, periodic=periodic, max_width=max_width, hidden=hidden
        )
        stiff = StiffBlock(
            coordinates,
            space,
            n_layers=n_stiff_layers,
            hidden=stiff_hidden,
            generator=torch.Generator().manual_seed(seed),
        )
        self.dim = coordinates.dim
        self.flow = _UnimodalFlow(soft, stiff)

    def forward(self, context: Tensor) -> TorchDistribution:
        return FlowDistribution(TorusNormal(0, self.dim, like=context), self.flow, context)


class _UnimodalFlow(Flow):  # type: ignore[misc]
    """Noise to y: soft coordinates given z, then the stiff ones given them alone."""

    soft: UnimodalBlock
    stiff: StiffBlock

    def __init__(self, soft: UnimodalBlock, stiff: StiffBlock) -> None:
        super().__init__()
        self.soft, self.stiff = soft, stiff

    def forward(self, eps: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        k = self.stiff.space.n_soft
        s, log_det = self.soft(eps[:, :k], z)
        y, log_det_stiff = self.stiff(eps[:, k:], s, z[:, :0])
        return y, log_det + log_det_stiff

    def inverse(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        s, eps_stiff, log_det_stiff = self.stiff.inverse(y, z[:, :0])
        eps, log_det = self.soft.inverse(s, z)
        return torch.cat([eps, eps_stiff], dim=-1), log_det + log_det_stiff


def _log_diagonal(factor: Tensor) -> Tensor:
    """Log-determinant of triangular matrices ``(n, k, k)``, ``(n,)``."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _log_stretch(u: Tensor) -> Tensor:
    r"""Log-determinant of :math:`u \mapsto 2 \arctan u`, ``(n,)``."""
    return (math.log(2) - torch.log1p(u.square())).sum(-1)
