"""Monotone maps of coupling layers as machine code, differentiable once.

What is not on a CPU, or is traced by `torch.func`, goes through the torch functions of the same
maps, and so does everything where there is no C++ compiler.
"""

import ctypes
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gencg.native import load_library

logger = logging.getLogger("gencg")

SOURCE = Path(__file__).with_name("couplings.cpp")
KINDS = {"circle": 0, "line": 1, "affine": 2}
MAX_BINS = 64
DTYPES = {torch.float32: "float32", torch.float64: "float64"}

_missing: list[str] = []  # why there is no machine code, once it was asked for in vain


class _Layer(ctypes.Structure):
    """A layer as ``couplings.cpp`` takes it."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("n_moved", ctypes.c_int64),
        ("n_parameters", ctypes.c_int64),
        ("bound", ctypes.c_double),
        ("moved", ctypes.c_void_p),
    )


class NativeMove:
    """The map of the moved entries of rows, with its gradients.

    Args:
        kind: "circle", "line" (rational-quadratic splines) or "affine".
        n_parameters: Parameters per entry.
        bound: Half-width of the spline's interval, or bound of the affine log scale.
        moved: Index of the entries that move, ``(n_moved,)``.
        dim: Number of entries of a row.
    """

    def __init__(
        self, kind: str, *, n_parameters: int, bound: float, moved: Tensor, dim: int
    ) -> None:
        self._moved = moved.detach().cpu().to(torch.int64).contiguous()
        n_moved = len(self._moved)
        self._layer = _Layer(KINDS[kind], dim, n_moved, n_parameters, bound, self._moved.data_ptr())
        self._n_parameters = n_moved * n_parameters

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Rows with the entries moved ``(n, dim)``, and log-determinants ``(n,)``.

        Args:
            x: Rows, ``(n, dim)``.
            parameters: ``(n, n_moved * n_parameters)``.
            inverse: Apply the inverse map.
        """
        parameters = parameters.to(x.dtype).expand(len(x), self._n_parameters)
        y, log_det = _Move.apply(x, parameters, self, inverse)  # type: ignore[no-untyped-call]
        return y, log_det

    def push_score(self, x: Tensor, parameters: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        """`Transform.push_score` of the moved entries of rows; the others keep their score."""
        parameters = parameters.expand(len(x), self._n_parameters)
        x, parameters, score = (a.detach().to(x.dtype).contiguous() for a in (x, parameters, score))
        pushed, added = torch.empty_like(score), torch.empty_like(parameters)
        self.run("push", x, x, parameters, score, pushed, added)
        return pushed, added

    def run(self, name: str, like: Tensor, *arguments: Tensor | bool) -> None:
        """Call the library's function for the dtype of `like`, for as many rows."""
        function = getattr(load_library(SOURCE), f"{name}_{DTYPES[like.dtype]}")
        function(
            ctypes.byref(self._layer),
            ctypes.c_int64(len(like)),
            *(
                ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_bool(a)
                for a in arguments
            ),
        )


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, parameters: Tensor, move: NativeMove, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        x, parameters = x.contiguous(), parameters.contiguous()
        y, log_det = torch.empty_like(x), x.new_empty(len(x))
        move.run("move", x, inverse, x, parameters, y, log_det)
        ctx.move, ctx.inverse = move, inverse
        ctx.save_for_backward(y if inverse else x, parameters)
        return y, log_det

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_y: Tensor, of_log_det: Tensor) -> tuple[Tensor | None, ...]:
        x, parameters = ctx.saved_tensors
        of_y, of_log_det = of_y.contiguous(), of_log_det.contiguous()
        of_x, of_parameters = torch.empty_like(x), torch.empty_like(parameters)
        ctx.move.run("pull", x, ctx.inverse, x, parameters, of_y, of_log_det, of_x, of_parameters)
        return of_x, of_parameters, None, None


def has_machine_code(x: Tensor) -> bool:
    """Whether rows like `x` can go through machine code; the reason why not is logged once."""
    if x.device.type != "cpu" or x.dtype not in DTYPES or _missing:
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    try:
        load_library(SOURCE)
    except (RuntimeError, OSError) as error:
        _missing.append(str(error))
        logger.warning("The flow runs uncompiled, about half as fast: %s", error)
        return False
    return True
