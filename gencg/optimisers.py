"""Muon for the hidden layers of the networks, Adam for everything else, as one optimiser."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from gencg.distributions.networks import multiplies_bfloat16

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration: steepest at zero, singular values end near one."""
N_ITERATIONS = 5


class MuonAdam(torch.optim.Optimizer):
    r"""Steps of equal length in all singular directions of a hidden layer's weights.

    With the gradient G of a weight matrix W, ``(rows, columns)``, and its momentum M,

    .. math:: M \leftarrow \mu M + (1 - \mu) G, \qquad
              W \leftarrow W - 0.2\, \eta \sqrt{\max(\mathrm{rows}, \mathrm{columns})}\,
              \mathrm{orth}\left(\mu M + (1 - \mu) G\right)

    where orth(U) has the singular vectors of U and singular values near one, by Newton-Schulz
    iteration; the factor gives the step the root mean square of one of Adam's. A gradient of a
    network that conditions a flow is nearly of low rank, and Adam hardly moves along the rest.

    Args:
        model: Module whose parameters are moved. The weights of all layers but the last of its
            `MLP` networks go with Muon, all other parameters with Adam.
        lr: Learning rate of both.
        momentum: Momentum :math:`\mu`.
        betas: Decay rates of Adam's moments.
        eps: Adam's addition to the root of the second moment.

    References:
        | Muon: an optimizer for hidden layers in neural networks (Jordan et al., 2024),
          https://kellerjordan.github.io/posts/muon/
        | Muon is scalable for LLM training (Liu et al., 2025), https://arxiv.org/abs/2502.16982
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        matrices = hidden_weights(model)
        own = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in own]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "rule": "muon", "fused": True},
            {"params": others, "rule": "adam", "fused": True},
        ]
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        if closure is not None:
            raise ValueError("`closure` must be None: gradients are computed before the step")
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                (self._muon if group["rule"] == "muon" else self._adam)(group, moved)

    def _muon(self, group: dict[str, Any], moved: list[Tensor]) -> None:
        gradients = [p.grad for p in moved if p.grad is not None]
        buffers = [self._buffer(p, "momentum") for p in moved]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        # One step ahead of the momentum (Nesterov)
        ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])
        for indices in _alike(moved):
            steps = orthogonalised(torch.stack([ahead[i] for i in indices]))
            length = 0.2 * group["lr"] * math.sqrt(max(steps.shape[-2:]))
            for i, step in zip(indices, steps, strict=True):
                moved[i].add_(step, alpha=-length)

    def _adam(self, group: dict[str, Any], moved: list[Tensor]) -> None:
        steps = [
            self._buffer(p, "step", like=torch.zeros((), dtype=torch.float32, device=p.device))
            for p in moved
        ]
        adam(
            moved,
            [p.grad for p in moved],  # type: ignore[misc]
            [self._buffer(p, "mean") for p in moved],
            [self._buffer(p, "square") for p in moved],
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def _buffer(self, p: Tensor, name: str, *, like: Tensor | None = None) -> Tensor:
        state = self.state[p]
        if name not in state:
            state[name] = torch.zeros_like(p if like is None else like)
        buffer: Tensor = state[name]
        return buffer


def hidden_weights(model: nn.Module) -> list[Tensor]:
    """Weights of all layers but the last of the networks in a model."""
    return [p for module in model.modules() for p in getattr(module, "hidden_weights", ())]


def orthogonalised(matrices: Tensor) -> Tensor:
    r"""Matrices of the same singular vectors, singular values near one (0.7 to 1.2).

    .. math:: X \leftarrow a X + b (X X^T) X + c (X X^T)^2 X

    from X of Frobenius norm 1, for the side of fewer entries.

    Args:
        matrices: ``(*batch, rows, columns)``.

    Returns:
        Of the same shape and dtype; the iteration itself runs in bfloat16 where the processor
        multiplies it, which costs nothing that the iteration had.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-20)
    x = x.reshape(-1, *x.shape[-2:]).to(
        torch.bfloat16 if multiplies_bfloat16(x.device) else torch.float32
    )
    a, b, c = COEFFICIENTS
    for _ in range(N_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype).reshape(matrices.shape if wide else matrices.mT.shape)
    return x if wide else x.mT


def _alike(tensors: Iterable[Tensor]) -> list[list[int]]:
    """Indices of the tensors of each shape."""
    shapes: dict[torch.Size, list[int]] = {}
    for i, tensor in enumerate(tensors):
        shapes.setdefault(tensor.shape, []).append(i)
    return list(shapes.values())
