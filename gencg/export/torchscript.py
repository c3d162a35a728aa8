"""TorchScript files of collective variables, and what their readers ask of them."""

import copy
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gencg.export.checks import ExportError
from gencg.export.cv_function import CVFunction
from gencg.files import replacing

ABOUT = "cv.json"
"""Name of the description inside the file."""


class _Exported(nn.Module):
    """A module as PLUMED reads it: float32, dense memory in and out, also of the gradient."""

    ones: Tensor

    def __init__(self, module: nn.Module, n_args: int) -> None:
        super().__init__()
        self.module = module
        # A gradient of stride zero, such as that of a sum, is read as what lies behind it
        self.register_buffer("ones", torch.ones(n_args, dtype=torch.float32))

    def forward(self, arguments: Tensor) -> Tensor:
        columns: Tensor = self.module(arguments * self.ones).float().contiguous()
        return columns


Ranges = Mapping[str, Sequence[float]]
"""Of each column the smallest and largest value in the ensemble, and its standard deviation."""


def _columns(function: CVFunction, x: Tensor) -> Tensor:
    """Values of the columns, as many as there are names."""
    columns = function(x)
    if columns.shape != (len(x), len(function.columns)):
        raise ExportError(
            f"`module` must give {len(function.columns)} columns, as named, got shape "
            f"{tuple(columns.shape)} for {len(x)} structures"
        )
    return columns


def column_values(function: CVFunction, x: Tensor) -> Tensor:
    """Columns ``(n, n_columns)`` of structures ``(n, n_atoms, 3)`` in nm, some thousands at a time.

    Raises:
        ExportError: If the module has another number of columns than names.
    """
    with torch.no_grad():
        return torch.cat([_columns(function, part).double() for part in torch.split(x, 5000)])


def column_ranges(function: CVFunction, columns: Tensor, weights: Tensor | None = None) -> Ranges:
    """Ranges of the columns over an ensemble.

    Args:
        function: The collective variables.
        columns: Their values, ``(n, n_columns)``; rows that are not finite do not count.
        weights: Of each row, ``(n,)``, for the standard deviation; equal by default.

    Raises:
        ExportError: If no row is finite.
    """
    weights = torch.ones(len(columns)) if weights is None else weights
    finite = torch.isfinite(columns).all(1)
    if not bool(finite.any()):
        raise ExportError(f"none of {len(columns)} structures has finite values of the columns")
    columns, weights = columns[finite], weights[finite]
    weights = weights.to(columns) / weights.sum()
    spread = (weights @ (columns - weights @ columns).square()).sqrt()
    rows = torch.stack([columns.amin(0), columns.amax(0), spread], dim=1).tolist()
    return dict(zip(function.columns, rows, strict=True))


def write_torchscript(
    path: str | Path, function: CVFunction, x: Tensor, *, ranges: Ranges | None = None
) -> Path:
    """Write collective variables as a frozen TorchScript file, float32 on the CPU.

    It takes arguments ``(n, n_args)``, torsions in rad and distances in nm, to columns
    ``(n, n_columns)``, and carries a description (names, atoms, ranges) as the extra file
    `ABOUT`, which Python's readers use and others pass over.

    Args:
        path: Where to write.
        function: The collective variables.
        x: Structures ``(n, n_atoms, 3)`` in nm of the kind that will be met.
        ranges: Of the columns in the ensemble; by default those of `x`.

    Raises:
        ExportError: If the module has another number of columns than names.
    """
    path = Path(path)
    arguments = function.descriptors(x).float()
    _columns(function, x)
    module = _Exported(copy.deepcopy(function.module).cpu(), arguments.shape[1]).eval()
    with _quietly(), replacing(path) as draft:
        traced = torch.jit.trace(module, arguments, check_trace=False)  # type: ignore[no-untyped-call]
        about = json.dumps(
            _about(function, ranges or column_ranges(function, column_values(function, x))),
            indent=1,
        )
        torch.jit.save(torch.jit.freeze(traced), str(draft), _extra_files={ABOUT: about})
    return path


def load_torchscript(path: str | Path, *, optimise: bool = True) -> tuple[Any, dict[str, Any]]:
    """Module and description of a file, on the CPU.

    Args:
        path: The file.
        optimise: Freeze and optimise it after loading, as PLUMED does; Colvars and OpenMM do not.
    """
    extra = {ABOUT: ""}
    with _quietly():
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
        module.eval()
        if optimise:
            module = torch.jit.optimize_for_inference(torch.jit.freeze(module))
    about: dict[str, Any] = json.loads(extra[ABOUT]) if extra[ABOUT] else {}
    return module, about


