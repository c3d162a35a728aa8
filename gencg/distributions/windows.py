"""One small network per window of a chain, all of them evaluated as one batched product."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from gencg.distributions.networks import _products, _value_and_slope


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
        # V and U, beside each other for all windows
        self.summary = nn.ParameterList()
        if n_summary:
            self.summary.append(_uniform(n_summary, n_windows * widths[1]))
            self.summary.append(_uniform(n_windows * widths[2], n_summary))
            if len(hidden) == 1:
                nn.init.zeros_(self.summary[1])

    @property
    def hidden_weights(self) -> list[Tensor]:
        """Weights of all layers but the last, a matrix for each window."""
        return list(self.weights)[:-1]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(n_windows, n_out, n)`` of inputs ``(n_windows, n_in, n)``."""
        return _through(x, list(self.weights), list(self.biases), list(self.summary))

    def with_pullback(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""As forward, and the function :math:`v \mapsto v^T \partial h / \partial x`.

        The function takes ``(n_windows, n_out, n)`` to ``(n_windows, n_in, n)``, shares the
        slopes of the activations with the backward pass of the output, and builds no graph. As
        for `MLP`, `products_in` chooses the dtype of the products.
        """
        return _with_pullback(x, list(self.weights), list(self.biases), list(self.summary))


def rounded_windows(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    """As `WindowMLP.forward` with these parameters, products in the dtype of `products_in`.

    Args:
        x: Inputs, ``(n_windows, n_in, n)``.
        weights: Of each layer, ``(n_windows, n_after, n_before)``.
        biases: Of each layer, ``(n_windows, n_after, 1)``.

    Returns:
        Outputs ``(n_windows, n_out, n)``, in the dtype of x.
    """
    dtype = _products.get()
    if dtype is None:
        return _through(x, weights, biases, [])
    if torch.is_grad_enabled():
        return _with_pullback(x, weights, biases, [])[0]
    out = x.to(dtype)
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        # Rounded as `_value_and_slope` does
        out = out * torch.sigmoid(out) if k else out
        out = _layer(k, out, weight.to(dtype), bias.to(dtype), [])
    return out.to(x.dtype)


def _through(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], summary: list[Tensor]
) -> Tensor:
    """`WindowMLP.forward` with these parameters."""
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = _layer(k, silu(x) if k else x, weight, bias, summary)
    return x


def _with_pullback(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], summary: list[Tensor]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`WindowMLP.with_pullback` with these parameters."""
    dtype = _products.get() or x.dtype
    rounded = [p.detach().to(dtype) for p in (*weights, *summary)]
    matrices, spread = rounded[: len(weights)], rounded[len(weights) :]
    slopes: list[Tensor] = []
    out: Tensor = _Pass.apply(x, matrices, spread, slopes, *weights, *biases, *summary)  # type: ignore[no-untyped-call]

    def pull(v: Tensor) -> Tensor:
        v = v.to(dtype)
        for k in reversed(range(1, len(matrices))):
            v = _pulled(k, v, matrices, spread).mul_(slopes[k - 1])
        return _pulled(0, v, matrices, spread).to(x.dtype)

    return out, torch.no_grad()(pull)


class _Pass(torch.autograd.Function):
    """All windows' layers, their slopes computed once in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: list[Tensor],
        summary: list[Tensor],
        slopes: list[Tensor],
        *parameters: Tensor,
    ) -> Tensor:
        ctx.dtype, dtype = x.dtype, weights[0].dtype
        ctx.n = n = len(weights)
        biases = [bias.to(dtype) for bias in parameters[n : 2 * n]]
        x = x.to(dtype)
        inputs = [x]
        for k in range(n - 1):
            out = _layer(k, x, weights[k], biases[k], summary)
            x, slope = _value_and_slope(_SILU, out)
            inputs.append(x)
            slopes.append(slope)
        ctx.save_for_backward(*inputs, *slopes, *weights, *summary)
        return _layer(n - 1, x, weights[-1], biases[-1], summary).to(ctx.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        n, saved = ctx.n, list(ctx.saved_tensors)
        inputs, slopes, weights = saved[:n], saved[n : 2 * n - 1], saved[2 * n - 1 : 3 * n - 1]
        summary = saved[3 * n - 1 :]
        of_weights, of_biases, of_summary = [], [], []
        of_biases.append(v.sum(-1, keepdim=True))
        v = v.to(inputs[0].dtype)
        for k in reversed(range(n)):
            of_weights.append(torch.bmm(v, inputs[k].mT).to(ctx.dtype))
            if k == 1 and summary:
                collect, spread = summary
                flat, before = v.flatten(0, 1), inputs[1].flatten(0, 1)
                of_t = spread.T @ flat
                of_summary = [of_t @ before.T, flat @ (collect @ before).T]
            if k:
                v = _pulled(k, v, weights, summary).mul_(slopes[k - 1])
                of_biases.append(v.sum(-1, keepdim=True, dtype=ctx.dtype))
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _pulled(0, v, weights, summary).to(ctx.dtype)
        of_summary = [of.to(ctx.dtype) for of in of_summary]
        return of_x, None, None, None, *of_weights[::-1], *of_biases[::-1], *of_summary


def _layer(k: int, x: Tensor, weight: Tensor, bias: Tensor, summary: list[Tensor]) -> Tensor:
    """Layer k of all windows; the second also reads the summary of its input."""
    if k == 1 and summary:
        collect, spread = summary
        start = torch.addmm(bias.view(-1, 1), spread, collect @ x.flatten(0, 1))
        bias = start.view(*bias.shape[:2], -1)
    return torch.baddbmm(bias, weight, x)


def _pulled(k: int, v: Tensor, weights: list[Tensor], summary: list[Tensor]) -> Tensor:
    """The transpose of `_layer`."""
    weight = weights[k].mT
    if k == 1 and summary:
        collect, spread = summary
        start = collect.T @ (spread.T @ v.flatten(0, 1))
        return torch.baddbmm(start.view(*weight.shape[:2], -1), weight, v)
    return torch.bmm(weight, v)


_SILU = nn.SiLU()


def _uniform(*shape: int, fan_in: int | None = None) -> Tensor:
    """The start of `torch.nn.Linear`."""
    bound = 1 / math.sqrt(max(shape[-1] if fan_in is None else fan_in, 1))
    return torch.empty(shape).uniform_(-bound, bound)
