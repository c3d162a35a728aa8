"""The small fully connected network that conditions every layer."""

from collections.abc import Callable, Sequence
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

    def with_pullback(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""Output ``(n, n_out)``, and the function :math:`v \mapsto v^T \partial f/\partial x`.

        The function takes ``(n, n_out)`` to ``(n, n_in)``, reuses the activations of this pass, and
        builds no graph.
        """
        if self.constant:
            return self(x), lambda v: v.new_zeros(*v.shape[:-1], 0)
        inputs = []
        for layer in self.layers:
            inputs.append(x.detach())
            x = layer(x)

        def pull(v: Tensor) -> Tensor:
            for layer, before in zip(reversed(self.layers), reversed(inputs), strict=True):
                v = v @ layer.weight if isinstance(layer, nn.Linear) else _through(layer, before, v)
            return v

        return x, torch.no_grad()(pull)


def _through(activation: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """v times the slope of an activation at x."""
    if isinstance(activation, nn.SiLU):
        out: Tensor = torch.ops.aten.silu_backward(v, x)
        return out
    return pullback(activation, x, v)


def pullback(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    r""":math:`v^T \partial f/\partial x` by automatic differentiation, without a graph."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x, v)[0]


def harmonics(angle: Tensor, *, n: int = 2) -> Tensor:
    """cos and sin of the first `n` multiples, ``(*batch, d)`` to ``(*batch, 2 * n * d)``."""
    multiples = [k * angle for k in range(1, n + 1)]
    return torch.cat([f(m) for m in multiples for f in (torch.cos, torch.sin)], dim=-1)
