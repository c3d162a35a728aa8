"""Comparison of what another program would compute with what the model says."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gencg.export.cv_function import CVFunction

Array = NDArray[np.float64]
Quantities = dict[str, tuple[Array, Array]]
"""Values ``(n,)`` and gradients ``(n, n_atoms, 3)`` by name."""

VALUE = 1e-4
"""Largest deviation of a value, in units of the largest value of its column, at least one."""
GRADIENT = 1e-3
"""Largest deviation of a gradient, relative to the gradients there and to the usual ones."""


class ExportError(ValueError):
    """An export that does not do what the model does, or what its reader asks for."""


@dataclass(frozen=True)
class Check:
    """What the comparison of a written file with the model found.

    Args:
        file: Name of the file.
        n_structures: Number of structures compared.
        value: Largest deviation of a value, relative.
        gradient: Largest deviation of a gradient with respect to positions, relative; None for
            a file that gives no gradients.
    """

    file: str
    n_structures: int
    value: float
    gradient: float | None

    def __str__(self) -> str:
        gradient = "" if self.gradient is None else f", {self.gradient:.1e} in gradient"
        return (
            f"{self.file}: loaded again, {self.n_structures:,} structures, largest deviation "
            f"{self.value:.1e} in value{gradient}"
        )


def model_quantities(function: CVFunction, x: Array) -> Quantities:
    """Columns and angles of the model with their gradients, by automatic differentiation.

    Args:
        function: The collective variables.
        x: Positions ``(n, n_atoms, 3)`` in nm.
    """
    positions = torch.as_tensor(x, dtype=torch.float64).clone().requires_grad_()
    with torch.enable_grad():
        columns = function.true_columns(positions)
        gradients = [
            torch.autograd.grad(c.sum(), positions, retain_graph=True)[0].numpy()
            for c in columns.unbind(1)
        ]
    values = columns.detach().numpy()
    found = {name: (values[:, k], gradients[k]) for k, name in enumerate(function.columns)}
    return found | angle_quantities(function, found)


def angle_quantities(function: CVFunction, columns: Quantities) -> Quantities:
    r"""Angles :math:`\mathrm{atan2}(s, c)` of columns and their gradients.

    .. math:: \nabla \xi = \frac{c \nabla s - s \nabla c}{c^2 + s^2}
    """
    found = {}
    for name, k in function.angles.items():
        (c, dc), (s, ds) = columns[function.columns[k]], columns[function.columns[k + 1]]
        slope = c[:, None, None] * ds - s[:, None, None] * dc
        found[name] = (np.arctan2(s, c), slope / (c**2 + s**2)[:, None, None])
    return found


def compare(file: Path, function: CVFunction, got: Quantities, model: Quantities) -> Check:
    """Hold what a reader computed to the model.

    Args:
        file: The file that was read.
        function: The collective variables.
        got: Of the reader; columns and angles it does not give are left out.
        model: Of the model.

    Raises:
        ExportError: If a deviation is beyond `VALUE` or `GRADIENT`; it names the largest.
    """
    worst = {"value": (0.0, "", 0), "gradient": (0.0, "", 0)}
    for name, (value, gradient) in got.items():
        true, slope = model[name]
        off = value - true
        if name in function.angles:
            off = np.angle(np.exp(1j * off))
        size = np.linalg.norm(slope, axis=-1).max(1)
        bend = np.linalg.norm(gradient - slope, axis=-1).max(1) / (size + np.median(size) + 1e-12)
        for kind, deviation in (
            ("value", np.abs(off) / max(1.0, float(np.abs(true).max()))), ("gradient", bend),
        ):  # fmt: skip
            deviation = np.nan_to_num(deviation, nan=np.inf)
            k = int(deviation.argmax())
            if deviation[k] > worst[kind][0]:
                worst[kind] = (float(deviation[k]), name, k)
    for kind, limit in (("value", VALUE), ("gradient", GRADIENT)):
        deviation, name, k = worst[kind]
        if deviation > limit:
            raise ExportError(
                f"{file} does not agree with the model: the largest deviation is {deviation:.2g} "
                f"(relative, at most {limit:g}) in the {kind} of {name} at structure {k}; the "
                "files stay where they are, do not use them"
            )
    n = len(next(iter(got.values()))[0])
    return Check(file.name, n, worst["value"][0], worst["gradient"][0])
