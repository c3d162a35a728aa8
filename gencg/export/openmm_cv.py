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
        quads = list(self.about["torsions"].values())
        pairs = list(self.about["distances"].values())
        self.atoms: list[int] = sorted({i for group in (*quads, *pairs) for i in group})
        place = {atom: k for k, atom in enumerate(self.atoms)}
        self._quads = (
            torch.tensor([[place[i] for i in quad] for quad in quads]).reshape(-1, 4).long()
        )
        self._pairs = (
            torch.tensor([[place[i] for i in pair] for pair in pairs]).reshape(-1, 2).long()
        )
        self.columns: list[str] = self.about["columns"]
        self.angles: dict[str, int] = self.about["angles"]

    @property
    def names(self) -> list[str]:
        """Angles, then the columns that are no cosine or sine of one."""
        paired = {k for cosine in self.angles.values() for k in (cosine, cosine + 1)}
        return [*self.angles, *(c for k, c in enumerate(self.columns) if k not in paired)]

    def of_atoms(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """One variable ``(n,)`` of the positions ``(n, len(atoms), 3)`` in nm of `atoms` alone."""
        columns = self.module(self._arguments(x).float()).double()
        if name in self.angles:
            k = self.angles[name]
            angle: torch.Tensor = torch.atan2(columns[:, k + 1], columns[:, k])
            return angle
        column: torch.Tensor = columns[:, self.columns.index(name)]
        return column

    def __call__(self, positions: Array, name: str) -> Array:
        """One variable ``(n,)`` of positions ``(n, n_atoms, 3)`` in nm of the molecule."""
        x = torch.as_tensor(np.asarray(positions)[:, self.atoms], dtype=torch.float64)
        with torch.no_grad():
            values: Array = self.of_atoms(x, name).numpy()
        return values

    def _arguments(self, x: torch.Tensor) -> torch.Tensor:
        """Torsions in rad, then distances in nm, ``(n, n_args)``."""
        i, j, k, last = (x[:, atoms] for atoms in self._quads.unbind(1))
        f, g, h = i - j, j - k, last - k
        a, b = torch.linalg.cross(f, g), torch.linalg.cross(h, g)
        sine = (torch.linalg.cross(b, a) * g).sum(-1) / torch.linalg.vector_norm(g, dim=-1)
        torsions = torch.atan2(sine, (a * b).sum(-1))
        p, q = (x[:, atoms] for atoms in self._pairs.unbind(1))
        return torch.cat([torsions, torch.linalg.vector_norm(p - q, dim=-1)], dim=1)


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
        self.variables = CollectiveVariables(path)
        self.name, self.n_atoms = name, n_atoms
        self.index = [first_atom + i for i in self.variables.atoms]

    def __reduce__(self) -> tuple[Any, ...]:
        return Compute, self.given

    def __call__(self, state: Any) -> tuple[float, Array]:
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if self.n_atoms is not None:
            positions = positions[self.index]
        x = torch.tensor(positions, dtype=torch.float64)[None].requires_grad_()
        with torch.enable_grad():
            value = self.variables.of_atoms(x, self.name)[0]
            (gradient,) = torch.autograd.grad(value, x)
        forces: Array = -gradient[0].numpy()
        if self.n_atoms is not None:
            every = np.zeros((self.n_atoms, 3))
            every[self.index] = forces
            forces = every
        return float(value.detach()), forces


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
    widths: dict[str, float] | None = None,
    ranges: dict[str, tuple[float, float]] | None = None,
    first_atom: int = 0,
    n_atoms: int | None = None,
) -> list[Any]:
    """Bias variables for openmm.app.Metadynamics, one for each angle or other column.

    Args:
        path: The TorchScript file.
        widths: Width of the Gaussians by name; by default 0.35 rad for an angle, a fifth of the
            standard deviation on gencg's own samples for others.
        ranges: Lowest and highest value by name, of variables that are no angles; by default
            those on gencg's samples and a fifth of their distance beyond.
        first_atom: Where the molecule begins in the system.
        n_atoms: As in `cv_force`.
    """
    variables = CollectiveVariables(path)
    found = []
    for name in variables.names:
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
