"""A plumed.dat read again: what PLUMED's documentation says each line does, done line by line."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from gencg.export.checks import Array, ExportError, Quantities
from gencg.export.engine_geometry import distance, mdtraj_descriptors, torsion
from gencg.export.torchscript import columns_and_slopes, load_torchscript


class Action(NamedTuple):
    """One line of an input file."""

    label: str
    kind: str
    keys: dict[str, str]


def read_plumed(path: str | Path) -> list[Action]:
    """Actions of an input file, comments left out.

    Raises:
        ExportError: If a label is used twice or not allowed, or a word is no KEY=VALUE.
    """
    actions: list[Action] = []
    for line in Path(path).read_text().splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        label = words.pop(0)[:-1] if words[0].endswith(":") else f"@{len(actions)}"
        if label in {action.label for action in actions} or "." in label:
            raise ExportError(f"{path} has a label that PLUMED does not allow: {label}")
        kind, *pairs = words
        if wrong := [word for word in pairs if "=" not in word]:
            raise ExportError(f"{path} has a word without a value: {wrong[0]}")
        actions.append(Action(label, kind, dict(word.split("=", 1) for word in pairs)))
    return actions


def plumed_quantities(path: str | Path, x: Array) -> Quantities:
    """Everything that a plumed.dat computes, with gradients, for positions in nm.

    TORSION and DISTANCE by NumPy and held to MDTraj, PYTORCH_MODEL with the calls of PLUMED's
    source (loaded on the CPU, frozen, zeros first, one row of float32, dense memory), CUSTOM for
    ``atan2(s,c)`` with the period of a circle, PRINT for names that exist.

    Args:
        path: The input file; the model lies beside it.
        x: Positions ``(n, n_atoms, 3)``.

    Raises:
        ExportError: If PLUMED would refuse the file, or another action is in it.
    """
    path = Path(path)
    known: Quantities = {}
    for action in read_plumed(path):
        keys = action.keys
        names = keys["ARG"].split(",") if "ARG" in keys else []
        if missing := [name for name in names if name not in known]:
            raise ExportError(f"{path}: {action.kind} asks for {missing[0]}, which is not defined")
        if action.kind in ("TORSION", "DISTANCE"):
            known[action.label] = _descriptor(path, action, x)
        elif action.kind == "PYTORCH_MODEL":
            model = path.parent / keys.get("FILE", "model.ptc")
            found = _model([known[name] for name in names], model)
            known |= {f"{action.label}.node-{k}": pair for k, pair in enumerate(found)}
        elif action.kind == "CUSTOM":
            known[action.label] = _angle(path, keys, [known[name] for name in names])
        elif action.kind != "PRINT":
            raise ExportError(f"{path} has an action that the reader does not know: {action.kind}")
    return known


def _descriptor(path: Path, action: Action, x: Array) -> tuple[Array, Array]:
    atoms = [int(word) - 1 for word in action.keys["ATOMS"].split(",")]
    if not all(0 <= i < x.shape[1] for i in atoms):
        raise ExportError(f"{path}: {action.label} has atoms outside 1 to {x.shape[1]}")
    dihedral = action.kind == "TORSION"
    value, gradient = torsion(x, atoms) if dihedral else distance(x, atoms)
    by_mdtraj = mdtraj_descriptors(x, [atoms] * dihedral, [atoms] * (not dihedral))[:, 0]
    hold_to_mdtraj(path, action.label, value, by_mdtraj, gradient)
    return value, gradient


def hold_to_mdtraj(path: Path, label: str, value: Array, by_mdtraj: Array, slope: Array) -> None:
    """Refuse a descriptor that MDTraj finds to be another, beyond its single precision."""
    off = np.abs(np.angle(np.exp(1j * (value - by_mdtraj))))
    if bool((off > 1e-4 + 1e-6 * np.abs(slope).max((1, 2))).any()):
        raise ExportError(f"{path}: {label} differs from MDTraj's by {off.max():.2g}")


def _model(arguments: list[tuple[Array, Array]], path: Path) -> list[tuple[Array, Array]]:
    """Columns of a model and their gradients, by the chain rule as PLUMED applies it."""
    module, _ = load_torchscript(path)
    module(torch.zeros(1, len(arguments), dtype=torch.float32))
    rows = torch.as_tensor(np.stack([value for value, _ in arguments], axis=1))
    found = [columns_and_slopes(module, row) for row in rows]
    values = np.stack([v.double().numpy() for v, _ in found])
    slopes = np.stack([s.double().numpy() for _, s in found])  # [n, n_columns, n_args]
    gradients = np.stack([gradient for _, gradient in arguments], axis=1)
    chained = np.einsum("nca,naix->cnix", slopes, gradients)
    return [(values[:, k], chained[k]) for k in range(values.shape[1])]


def _angle(
    path: Path, keys: dict[str, str], pair: list[tuple[Array, Array]]
) -> tuple[Array, Array]:
    if keys.get("FUNC") != "atan2(s,c)" or keys.get("VAR") != "s,c":
        raise ExportError(f"{path} has a CUSTOM that the reader does not know: {keys.get('FUNC')}")
    if keys.get("PERIODIC") != "-pi,pi":
        raise ExportError(f"{path}: an angle must have PERIODIC=-pi,pi, got {keys.get('PERIODIC')}")
    (s, ds), (c, dc) = pair
    square = (s**2 + c**2)[:, None, None]
    gradient = (c[:, None, None] * ds - s[:, None, None] * dc) / square
    return np.arctan2(s, c), gradient