def read_memory(tensor: Tensor) -> Tensor:
    """The numbers that lie behind a tensor's address, as C++ reads them from ``data_ptr``."""
    return tensor.detach().as_strided((tensor.numel(),), (1,)).clone()


def columns_and_slopes(module: Any, arguments: Tensor) -> tuple[Tensor, Tensor]:
    """Columns ``(n_columns,)`` and slopes ``(n_columns, n_args)`` of one row of arguments.

    In the calls of PLUMED's PYTORCH_MODEL: float32, one row, one column after the other.
    """
    row = arguments.float().reshape(1, -1).clone().requires_grad_()
    one = torch.ones(1, dtype=torch.float32).expand(1, 1)
    with torch.enable_grad():
        output = module(row)
        slopes = [
            torch.autograd.grad(output[:, k : k + 1], row, one, retain_graph=True)[0]
            for k in range(output.numel())
        ]
    return read_memory(output), torch.stack([read_memory(slope) for slope in slopes])


def check_contract(path: str | Path, function: CVFunction, x: Tensor) -> None:
    r"""Hold a TorchScript file to what PLUMED, Colvars and mlcolvar ask of it.

    It loads on the CPU; survives zeros ``(1, n_args)``; gives float32, two-dimensional, dense;
    the same for a row alone as in a batch; every column depends on the arguments; nothing jumps,
    in value or slope, where a torsion passes :math:`\pm\pi`.

    Args:
        path: The file.
        function: What it was made from.
        x: Structures ``(n, n_atoms, 3)`` in nm.

    Raises:
        ExportError: If something is not so.
    """
    module, _ = load_torchscript(path)
    arguments = function.descriptors(x).float()
    n_args, n_columns = arguments.shape[1], len(function.columns)

    def refuse(what: str) -> None:
        raise ExportError(f"{path} {what}; programs that load it would fail or be wrong")

    try:
        output = module(torch.zeros(1, n_args, dtype=torch.float32))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExportError(f"{path} fails on zeros of shape (1, {n_args}): {reason}") from error
    if output.dtype != torch.float32 or output.shape != (1, n_columns):
        refuse(f"gives {output.dtype} of shape {tuple(output.shape)} for one row")
    if not output.is_contiguous():
        refuse("gives an output that is not dense in memory")
    if not bool(torch.isfinite(output).all()):
        refuse("is not finite at zeros")
    rows = [columns_and_slopes(module, row) for row in arguments[:32]]
    alone, slopes = (torch.stack(part) for part in zip(*rows, strict=True))
    scale = alone.abs().max().clamp_min(1.0)
    if not bool(((module(arguments)[:32] - alone).abs() <= 1e-5 * scale).all()):
        refuse("gives another value for a row alone than in a batch")
    idle = (slopes == 0).all(2).all(0).nonzero()[:, 0].tolist()
    if idle:
        refuse(f"has a column that depends on nothing: {function.columns[idle[0]]}")
    for k, name in enumerate(function.torsions):
        if name not in function.bounded:
            _check_seam(module, arguments[:4], k, name, refuse)


def _check_seam(module: Any, arguments: Tensor, k: int, name: str, refuse: Any) -> None:
    """The same value and slope with a torsion at plus and at minus half a turn."""
    ends = []
    for side in (math.pi, -math.pi):
        moved = arguments.clone()
        moved[:, k] = side
        rows = [columns_and_slopes(module, row) for row in moved]
        ends.append(tuple(torch.stack(part) for part in zip(*rows, strict=True)))
    for kind, upper, lower in zip(("value", "slope"), *ends, strict=True):
        scale = upper.abs().max().clamp_min(1.0)
        jump = float((upper - lower).abs().max() / scale)
        if not jump < 1e-3:
            refuse(f"jumps by {jump:.2g} (relative) in {kind} where {name} passes ±180 degrees")


def _about(function: CVFunction, ranges: Ranges) -> dict[str, Any]:
    """The description inside the file."""
    return {
        "program": "gencg",
        "units": {"torsions": "rad", "distances": "nm"},
        "torsions": {name: list(atoms) for name, atoms in function.torsions.items()},
        "distances": {name: list(atoms) for name, atoms in function.distances.items()},
        "columns": list(function.columns),
        "angles": dict(function.angles),
        "ranges": {name: list(ranges[name]) for name in function.columns},
        "n_atoms": function.n_atoms,
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings that TorchScript is no longer developed, and those of tracing.

    What a trace leaves out shows in the comparison.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)
        yield
