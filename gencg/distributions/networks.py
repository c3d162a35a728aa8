"""The small fully connected network that conditions every layer."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Fully connected network whose last layer starts at zero, so that a flow starts as identity.

    A network without inputs is a learned constant.

    Args:
        n_in: Number of inputs, may be zero.
        n_out: Number of outputs.
        hidden: Width of each hidden layer.
        activation: Nonlinearity between layers.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        widths = [max(n_in, 1), *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        last = nn.Linear(widths[-1], n_out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)
        self.constant = n_in == 0

    def forward(self, x: Tensor) -> Tensor:
        if self.constant:
            x = x.new_ones((*x.shape[:-1], 1))
        out: Tensor = self.layers(x)
        return out


def harmonics(angle: Tensor, *, n: int = 2) -> Tensor:
    """cos and sin of the first `n` multiples, ``(*batch, d)`` to ``(*batch, 2 * n * d)``."""
    multiples = [k * angle for k in range(1, n + 1)]
    return torch.cat([f(m) for m in multiples for f in (torch.cos, torch.sin)], dim=-1)
