"""One small network per window of a chain, all of them evaluated as one batched product."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class WindowMLP(nn.Module):
    r"""W fully connected networks side by side, and a summary that all of them read.

    .. math:: a_w = \phi(A_w x_w), \qquad t = \sum_w V_w a_w, \qquad
              h_w = C_w\, \phi(B_w a_w + U_w t)

    with biases; :math:`\phi` is SiLU. The summary t has a fixed small number of entries, so that
    parameters and time grow linearly with W, and yet no window is deaf to a far one. The last
    layer starts at zero, so that a flow starts as identity.

    Variables come first and the batch last: a product for all windows is one ``torch.baddbmm``,
    and choosing what a window sees copies whole rows.

    Args:
        n_windows: Number W of windows.
        n_in: Inputs of each.
        n_out: Outputs of each.
        hidden: Hidden widths of each, at least one.
        n_summary: Entries of the summary t, may be zero.

    Raises:
        ValueError: If `hidden` is empty.
    """

    collect: nn.Parameter | None
    spread: nn.Parameter | None

    def __init__(
        self, n_windows: int, n_in: int, n_out: int, *, hidden: Sequence[int], n_summary: int = 0
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("`hidden` must name at least one width, got none")
        widths = [n_in, *hidden, n_out]
        self.weights = nn.ParameterList(_uniform(n_windows, b, a) for a, b in pairwise(widths))
        self.biases = nn.ParameterList(
            _uniform(n_windows, b, 1, fan_in=a) for a, b in pairwise(widths)
        )
        nn.init.zeros_(self.weights[-1])
        nn.init.zeros_(self.biases[-1])
        self.collect = self.spread = None
        if n_summary:
            self.collect = nn.Parameter(_uniform(n_summary, n_windows * widths[1]))
            self.spread = nn.Parameter(_uniform(n_windows * widths[2], n_summary))
            if len(hidden) == 1:
                nn.init.zeros_(self.spread)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(n_windows, n_out, n)`` of inputs ``(n_windows, n_in, n)``."""
        return self._run(x)[0]

    def with_pullback(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""As forward, and the function :math:`v \mapsto v^T \partial h / \partial x`.

        The function takes ``(n_windows, n_out, n)`` to ``(n_windows, n_in, n)``, reuses the
        activations of this pass, and builds no graph.
        """
        out, inner = self._run(x)

        def pull(v: Tensor) -> Tensor:
            for k in reversed(range(len(self.weights))):
                if k + 1 < len(self.weights):
                    v = torch.ops.aten.silu_backward(v, inner[k])
                back = torch.bmm(self.weights[k].mT, v)
                if k == 1 and self.collect is not None and self.spread is not None:
                    summed = self.collect.T @ (self.spread.T @ v.flatten(0, 1))
                    back = back + summed.view_as(back)
                v = back
            return v

        return out, torch.no_grad()(pull)

    def _run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs, and what went into each activation, without its graph."""
        inner = []
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(bias, weight, x)
            if k == 1 and self.collect is not None and self.spread is not None:
                summary = self.spread @ (self.collect @ x.flatten(0, 1))
                out = out + summary.view_as(out)
            if k + 1 < len(self.weights):
                inner.append(out.detach())
                x = silu(out)
        return out, inner


def _uniform(*shape: int, fan_in: int | None = None) -> Tensor:
    """The start of `torch.nn.Linear`."""
    bound = 1 / math.sqrt(max(shape[-1] if fan_in is None else fan_in, 1))
    return torch.empty(shape).uniform_(-bound, bound)
