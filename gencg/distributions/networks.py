"""The small fully connected network that conditions every layer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

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

    @property
    def hidden_weights(self) -> list[Tensor]:
        """Weights of all layers but the last."""
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        return [layer.weight for layer in linear[:-1]]

    def forward(self, x: Tensor) -> Tensor:
        if self.constant:
            x = x.new_ones((*x.shape[:-1], 1))
        out: Tensor = self.layers(x)
        return out

    def with_pullback(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        r"""Output ``(n, n_out)``, and the function :math:`v \mapsto v^T \partial f/\partial x`.

        The function takes ``(n, n_out)`` to ``(n, n_in)``, shares the slopes of the activations
        with the backward pass of the output, and builds no graph.
        """
        if self.constant:
            return self(x), lambda v: v.new_zeros(*v.shape[:-1], 0)
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        activations = [layer for layer in self.layers if not isinstance(layer, nn.Linear)]
        return with_pullback(
            x, activations, [layer.weight for layer in linear], [layer.bias for layer in linear]
        )


def with_pullback(
    x: Tensor, activations: Sequence[nn.Module], weights: list[Tensor], biases: list[Tensor]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """`MLP.with_pullback` of linear layers given by their parameters.

    Args:
        x: Inputs, ``(n, n_in)``.
        activations: Between the layers, one less than these.
        weights: Of each layer, ``(n_after, n_before)``.
        biases: Of each layer, ``(n_after,)``.
    """
    slopes: list[Tensor] = []
    dtype = _products.get() or x.dtype
    parameters = [p for layer in zip(weights, biases, strict=True) for p in layer]
    # Rounded once for the three passes
    rounded = [weight.detach().to(dtype) for weight in weights]
    out: Tensor = _Pass.apply(x, activations, rounded, slopes, *parameters)  # type: ignore[no-untyped-call]

    def pull(v: Tensor) -> Tensor:
        v = v.to(dtype)
        for weight, slope in zip(rounded[:0:-1], reversed(slopes), strict=True):
            v = (v @ weight).mul_(slope)
        return (v @ rounded[0]).to(x.dtype)

    return out, torch.no_grad()(pull)


_products: ContextVar[torch.dtype | None] = ContextVar("products", default=None)


@contextmanager
def products_in(dtype: torch.dtype | None) -> Iterator[None]:
    """Compute the matrix products of `with_pullback`, and their gradients, in this dtype.

    Those of `Autoregressive` layers too, in the same way there and back.
    """
    token = _products.set(dtype)
    try:
        yield
    finally:
        _products.reset(token)


def rounds() -> bool:
    """Whether matrix products are computed in a dtype of their own; see `products_in`."""
    return _products.get() is not None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older versions of torch do not tell
    tell = getattr(torch.cpu, "get_capabilities", dict)
    able: dict[str, Any] = tell() if device.type == "cpu" else {}
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class _Pass(torch.autograd.Function):
    """Linear layers and activations whose slopes are computed once, in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        activations: list[nn.Module],
        weights: list[Tensor],
        slopes: list[Tensor],
        *parameters: Tensor,
    ) -> Tensor:
        ctx.dtype, dtype = x.dtype, weights[0].dtype
        x = x.to(dtype)
        inputs, biases = [x], [bias.to(dtype) for bias in parameters[1::2]]
        for activation, weight, bias in zip(activations, weights, biases, strict=False):
            x, slope = _value_and_slope(activation, torch.addmm(bias, x, weight.T))
            inputs.append(x)
            slopes.append(slope)
        ctx.n = len(inputs)
        ctx.save_for_backward(*inputs, *slopes, *weights)
        return torch.addmm(biases[-1], x, weights[-1].T).to(ctx.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        inputs, slopes, weights = saved[: ctx.n], saved[ctx.n : 2 * ctx.n - 1], saved[-ctx.n :]
        gradients: list[Tensor] = []
        of_bias = v.sum(0)
        v = v.to(inputs[0].dtype)
        for k in reversed(range(ctx.n)):
            gradients += [of_bias, (v.T @ inputs[k]).to(ctx.dtype)]
            if k:
                v = (v @ weights[k]).mul_(slopes[k - 1])
                of_bias = v.sum(0, dtype=ctx.dtype)
        of_x = (v @ weights[0]).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return of_x, None, None, None, *reversed(gradients)


def _value_and_slope(activation: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """An activation and its derivative."""
    if isinstance(activation, nn.SiLU):
        share = torch.sigmoid(x)
        value = x.mul_(share)
        # s + x s (1 - s)
        return value, torch.addcmul(share, value, share, value=-1).add_(value)
    return activation(x), pullback(activation, x, torch.ones_like(x))


def pullback(function: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    r""":math:`v^T \partial f/\partial x` by automatic differentiation, without a graph."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x, v)[0]


def harmonics(angle: Tensor, *, n: int = 2) -> Tensor:
    """cos and sin of the first `n` multiples, ``(*batch, d)`` to ``(*batch, 2 * n * d)``."""
    multiples = [k * angle for k in range(1, n + 1)]
    return torch.cat([f(m) for m in multiples for f in (torch.cos, torch.sin)], dim=-1)


def pull_harmonics(features: Tensor, v: Tensor, *, n: int = 2) -> Tensor:
    r""":math:`v^T \partial\,\mathrm{harmonics} / \partial\,\mathrm{angle}`, from the harmonics.

    Args:
        features: What `harmonics` gave, ``(n_rows, 2 * n * d)``.
        v: Of the same shape.
        n: Number of multiples.
    """
    shape = len(features), n, 2, features.shape[1] // (2 * n)
    cosines, sines = features.view(shape).unbind(2)
    of_cosines, of_sines = v.reshape(shape).unbind(2)
    slopes = torch.addcmul(cosines * of_sines, sines, of_cosines, value=-1)
    multiples = torch.arange(1, n + 1, dtype=v.dtype, device=v.device)
    return torch.einsum("rkd,k->rd", slopes, multiples)
