"""Harmonics of single angles and products for some pairs of them: a basis for many angles."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gencg.objectives.dirichlet import Basis


class PairBasis(Basis):
    r"""Harmonics of each angle, and their products for the pairs that are coupled.

    .. math:: \{e_a(s_i)\}_{i,\; a \le n_i} \;\cup\;
              \{e_a(s_i)\, e_b(s_j)\}_{(i,j) \in P,\; a, b \le n_{ij}}, \qquad
              e \in \{\cos, \sin\}

    A product basis of k angles has :math:`(2n+1)^k` functions. A step of a molecule is nearly
    always one of one torsion or of two neighbours, so that this one, with
    :math:`2 \sum_i n_i + 4 \sum_P n_{ij}^2`, loses little and is solved in seconds for twenty
    angles. For two angles and equal orders it is `FourierBasis` in another sequence.

    Args:
        orders: Highest harmonic :math:`n_i` of each angle, ``(k,)``; 0 leaves an angle out.
        pairs: Pairs P of angles, by index.
        pair_orders: Highest harmonic :math:`n_{ij}` in the products of each pair.

    Raises:
        ValueError: If there is no function, a pair is none of two angles, or an order is negative.
    """

    def __init__(
        self,
        orders: Sequence[int],
        pairs: Sequence[tuple[int, int]] = (),
        pair_orders: Sequence[int] = (),
    ) -> None:
        self.orders = tuple(int(n) for n in orders)
        self.pairs = tuple((int(i), int(j)) for i, j in pairs)
        self.pair_orders = tuple(int(n) for n in pair_orders)
        k = len(self.orders)
        if len(self.pairs) != len(self.pair_orders):
            raise ValueError(
                f"`pair_orders` must hold one order for each of {len(self.pairs)} pairs, got "
                f"{len(self.pair_orders)}"
            )
        if min((0, *self.orders)) < 0 or min((1, *self.pair_orders)) < 1:
            raise ValueError(
                "`orders` must not be negative and `pair_orders` be 1 or more, got "
                f"{self.orders} and {self.pair_orders}"
            )
        for pair in self.pairs:
            if len(set(pair)) != 2 or not all(0 <= i < k for i in pair):
                raise ValueError(f"`pairs` must name two of {k} angles each, got {pair}")
        if len(self) == 0:
            raise ValueError(f"`orders` must leave one function at least, got {self.orders}")

    def __len__(self) -> int:
        return 2 * sum(self.orders) + 4 * sum(n * n for n in self.pair_orders)

    def __call__(self, s: Tensor) -> tuple[Tensor, Tensor]:
        s = s.double()
        n = torch.arange(1, max((*self.orders, *self.pair_orders)) + 1, dtype=s.dtype)
        phase = n * s[..., None]
        cos, sin = phase.cos(), phase.sin()  # [n, k, order]

        def harmonics(i: int, order: int) -> tuple[Tensor, Tensor]:
            c, d, m = cos[:, i, :order], sin[:, i, :order], n[:order]
            return torch.cat([c, d], 1), torch.cat([-m * d, m * c], 1)

        def columns(like: Tensor, slopes: dict[int, Tensor]) -> Tensor:
            zero = torch.zeros_like(like)
            return torch.stack([slopes.get(i, zero) for i in range(len(self.orders))], dim=-1)

        values, gradients = [], []
        for i, order in enumerate(self.orders):
            one, slope = harmonics(i, order)
            values.append(one)
            gradients.append(columns(one, {i: slope}))
        for (i, j), order in zip(self.pairs, self.pair_orders, strict=True):
            (one, slope_one), (two, slope_two) = harmonics(i, order), harmonics(j, order)
            values.append((one[:, :, None] * two[:, None]).flatten(1))
            slopes = {
                i: (slope_one[:, :, None] * two[:, None]).flatten(1),
                j: (one[:, :, None] * slope_two[:, None]).flatten(1),
            }
            gradients.append(columns(values[-1], slopes))
        return torch.cat(values, dim=1), torch.cat(gradients, dim=1)

    def columns(self, index: Sequence[int]) -> list[int]:
        """Which functions are of these angles alone."""
        within = set(index)
        out: list[int] = []
        at = 0
        for i, order in enumerate(self.orders):
            out += range(at, at + 2 * order) if i in within else ()
            at += 2 * order
        for pair, order in zip(self.pairs, self.pair_orders, strict=True):
            out += range(at, at + 4 * order**2) if set(pair) <= within else ()
            at += 4 * order**2
        return out

    def restrict(self, index: Sequence[int]) -> "PairBasis":
        """The functions of some of the angles, in their sequence."""
        place = {i: at for at, i in enumerate(index)}
        inside = [p for p, pair in enumerate(self.pairs) if set(pair) <= set(place)]
        return PairBasis(
            [max(self.orders[i], 1) for i in index],
            [(place[self.pairs[p][0]], place[self.pairs[p][1]]) for p in inside],
            [self.pair_orders[p] for p in inside],
        )

    def capped(self, order: int) -> "PairBasis":
        """The functions up to a harmonic."""
        return PairBasis(
            [min(n, order) for n in self.orders],
            self.pairs,
            [min(n, order) for n in self.pair_orders],
        )
