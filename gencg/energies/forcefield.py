"""A molecular force field evaluated in batches, compiled where a compiler is found."""

import copy
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gencg.energies.base import Energy
from gencg.energies.bonded import FourierTorsions, HarmonicBonds
from gencg.energies.frame import Frame
from gencg.energies.mmff_terms import QuarticBonds
from gencg.energies.native import NativeForceField, UnsupportedTermError

logger = logging.getLogger("gencg")

Evaluate = Callable[[Tensor], tuple[Tensor, ...]]

MINIMUM_COMPILED = 128
"""Smaller batches are evaluated as they are: compiling takes seconds, they take milliseconds."""


class ForceField(Energy):
    r"""Sum of the terms of a molecular force field, :math:`U(x) = \sum_t U_t(x)`.

    On a CPU the terms run as machine code (`native`), one configuration per lane of a vector,
    about 1 µs per energy and gradient of a dipeptide in implicit solvent. It is compiled at first
    use, in seconds, once per machine and for all molecules. Where there is no C++ compiler a
    warning says so, and evaluation is in torch, some thirty times slower. A result does not depend
    on its neighbours in the batch.

    Elsewhere, and for terms of other classes, batches are cut into chunks, in which the
    configurations are the contiguous axis of every intermediate, so that one instruction serves
    many of them and memory stays bounded. Batches of `MINIMUM_COMPILED` or more then go through
    ``torch.compile``, their chunks padded to one size (padding is not counted).

    Atoms nearer than 0.002 nm are taken to be 0.002 nm apart, so that clashes cost a large,
    finite energy in float32 too.

    Args:
        terms: The terms by name; each maps a `Frame` of n configurations to ``(n,)`` kJ/mol.
        n_atoms: Number of atoms.
        chunk_size: Configurations per chunk in torch; by default as many as keep the pairs in the
            cache, 16 to 512 (32 times as many on a GPU).
        compile: False never compiles; so does ``GENCG_COMPILE=0`` in the environment.
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
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"`chunk_size` must be positive, got {chunk_size}")
        self.modules = nn.ModuleDict(dict(terms)).requires_grad_(False)
        self.chunk_size = chunk_size
        self.compile = compile and os.environ.get("GENCG_COMPILE", "1") != "0"
        self._cast: dict[tuple[torch.dtype, torch.device], nn.ModuleDict] = {}
        self._compiled: dict[tuple[Any, ...], Evaluate] = {}
        self._native: dict[torch.dtype, NativeForceField | None] = {}

    def __repr__(self) -> str:
        return f"ForceField(n_atoms={self.event_shape[0]}, terms=[{', '.join(self.modules)}])"

    def __getstate__(self) -> dict[str, Any]:
        # What is cast and compiled is made again where it is needed
        return self.__dict__ | {"_cast": {}, "_compiled": {}, "_native": {}}

    def energy(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            return torch.cat([self._value(part) for part in torch.split(x, self._chunk_size(x))])
        if native := self._machine_code(x):
            return native(x, gradient=False)[0]
        return self._run(self._values, x)[0]

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if native := self._machine_code(x):
            return native(x, gradient=True)
        value, gradient = self._run(self._values_and_gradients, x)
        return value, gradient

    def terms(self, x: Tensor) -> dict[str, Tensor]:
        """Energy of each term in kJ/mol, ``(*batch, n_atoms, 3)`` to ``(*batch,)``; not counted."""
        batch = x.shape[:-2]
        flat = x.reshape(-1, *self.event_shape)
        parts = [self._terms(part) for part in torch.split(flat, self._chunk_size(x))]
        return {name: torch.cat([part[name] for part in parts]).reshape(batch) for name in parts[0]}

    def torsion_barriers(
        self, positions: NDArray[np.float64], bonds: Sequence[tuple[int, int]]
    ) -> NDArray[np.float64]:
        """Height of the torsional barrier about each bond, to tell stiff bonds from soft ones.

        The largest less the smallest sum of all proper torsion terms about the bond, in a full
        turn of rigid rotation from the given structure. About 84 kJ/mol for an amide bond.

        Args:
            positions: Reference structure, shape ``(n_atoms, 3)``, in nm.
            bonds: Pairs of bonded atoms.

        Returns:
            In kJ/mol, one per bond; 0 where no torsion term turns with the bond.
        """
        x = torch.as_tensor(np.asarray(positions), dtype=torch.float64)
        frame = Frame(x[:, :, None])
        bonded = {
            frozenset(pair)
            for term in self.modules.values()
            if isinstance(term, HarmonicBonds | QuarticBonds)
            for pair in term.atoms.tolist()
        }
        profiles = {frozenset(bond): np.zeros(360) for bond in bonds}
        for term in self.modules.values():
            if isinstance(term, FourierTorsions):
                for atoms, profile in zip(term.atoms, rotation_profiles(term, frame), strict=True):
                    proper = all(frozenset(pair) in bonded for pair in pairwise(atoms.tolist()))
                    if proper and (axis := frozenset(atoms[1:3].tolist())) in profiles:
                        profiles[axis] += profile
        return np.array([np.ptp(profiles[frozenset(bond)]) for bond in bonds])

    def _machine_code(self, x: Tensor) -> NativeForceField | None:
        """The machine code for this dtype; None where there is none or it is not wanted."""
        if not self.compile or x.device.type != "cpu":
            return None
        if x.dtype not in self._native:
            self._native[x.dtype] = None
            try:
                n_atoms = self.event_shape[0]
                self._native[x.dtype] = NativeForceField(self.modules.values(), n_atoms, x.dtype)
            except UnsupportedTermError as error:
                logger.info("The force field runs in torch: %s", error)
            except (RuntimeError, OSError) as error:
                logger.warning("The force field runs uncompiled, several times slower: %s", error)
                self.compile = False
        return self._native[x.dtype]

    def _chunk_size(self, x: Tensor) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        # A million pairs at a time: larger intermediates leave the cache
        fitting = max(1, 2**20 // self.event_shape[0] ** 2)
        size = min(512, max(16, 1 << (fitting.bit_length() - 1)))
        return 32 * size if x.is_cuda else size

    def _cast_modules(self, x: Tensor) -> nn.ModuleDict:
        key = (x.dtype, x.device)
        if key not in self._cast:
            self._cast[key] = copy.deepcopy(self.modules).to(x.device, x.dtype)
        return self._cast[key]

    def _terms(self, x: Tensor) -> dict[str, Tensor]:
        frame = Frame(x.permute(1, 2, 0).contiguous())
        return {name: term(frame) for name, term in self._cast_modules(x).items()}

    def _value(self, x: Tensor) -> Tensor:
        return torch.stack(list(self._terms(x).values())).sum(0)

    def _values(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self._value(x),)

    def _values_and_gradients(self, x: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self._value(x)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient

    @torch.no_grad()
    def _run(self, evaluate: Evaluate, x: Tensor) -> tuple[Tensor, ...]:
        """Evaluate a batch chunk by chunk, compiled if it is large enough."""
        n, size = len(x), self._chunk_size(x)
        run = evaluate
        if self.compile and n >= MINIMUM_COMPILED:
            # A power of two: few sizes to compile, at most half of the work in vain
            size = min(size, 1 << (n - 1).bit_length())
            x = torch.cat([x, x[-1:].expand(-n % size, -1, -1)])
            run = self._compile(evaluate, x[:size])
        with full_precision():
            results = [run(part.contiguous()) for part in torch.split(x.detach(), size)]
        return tuple(torch.cat(column)[:n] for column in zip(*results, strict=True))

    def _compile(self, evaluate: Evaluate, x: Tensor) -> Evaluate:
        """The compiled evaluation of batches like `x`; compiled at its first use."""
        key = (evaluate.__name__, len(x), x.dtype, x.device)
        if key not in self._compiled:
            # Made now, the cast parameters are constants of what is compiled
            self._cast_modules(x)
            self._compiled[key] = compile_or_not(evaluate, x.contiguous())
        return self._compiled[key]


def rotation_profiles(term: FourierTorsions, frame: Frame) -> NDArray[np.float64]:
    """Energy of every torsion in kJ/mol while its bond turns once around, ``(m, 360)``."""
    cosine, sine = term.dihedrals(frame)
    turn = torch.arange(360, dtype=cosine.dtype) * (2 * torch.pi / 360)
    angle = torch.atan2(sine, cosine) + turn
    return np.asarray(term.series(torch.cos(angle), torch.sin(angle)))


def compile_or_not(evaluate: Evaluate, x: Tensor) -> Evaluate:
    """The function traced at `x` and compiled; itself, saying so, where that does not work."""
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Tracing through autograd makes energy and gradient one graph, fused as a whole
            compiled: Evaluate = torch.compile(make_fx(lambda x: evaluate(x))(x), dynamic=False)
            compiled(x)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        logger.warning("The force field runs uncompiled, several times slower: %s", reason)
        return evaluate
    return compiled


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep matrix products of float32 exact, whatever the surrounding program has chosen."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
