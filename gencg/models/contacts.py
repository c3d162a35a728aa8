"""Which atoms come near each other for given soft coordinates, as features of a network."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gencg.coordinates.base import CoordinateMap
from gencg.coordinates.internal import InternalCoordinates
from gencg.coordinates.pairs import far_pairs
from gencg.distributions.networks import MLP

LENGTH = 0.25
"""How fast a contact fades with the distance, in nm."""
N_DRAWN = 1024
"""Draws of the soft coordinates that say how each contact varies."""
LEAST_SPREAD = 1e-3
"""A contact that varies less is scaled as if it varied so much."""
SATURATES = 4.0
"""Spreads at which a contact stops growing."""


class Contacts(nn.Module):
    r"""Features of the soft coordinates s: contacts of the structure they make by themselves.

    .. math::
        c(s) = h(\{f_{ij}\}), \qquad
        f_{ij} = b \tanh\frac{e^{-d_{ij}(s)/\ell} - \mu_{ij}}{b\,\sigma_{ij}}

    with the distances d between heavy atoms and polar hydrogens four bonds apart or more when all
    stiff coordinates are those of the reference structure, :math:`\ell` = 0.25 nm, b = 4, mean and
    spread :math:`\mu, \sigma` of uniform soft coordinates, and a small network h. Atoms that trade
    places in a rotor are left out. What pushes and pulls a stiff coordinate are atoms that come
    near, and a network that sees nothing but torsions has to learn how they multiply along the
    chain. It costs a placement of the atoms and no energy.

    They are smooth but where the placement is not: at the ends of the window of a small ring's
    torsion, where the coordinate wraps and the ring does not. The reference structure is kept with
    the parameters, so that a generator stays what it is when a molecule gets another one.

    Args:
        coordinates: Of a molecule.
        n_out: Number of features.
        hidden: Hidden widths of the network.

    Raises:
        ValueError: If the molecule has no such atoms (`has_contacts`).
    """

    pairs: Tensor
    soft_index: Tensor
    middle: Tensor
    spread: Tensor
    centre: Tensor

    def __init__(
        self, coordinates: InternalCoordinates, *, n_out: int = 32, hidden: Sequence[int] = (128,)
    ) -> None:
        super().__init__()
        if not has_contacts(coordinates):
            raise ValueError(
                "`coordinates` must have soft torsions and two atoms four bonds apart, got "
                f"{coordinates!r}"
            )
        self._coordinates, self.n_out = coordinates, n_out
        pairs = torch.tensor(far_pairs(coordinates, polar=True)).T.contiguous()
        self.register_buffer("pairs", pairs, persistent=False)
        self.register_buffer("soft_index", coordinates.soft.nonzero()[:, 0], persistent=False)
        self.register_buffer("centre", coordinates.centre.clone())
        generator = torch.Generator().manual_seed(0)
        turns = torch.rand(N_DRAWN, len(self.soft_index), generator=generator, dtype=torch.float64)
        near = self._near(2 * math.pi * turns - math.pi).to(torch.get_default_dtype())
        self.register_buffer("middle", near.mean(0))
        self.register_buffer("spread", near.std(0).clamp_min(LEAST_SPREAD))
        self.net = MLP(len(pairs[0]), n_out, hidden=hidden)
        # A last layer of zeros would show the layers behind it nothing at first
        nn.init.normal_(cast(nn.Linear, self.net.layers[-1]).weight, std=0.1)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Contacts":
        """A copy that shares the coordinates."""
        memo[id(self._coordinates)] = self._coordinates
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def forward(self, s: Tensor) -> Tensor:
        """Features ``(n, n_out)`` of soft coordinates ``(n, n_soft)``."""
        out: Tensor = self.net(self.scaled(s))
        return out

    def with_pullback(self, s: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""Features, and the function :math:`v \mapsto v^T \partial c/\partial s`.

        The function takes ``(n, n_out)`` to ``(n, n_soft)`` and builds no graph. The atoms are
        placed once for both.
        """
        with torch.enable_grad():
            leaf = s.detach().requires_grad_()
            scaled = self.scaled(leaf)
        seen = _Joined.apply(s, leaf, scaled) if s.requires_grad else scaled.detach()  # type: ignore[no-untyped-call]
        out, pull = self.net.with_pullback(seen)

        def pulled(v: Tensor) -> Tensor:
            return torch.autograd.grad(scaled, leaf, pull(v), retain_graph=True)[0]

        return out, pulled

    def scaled(self, s: Tensor) -> Tensor:
        """What the network sees, f of each pair, ``(n, n_pairs)``."""
        near = (self._near(s) - self.middle) / (SATURATES * self.spread)
        return SATURATES * torch.tanh(near)

    def _near(self, s: Tensor) -> Tensor:
        y = self.centre.to(s).expand(len(s), -1).index_copy(1, self.soft_index, s)
        # Laid out with the batch last, as the map makes it
        x = self._coordinates.inverse(y)[0].permute(2, 1, 0)
        i, j = self.pairs
        squared = (x.index_select(1, i) - x.index_select(1, j)).square().sum(0)
        # Atoms on top of each other keep a gradient
        return torch.exp(-(squared + 1e-6).sqrt() / LENGTH).T


class _Joined(torch.autograd.Function):
    """A value found from a detached copy of x, as a function of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, leaf: Tensor, value: Tensor) -> Tensor:
        ctx.leaf, ctx.value = leaf, value
        return value.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        of_x = torch.autograd.grad(ctx.value, ctx.leaf, v, retain_graph=True)[0]
        return of_x, None, None


def has_contacts(coordinates: CoordinateMap) -> bool:
    """Whether they are a molecule's, with soft torsions and atoms far enough apart by bonds."""
    if not isinstance(coordinates, InternalCoordinates) or not coordinates.soft.any():
        return False
    return len(far_pairs(coordinates, polar=True)) > 0
