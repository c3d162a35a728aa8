"""A Colvars configuration read again, with what its documentation and source say each part does."""

import math
import re
from pathlib import Path

import numpy as np
import torch

from gencg.export.checks import Array, ExportError, Quantities
from gencg.export.engine_geometry import distance, mdtraj_descriptors, torsion
from gencg.export.plumed_reader import hold_to_mdtraj
from gencg.export.torchscript import columns_and_slopes, load_torchscript

Block = dict[str, list["str | Block"]]

_NM = {"gromacs": 1.0, "real": 0.1}
_TOKENS = re.compile(r"[{}]|[^\s{}]+|\n")


def read_colvars(path: str | Path) -> Block:
    """Keywords of a configuration in lower case, each with its values and blocks in order.

    Raises:
        ExportError: If braces do not match.
    """
    text = re.sub(r"#[^\n]*", "", Path(path).read_text())
    tokens = _TOKENS.findall(text)
    root: Block = {}
    stack, words = [root], list[str]()

    def end_line() -> None:
        if words:
            stack[-1].setdefault(words[0].lower(), []).append(" ".join(words[1:]))
        words.clear()

    for token in tokens:
        if token == "{":
            inner: Block = {}
            stack[-1].setdefault(words.pop(0).lower() if words else "", []).append(inner)
            stack.append(inner)
        elif token == "}":
            end_line()
            stack.pop()
            if not stack:
                raise ExportError(f"{path} closes a brace that was not opened")
        elif token == "\n":
            end_line()
        else:
            words.append(token)
    end_line()
    if len(stack) != 1:
        raise ExportError(f"{path} leaves {len(stack) - 1} braces open")
    return root


def colvars_quantities(path: str | Path, x: Array) -> Quantities:
    """The colvars of a configuration, with gradients, for positions ``(n, n_atoms, 3)`` in nm.

    Inner components sorted by name, dihedrals in degrees, distances in the configuration's unit
    system, each times its ``componentCoeff``; the model loaded on the CPU and called with zeros
    first, then one row of float32 at a time, one output component.

    Raises:
        ExportError: If Colvars would refuse the file, or there is something else in it.
    """
    path = Path(path)
    root = read_colvars(path)
    units = str(root.get("units", ["gromacs"])[0])
    found: Quantities = {}
    for colvar in _blocks(root, "colvar"):
        name = _word(path, colvar, "name")
        (network,) = _blocks(colvar, "torchann")
        parts = sorted(
            (_word(path, block, "name"), kind, block)
            for kind in ("dihedral", "distance")
            for block in _blocks(network, kind)
        )
        if len({part[0] for part in parts}) < len(parts):
            raise ExportError(f"{path}: components of {name} share a name")
        inputs = [_component(path, kind, block, x, units) for _, kind, block in parts]
        file = path.parent / _word(path, network, "modelfile")
        module, _ = load_torchscript(file, optimise=False)
        module(torch.zeros(1, len(inputs), dtype=torch.float32))
        k = int(_word(path, network, "output_component"))
        rows = torch.as_tensor(np.stack([value for value, _ in inputs], axis=1))
        pairs = [columns_and_slopes(module, row) for row in rows]
        slopes = np.stack([slope[k].double().numpy() for _, slope in pairs])
        gradients = np.stack([gradient for _, gradient in inputs], axis=1)
        found[name] = (
            np.array([float(values[k]) for values, _ in pairs]),
            np.einsum("na,naix->nix", slopes, gradients),
        )
    return found


def _component(path: Path, kind: str, block: Block, x: Array, units: str) -> tuple[Array, Array]:
    """Value and gradient of a component in Colvars' units, times its coefficient."""
    n_groups = 4 if kind == "dihedral" else 2
    atoms = []
    for n in range(1, n_groups + 1):
        (group,) = _blocks(block, f"group{n}")
        atoms.append(int(_word(path, group, "atomnumbers")) - 1)
    value, gradient = torsion(x, atoms) if n_groups == 4 else distance(x, atoms)
    by_mdtraj = mdtraj_descriptors(x, [atoms] * (n_groups == 4), [atoms] * (n_groups == 2))[:, 0]
    hold_to_mdtraj(path, _word(path, block, "name"), value, by_mdtraj, gradient)
    unit = 180 / math.pi if n_groups == 4 else 1 / _NM[units]
    coefficient = float(_word(path, block, "componentcoeff")) if "componentcoeff" in block else 1.0
    return coefficient * (unit * value), coefficient * (unit * gradient)


def _blocks(block: Block, key: str) -> list[Block]:
    return [value for value in block.get(key, []) if isinstance(value, dict)]


def _word(path: Path, block: Block, key: str) -> str:
    values = [value for value in block.get(key, []) if isinstance(value, str)]
    if len(values) != 1:
        raise ExportError(f"{path} must give {key} once in a block, got it {len(values)} times")
    return values[0]
