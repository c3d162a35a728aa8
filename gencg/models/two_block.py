"""The two blocks of a molecule's flow: soft coordinates, and everything stiff given them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from normflows.flows import Flow
from torch import Tensor, nn

from gencg.coordinates.base import CoordinateMap
from gencg.distributions.autoregressive import Autoregressive
from gencg.distributions.couplings import (
    Affine,
    CircularSpline,
    ConditionalAffine,
    Coupling,
    LineSpline,
    Rotation,
    Transform,
    UnitTriangular,
)
from gencg.distributions.flow import Chain
from gencg.distributions.networks import pullback
from gencg.models.chain_order import chain_positions
from gencg.models.contacts import Contacts
from gencg.models.locality import Locality

Change = Callable[[Tensor], Tensor]
_at_seam: ContextVar[Change | None] = ContextVar("at_seam", default=None)


@contextmanager
def gradients_at_seam(change: Change) -> Iterator[None]:
    """Have gradients changed where they pass from the stiff block into the soft one.

    For the flows that are called inside. All of the gradient by soft coordinates ``(n, n_soft)``
    passes there, that of y itself and that through the stiff block.

    Args:
        change: Called with the gradient on its way back.
    """
    token = _at_seam.set(change)
    try:
        yield
    finally:
        _at_seam.reset(token)


class SoftSpace(nn.Module):
    """What the blocks share: which coordinates are soft, their topology, centre and scale.

    Args:
        coordinates: Gives the number of coordinates, which are soft, centre, scale and fold.

    Raises:
        ValueError: If soft coordinates are partly on the circle and partly on the line.
    """

    soft_index: Tensor
    stiff_index: Tensor
    order: Tensor
    soft_centre: Tensor
    soft_scale: Tensor
    folded: Tensor
    fold: Tensor

    def __init__(self, coordinates: CoordinateMap) -> None:
        super().__init__()
        soft = coordinates.soft.nonzero()[:, 0]
        stiff = (~coordinates.soft).nonzero()[:, 0]
        periodic = coordinates.periodic[soft]
        if periodic.any() and not periodic.all():
            raise ValueError(
                "soft coordinates must be all periodic or all on the line, got a mixture: "
                f"{periodic.tolist()}"
            )
        self.n_soft, self.n_stiff = len(soft), len(stiff)
        self.periodic = bool(periodic.any())
        self.register_buffer("soft_index", soft)
        self.register_buffer("stiff_index", stiff)
        self.register_buffer("order", torch.argsort(torch.cat([soft, stiff])))
        one, zero = torch.ones(self.n_soft), torch.zeros(self.n_soft)
        centre = zero if self.periodic else coordinates.centre[soft].float()
        scale = one if self.periodic else coordinates.scale[soft].float()
        self.register_buffer("soft_centre", centre)
        self.register_buffer("soft_scale", scale)
        fold = coordinates.fold[soft]
        self.register_buffer("folded", (fold > 1).nonzero()[:, 0])
        self.register_buffer("fold", fold[fold > 1])
        position = chain_positions(coordinates)
        self.soft_position, self.stiff_position = position[soft], position[stiff]

    def features(self, s: Tensor) -> Tensor:
        """What a network may see of soft coordinates ``(n, n_soft)``.

        Two harmonics of angles; for a folded rotor also the unfolded angle, because the stiff
        coordinates of its atoms trade places where the phase wraps.
        """
        if not self.periodic:
            return (s - self.soft_centre) / self.soft_scale
        turned = s[:, self.folded] / self.fold
        angles = [s.cos(), s.sin(), (2 * s).cos(), (2 * s).sin(), turned.cos(), turned.sin()]
        return torch.cat(angles, dim=-1)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return 4 * self.n_soft + 2 * len(self.fold) if self.periodic else self.n_soft

    @property
    def feature_position(self) -> Tensor:
        """Place of each feature along the molecule, ``(n_features,)``."""
        if not self.periodic:
            return self.soft_position
        turned = self.soft_position[self.folded.cpu()]
        return torch.cat([self.soft_position] * 4 + [turned] * 2)


class SoftBlock(nn.Module):
    r"""Flow :math:`q(s|c)` of the soft coordinates, from the uniform torus or a normal.

    Spline couplings, unless another `chain` is given.
    """

    def __init__(
        self,
        space: SoftSpace,
        *,
        n_context: int = 0,
        n_layers: int = 6,
        n_bins: int = 12,
        hidden: Sequence[int] = (64, 64),
        locality: Locality | None = None,
        chain: Chain | None = None,
    ) -> None:
        super().__init__()
        self.periodic, self.n_soft = space.periodic, space.n_soft
        self.register_buffer("centre", space.soft_centre.clone())
        self.register_buffer("scale", space.soft_scale.clone())
        self.chain = chain or Chain(
            spline_layers(
                space.n_soft,
                periodic=space.periodic,
                n_layers=n_layers,
                n_bins=n_bins,
                n_context=n_context,
                hidden=hidden,
                position=space.soft_position,
                locality=locality,
            )
        )

    centre: Tensor
    scale: Tensor

    def forward(self, eps: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        s, log_det = self.chain(eps, context)
        return s * self.scale + self.centre, log_det + self.scale.log().sum()

    def inverse(self, s: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        eps, log_det = self.chain.inverse((s - self.centre) / self.scale, context)
        return eps, log_det - self.scale.log().sum()

    def forward_with_score(
        self, eps: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        s, log_det, score, of_context = self.chain.forward_with_score(eps, context, score)
        log_det = log_det + self.scale.log().sum()
        return s * self.scale + self.centre, log_det, score / self.scale, of_context

    def log_base(self, eps: Tensor) -> Tensor:
        """Log-density of the base, ``(n,)``."""
        return log_uniform(eps) if self.periodic else log_normal(eps)

    def log_prob(self, s: Tensor, context: Tensor) -> Tensor:
        """Log-density of soft coordinates ``(n, n_soft)``."""
        eps, log_det = self.inverse(s, context)
        return self.log_base(eps) + log_det


class StiffBlock(nn.Module):
    r"""Flow :math:`q(v|s, c)` of the stiff coordinates around the reference structure.

    Affine coupling layers, one triangular matrix, and a shift and scale chosen by the soft
    coordinates, unless another `chain` is given. With `contacts` all networks see which atoms the
    soft coordinates bring near each other; the block must then be one window, and the chain its
    own.
    """

    space: SoftSpace
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        coordinates: CoordinateMap,
        space: SoftSpace,
        *,
        n_context: int = 0,
        n_layers: int = 10,
        hidden: Sequence[int] = (160, 160),
        locality: Locality | None = None,
        chain: Chain | None = None,
        contacts: Contacts | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.space, self.contacts = space, contacts
        self.register_buffer("centre", coordinates.centre[space.stiff_index].float())
        self.register_buffer("scale", coordinates.scale[space.stiff_index].float())
        n_windows = 1 if locality is None else locality.n_stiff_windows(space.n_stiff)
        if contacts is not None and (n_windows > 1 or chain is not None):
            raise ValueError(
                "`contacts` are for layers of the block's own in one window, got "
                f"{'a `chain`' if n_windows == 1 else f'{n_windows} windows'}; leave them out"
            )
        if chain is not None:
            self.chain = chain
            return
        n, halves = space.n_stiff, _halves(space.n_stiff, n_layers, generator)
        if locality is not None and n_windows > 1:
            layers = locality.stiff_layers(
                halves,
                position=space.stiff_position,
                feature_position=space.feature_position,
                n_context=n_context,
            )
        else:
            layers = _stiff_layers(n, halves, self.n_inputs + n_context, hidden)
        self.chain = Chain(layers)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse the parameters of other windows or widths, or of other inputs, in words."""
        theirs = any(name.startswith(f"{prefix}contacts.") for name in state_dict)
        if theirs != (self.contacts is not None):
            raise ValueError(
                f"the parameters are those of a stiff block {'with' if theirs else 'without'} "
                f"contacts; build it with contacts={theirs}"
            )
        for name, parameter in self.named_parameters():
            given = state_dict.get(prefix + name)
            if given is None or given.shape != parameter.shape:
                raise ValueError(
                    "the parameters are those of a stiff block of other windows or widths; before "
                    "there were windows, every molecule had what `locality=None` gives"
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def n_inputs(self) -> int:
        """Number of what the layers see of the soft coordinates."""
        return self.space.n_features + (0 if self.contacts is None else self.contacts.n_out)

    def inputs(self, s: Tensor, context: Tensor) -> Tensor:
        """What the layers see of soft coordinates ``(n, n_soft)``, and the context behind it."""
        near = [] if self.contacts is None else [self.contacts(s)]
        return torch.cat([self.space.features(s), *near, context], dim=-1)

    def inputs_with_pullback(
        self, s: Tensor, context: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""As `inputs`, and the function :math:`v \mapsto v^T \partial/\partial s`."""
        features, parts = self.space.features(s), []
        if self.contacts is not None:
            near, pull_near = self.contacts.with_pullback(s)
            parts.append(near)
        n = features.shape[-1]

        def pull(v: Tensor) -> Tensor:
            of_soft = pullback(self.space.features, s, v[:, :n])
            return of_soft + pull_near(v[:, n : self.n_inputs]) if parts else of_soft

        return torch.cat([features, *parts, context], dim=-1), pull

    def forward(self, eps: Tensor, s: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """All coordinates y from noise and soft coordinates, and the log-determinant."""
        v, log_det = self.chain(eps, self.inputs(s, context))
        y = torch.cat([s, v * self.scale + self.centre], dim=-1)[:, self.space.order]
        return y, log_det + self.scale.log().sum()

    def forward_with_score(
        self, eps: Tensor, s: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        r"""As forward, with the gradients of the log-density; see `Scored`.

        Returns:
            y, the log-determinant, :math:`\nabla_v \log q`, and what the block adds to the
            gradients by soft coordinates and by the context.
        """
        inputs, pull = self.inputs_with_pullback(s, context)
        v, log_det, score, added = self.chain.forward_with_score(eps, inputs, score)
        y = torch.cat([s, v * self.scale + self.centre], dim=-1)[:, self.space.order]
        log_det = log_det + self.scale.log().sum()
        return y, log_det, score / self.scale, pull(added), added[:, self.n_inputs :]

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Soft coordinates and noise of the stiff ones, and the log-determinant of the inverse."""
        s, v = y[:, self.space.soft_index], y[:, self.space.stiff_index]
        eps, log_det = self.chain.inverse((v - self.centre) / self.scale, self.inputs(s, context))
        return s, eps, log_det - self.scale.log().sum()


class TwoBlockFlow(Flow):  # type: ignore[misc]
    r"""Map of :math:`(\epsilon_s, \epsilon_v)` to y: soft block, then stiff block given it."""

    soft: SoftBlock
    stiff: StiffBlock

    def __init__(self, soft: SoftBlock, stiff: StiffBlock) -> None:
        super().__init__()
        self.soft, self.stiff = soft, stiff
        space = stiff.space
        self.n_angles = space.n_soft if space.periodic else 0
        self.n_normal = space.n_soft + space.n_stiff - self.n_angles

    def forward(self, eps: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        n_soft = self.stiff.space.n_soft
        s, log_det_soft = self.soft(eps[:, :n_soft], z)
        s = _passing(s)
        y, log_det_stiff = self.stiff(eps[:, n_soft:], s, z)
        return y, log_det_soft + log_det_stiff

    def forward_with_score(
        self, eps: Tensor, z: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        n, order = self.stiff.space.n_soft, self.stiff.space.order
        s, log_det, of_soft, of_z = self.soft.forward_with_score(eps[:, :n], z, score[:, :n])
        y, log_det_stiff, of_stiff, added_soft, added_z = self.stiff.forward_with_score(
            eps[:, n:], _passing(s), z, score[:, n:]
        )
        score = torch.cat([of_soft + added_soft, of_stiff], dim=-1)[:, order]
        return y, log_det + log_det_stiff, score, of_z + added_z

    def inverse(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        s, eps_v, log_det_stiff = self.stiff.inverse(y, z)
        eps_s, log_det_soft = self.soft.inverse(s, z)
        return torch.cat([eps_s, eps_v], dim=-1), log_det_soft + log_det_stiff


def _passing(s: Tensor) -> Tensor:
    """Soft coordinates on their way into the stiff block; see `gradients_at_seam`."""
    change = _at_seam.get()
    if change is None or not s.requires_grad:
        return s
    passed = s.view_as(s)
    passed.register_hook(change)  # type: ignore[no-untyped-call]
    return passed


def autoregressive_layers(
    position: Tensor,
    *,
    periodic: bool,
    n_passes: int,
    n_bins: int,
    n_context: int,
    hidden: Sequence[int],
) -> list[Flow]:
    r"""Splines that move one entry after the other along the chain, each by those before it.

    .. math:: q(s) = \prod_k q(s_k \mid s_{<k})

    in each pass, with rotations between passes on the torus. A density with many peaks is hard for
    `spline_layers`, which have to tear the torus apart in all directions at once and leave
    threads behind; here each factor has peaks on one circle alone.

    Args:
        position: Place of each entry along the chain, ``(dim,)``.
        periodic: Whether entries are angles.
        n_passes: How often each moves.
        n_bins: Bins of each spline.
        n_context: Number of context features that every network sees.
        hidden: Hidden widths of each network.

    Raises:
        ValueError: If there are less than two entries, or `hidden` is empty.

    References:
        | Normalizing flows on tori and spheres (Rezende et al., 2020),
          https://arxiv.org/abs/2002.02428
    """
    transform: Transform = CircularSpline(n_bins=n_bins) if periodic else LineSpline(n_bins=n_bins)
    layers: list[Flow] = []
    for k in range(n_passes):
        layers.append(Autoregressive(transform, position, n_context=n_context, hidden=hidden))
        if periodic and k + 1 < n_passes:
            layers.append(_golden(len(position)))
    return layers


def _golden(dim: int) -> Rotation:
    """The golden angle, which never brings a seam back to where it was."""
    return Rotation(torch.full((dim,), math.pi * (3 - math.sqrt(5))))


def spline_layers(
    dim: int,
    *,
    periodic: bool,
    n_layers: int,
    n_bins: int,
    n_context: int,
    hidden: Sequence[int],
    position: Tensor | None = None,
    locality: Locality | None = None,
) -> list[Flow]:
    """Spline couplings that move half of the entries in turn; rotations between on the torus.

    With `locality` and more than one window of entries at `position`, every other entry along the
    chain moves, by what is near it and the whole context.
    """
    if dim == 0:
        return []
    transform: Transform = CircularSpline(n_bins=n_bins) if periodic else LineSpline(n_bins=n_bins)
    place, local = torch.arange(dim), None
    if locality is not None and position is not None and locality.n_soft_windows(dim) > 1:
        place, local = torch.argsort(torch.argsort(position, stable=True)), locality
    layers: list[Flow] = []
    for k in range(n_layers):
        moved = (place + k) % 2 == 0 if dim > 1 else torch.ones(1, dtype=torch.bool)
        if local is None or position is None:
            layers.append(Coupling(transform, moved, n_context=n_context, hidden=hidden))
        else:
            layers.append(
                local.soft_coupling(
                    transform, moved, position=position, n_context=n_context, hidden=hidden
                )
            )
        if periodic and k + 1 < n_layers:
            layers.append(_golden(dim))
    return layers


def log_normal(eps: Tensor) -> Tensor:
    """Log-density of the standard normal, summed over the last axis."""
    return -0.5 * eps.square().sum(-1) - 0.5 * eps.shape[-1] * math.log(2 * math.pi)


def log_uniform(angles: Tensor) -> Tensor:
    """Log-density of the uniform distribution on the torus, ``(*batch,)``."""
    return angles.new_full(angles.shape[:-1], -angles.shape[-1] * math.log(2 * math.pi))


def _halves(dim: int, n_layers: int, generator: torch.Generator | None) -> list[Tensor]:
    """Which entries each layer moves: a random half, then the other, and again."""
    halves: list[Tensor] = []
    for k in range(n_layers):
        if k % 2 == 0:
            moved = torch.zeros(dim, dtype=torch.bool)
            moved[torch.randperm(dim, generator=generator)[: dim // 2]] = True
        else:
            moved = ~halves[-1]
        halves.append(moved)
    return halves


def _stiff_layers(
    dim: int, halves: Sequence[Tensor], n_context: int, hidden: Sequence[int]
) -> list[Flow]:
    if dim == 0:
        return []
    layers: list[Flow] = [
        Coupling(Affine(), moved, n_context=n_context, hidden=hidden)
        for moved in halves
        if moved.any()
    ]
    layers.append(UnitTriangular(dim))
    layers.append(ConditionalAffine(dim, n_context=n_context, hidden=hidden))
    return layers
