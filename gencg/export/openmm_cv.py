"""Collective variables of a TorchScript file as forces and bias variables of OpenMM.

This file stands beside the TorchScript file that gencg wrote and needs torch, openmm (8.5 or
newer) and numpy, not gencg:

    import openmm, openmm.app as app, openmm.unit as unit
    import openmm_cv

    variables = openmm_cv.bias_variables("cv.pt")
    metadynamics = app.Metadynamics(
        system, variables, 300 * unit.kelvin, 8, 1.2 * unit.kilojoules_per_mole, 500
    )
    metadynamics.step(simulation, 10000)

Atoms are counted as in the topology the variables were made for, from zero; `first_atom` is where
that molecule begins in the system. An angle is one variable in rad with the period of a circle,
made from its cosine and sine, so that forces have no jump.
"""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from openmm.app import metadynamics

Array = NDArray[np.float64]
MOST_TOGETHER = 3
"""Variables that one bias of metadynamics can fill."""


class CollectiveVariables:
    """The columns and angles of a TorchScript file as functions of positions.

    Args:
        path: The file.

    Raises:
        ValueError: If the file has no description by gencg.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        extra = {"cv.json": ""}
        with warnings.catch_warnings():
            # TorchScript is no longer developed, but what other programs read
            warnings.simplefilter("ignore", DeprecationWarning)
            self.module = torch.jit.load(  # type: ignore[no-untyped-call]
                str(self.path), map_location="cpu", _extra_files=extra
            )
        if not extra["cv.json"]:
            raise ValueError(f"{self.path} has no description of its atoms; gencg writes one")
        self.about: dict[str, Any] = json.loads(extra["cv.json"])
        groups = [*self.about["torsions"].values(), *self.about["distances"].values()]
        self.atoms: list[int] = sorted({i for group in groups for i in group})
        place = {atom: k for k, atom in enumerate(self.atoms)}
        local = [[place[i] for i in group] for group in groups]
        self._quads = np.array([g for g in local if len(g) == 4], dtype=int).reshape(-1, 4).T
        self._pairs = np.array([g for g in local if len(g) == 2], dtype=int).reshape(-1, 2).T
        self.columns: list[str] = self.about["columns"]
        self.angles: dict[str, int] = self.about["angles"]
        self._last: tuple[bytes, Array, torch.Tensor, torch.Tensor] | None = None

    @property
    def names(self) -> list[str]:
        """Angles, then the columns that are no cosine or sine of one."""
        paired = {k for cosine in self.angles.values() for k in (cosine, cosine + 1)}
        return [*self.angles, *(c for k, c in enumerate(self.columns) if k not in paired)]

    def __call__(self, positions: Array, name: str) -> Array:
        """One variable ``(n,)`` of positions ``(n, n_atoms, 3)`` in nm of the molecule."""
        found = [self.with_gradient(np.asarray(x)[self.atoms], name)[0] for x in positions]
        return np.array(found)

    def with_gradient(self, x: Array, name: str) -> tuple[float, Array]:
        """A variable and its gradient ``(len(atoms), 3)`` at positions of `atoms` alone.

        The module is asked once for all variables at the same positions.
        """
        key, last = x.tobytes(), self._last
        if last is None or last[0] != key:
            arguments, slopes = self._arguments(x)
            row = torch.tensor(arguments[None], dtype=torch.float32, requires_grad=True)
            with torch.enable_grad():
                self._last = last = (key, slopes, row, self.module(row).double())
        _, slopes, row, columns = last
        with torch.enable_grad():
            if name in self.angles:
                k = self.angles[name]
                value = torch.atan2(columns[0, k + 1], columns[0, k])
            else:
                value = columns[0, self.columns.index(name)]
            (gradient,) = torch.autograd.grad(value, row, retain_graph=True)
        chained = gradient[0].double().numpy() @ slopes.reshape(len(slopes), -1)
        return float(value.detach()), chained.reshape(x.shape)

    def _arguments(self, x: Array) -> tuple[Array, Array]:
        """Torsions in rad, then distances in nm, and their gradients ``(n_args, n_atoms, 3)``.

        Slopes of torsions by Blondel and Karplus (1996).
        """
        i, j, k, last = (x[atoms] for atoms in self._quads)
        f, g, h = i - j, j - k, last - k
        a, b = np.cross(f, g), np.cross(h, g)
        length = np.sqrt((g * g).sum(1))
        torsions = np.arctan2((np.cross(b, a) * g).sum(1) / length, (a * b).sum(1))
        a, b = a / (a * a).sum(1)[:, None], b / (b * b).sum(1)[:, None]
        along = ((f * g).sum(1) / length)[:, None] * a - ((h * g).sum(1) / length)[:, None] * b
        a, b = length[:, None] * a, length[:, None] * b
        p, q = (x[atoms] for atoms in self._pairs)
        distances = np.sqrt(((p - q) ** 2).sum(1))
        unit_arm = (p - q) / distances[:, None]
        n = len(torsions)
        slopes = np.zeros((n + len(distances), len(x), 3))
        rows = np.arange(len(slopes))
        parts = zip(self._quads, (-a, a + along, -b - along, b), strict=True)
        for atoms, part in parts:
            slopes[rows[:n], atoms] = part
        for atoms, part in zip(self._pairs, (unit_arm, -unit_arm), strict=True):
            slopes[rows[n:], atoms] = part
        return np.concatenate([torsions, distances]), slopes


_SHARED: dict[tuple[str, int], CollectiveVariables] = {}


def _shared(path: str) -> CollectiveVariables:
    """The variables of a file, read once, so that forces of one file share its evaluation."""
    key = (path, Path(path).stat().st_mtime_ns)
    if key not in _SHARED:
        _SHARED[key] = CollectiveVariables(path)
    return _SHARED[key]


class Compute:
    """What a PythonForce calls: a variable as energy in kJ/mol, and minus its gradient.

    It can be pickled, which OpenMM does when it copies a force, for instance into a
    CustomCVForce: the copy reads the file again.

    Args:
        path: The TorchScript file.
        name: The variable.
        first_atom: Where the molecule begins in the system.
        n_atoms: Atoms of the system; None where the force acts on the variable's atoms alone.
    """

    def __init__(self, path: str, name: str, first_atom: int, n_atoms: int | None) -> None:
        self.given = (path, name, first_atom, n_atoms)
        self.variables = _shared(path)
        self.name, self.n_atoms = name, n_atoms
        self.index = [first_atom + i for i in self.variables.atoms]

    def __reduce__(self) -> tuple[Any, ...]:
        return Compute, self.given

    def __call__(self, state: Any) -> tuple[float, Array]:
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if self.n_atoms is not None:
            positions = positions[self.index]
        value, gradient = self.variables.with_gradient(np.ascontiguousarray(positions), self.name)
        forces = -gradient
        if self.n_atoms is not None:
            every = np.zeros((self.n_atoms, 3))
            every[self.index] = forces
            forces = every
        return value, forces


def cv_force(
    path: str | Path, name: str, *, first_atom: int = 0, n_atoms: int | None = None
) -> Any:
    """An OpenMM PythonForce whose energy in kJ/mol is the value of a variable.

    Args:
        path: The TorchScript file.
        name: One of `CollectiveVariables.names`, or a column.
        first_atom: Where the molecule begins in the system.
        n_atoms: Number of particles of the system; only OpenMM 8.5 needs it, where a force
            cannot act on a part of them.

    Raises:
        RuntimeError: If OpenMM is older than 8.5.
        ValueError: If there is no such variable, or `n_atoms` is needed.
    """
    if not hasattr(openmm, "PythonForce"):
        raise RuntimeError(
            f"OpenMM {openmm.__version__} has no PythonForce; version 8.5 or newer is needed"
        )
    variables = CollectiveVariables(path)
    known = [*variables.names, *variables.columns]
    if name not in known:
        raise ValueError(f"`name` must be one of {', '.join(known)}, got {name!r}")
    partly = hasattr(openmm.PythonForce, "setParticles")
    if not partly and n_atoms is None:
        raise ValueError(f"`n_atoms` is needed with OpenMM {openmm.__version__}")
    compute = Compute(str(variables.path), name, first_atom, None if partly else n_atoms)
    force = openmm.PythonForce(compute)
    if partly:
        force.setParticles(compute.index)
    force.setName(name)
    return force


def bias_variables(
    path: str | Path,
    *,
    names: list[str] | None = None,
    widths: dict[str, float] | None = None,
    ranges: dict[str, tuple[float, float]] | None = None,
    first_atom: int = 0,
    n_atoms: int | None = None,
) -> list[Any]:
    """Bias variables for openmm.app.Metadynamics, one for each angle or other column.

    Args:
        path: The TorchScript file.
        names: Which of `CollectiveVariables.names`, at most three, which is what
            openmm.app.Metadynamics takes; all of them by default.
        widths: Width of the Gaussians by name; by default 0.35 rad for an angle, a fifth of the
            standard deviation on gencg's own samples for others.
        ranges: Lowest and highest value by name, of variables that are no angles; by default
            those on gencg's samples and a fifth of their distance beyond.
        first_atom: Where the molecule begins in the system.
        n_atoms: As in `cv_force`.

    Raises:
        ValueError: If there is no such variable, or there are more than three.
    """
    variables = CollectiveVariables(path)
    chosen = variables.names if names is None else list(names)
    if not 1 <= len(chosen) <= MOST_TOGETHER:
        raise ValueError(
            f"`names` must be one to {MOST_TOGETHER} of {', '.join(variables.names)}, which is "
            f"what openmm.app.Metadynamics takes, got {len(chosen)}; choose with names=[...]"
        )
    found = []
    for name in chosen:
        force = cv_force(path, name, first_atom=first_atom, n_atoms=n_atoms)
        periodic = name in variables.angles
        if periodic:
            low, high, width = -math.pi, math.pi, 0.35
        else:
            low, high, spread = variables.about["ranges"][name]
            low, high = low - 0.2 * (high - low), high + 0.2 * (high - low)
            low, high = (ranges or {}).get(name, (low, high))
            width = 0.2 * spread
        width = (widths or {}).get(name, width)
        found.append(metadynamics.BiasVariable(force, low, high, width, periodic))
    return found
