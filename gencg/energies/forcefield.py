"""A molecular force field in batched torch, compiled where a compiler is found."""

import copy
import logging
import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from gencg.energies.base import Energy
from gencg.energies.frame import Frame

logger = logging.getLogger("gencg")

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


class ForceField(Energy):
    r"""Sum of the terms of a molecular force field, over batches of configurations.

    Configurations are the contiguous axis of every intermediate, so that one instruction serves
    many of them. Batches are evaluated in chunks of fixed size, the last one padded (padding is
    not counted); energy and gradient of a chunk are one compiled function.

    Args:
        terms: The terms by name; each maps a `Frame` of n configurations to ``(n,)`` kJ/mol.
        n_atoms: Number of atoms.
        chunk_size: Configurations per compiled call; by default as many as keep the pairs in
            the cache.
        compile: Whether to use ``torch.compile`` for batches of at least a quarter chunk.
            ``GENCG_COMPILE=0`` in the environment, or the lack of a C++ compiler, turns it off.
    """

    def __init__(
        self,
        terms: Mapping[str, nn.Module],
        n_atoms: int,
        *,
        chunk_size: int | None = None,
        compile: bool = True,
    ) -> None:
        super().__init__((n_atoms, 3))
        self.term_modules = nn.ModuleDict(dict(terms)).requires_grad_(False)
        self.chunk_size = chunk_size or max(16, min(512, 2**23 // n_atoms**2))
        self.compile = compile and os.environ.get("GENCG_COMPILE", "1") != "0"
        self._cast: dict[tuple[torch.dtype, torch.device], nn.ModuleDict] = {}
        self._compiled: dict[tuple[torch.dtype, torch.device], Evaluate] = {}

    def __repr__(self) -> str:
        return f"ForceField(n_atoms={self.event_shape[0]}, terms={list(self.term_modules)})"

    def energy(self, x: Tensor) -> Tensor:
        return torch.cat([sum(self._values(part).values()) for part in x.split(self.chunk_size)])

    def terms(self, x: Tensor) -> dict[str, Tensor]:
        """Energy of each term in kJ/mol, ``(*batch, n_atoms, 3)`` to ``(*batch,)``; not counted."""
        batch = x.shape[:-2]
        parts = [self._values(part) for part in x.reshape(-1, *self.event_shape).split(self.chunk_size)]
        return {name: torch.cat([part[name] for part in parts]).reshape(batch) for name in parts[0]}

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach()
        results = [self._chunk(part) for part in x.split(self.chunk_size)]
        values, gradients = zip(*results, strict=True)
        return torch.cat(values), torch.cat(gradients)

    def _modules(self, x: Tensor) -> nn.ModuleDict:
        key = (x.dtype, x.device)
        if key not in self._cast:
            self._cast[key] = copy.deepcopy(self.term_modules).to(x.device, x.dtype)
        return self._cast[key]

    def _values(self, x: Tensor) -> dict[str, Tensor]:
        frame = Frame(x.permute(1, 2, 0).contiguous())
        return {name: term(frame) for name, term in self._modules(x).items()}

    def _chunk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n = x.shape[0]
        if not self.compile or 4 * n < self.chunk_size:
            return self._eager(x)
        padding = self.chunk_size - n
        padded = torch.cat([x, x[:1].expand(padding, -1, -1)]) if padding else x.contiguous()
        value, gradient = self._compiled_evaluate(padded)
        return value[:n], gradient[:n]

    def _eager(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            positions = x.detach().permute(1, 2, 0).contiguous().requires_grad_()
            frame = Frame(positions)
            value = torch.stack([term(frame) for term in self._modules(x).values()]).sum(0)
            (gradient,) = torch.autograd.grad(value.sum(), positions)
        return value.detach(), gradient.permute(2, 0, 1)

    def _compiled_evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        key = (x.dtype, x.device)
        if key not in self._compiled:
            self._modules(x)
            self._compiled[key] = compile_or_not(self._eager, x)
        return self._compiled[key](x)


def compile_or_not(evaluate: Evaluate, x: Tensor) -> Evaluate:
    """The function traced at `x` and compiled; itself, saying so, where that does not work."""
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        compiled = torch.compile(make_fx(lambda x: evaluate(x))(x), dynamic=False)
        compiled(x)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        logger.warning("The force field runs uncompiled, several times slower: %s", reason)
        return evaluate
    return compiled
