"""PLUMED driven from Python, as a program of its own: its LibTorch may be another than torch's.

Usage: python -P plumed_driver.py GIVEN.npz FOUND.npz. Exit code 3: PLUMED is not here, or cannot
read models. Needs NumPy and PLUMED's Python interface alone.
"""

import sys
from typing import Any

import numpy as np

NOT_HERE = 3
_UNKNOWN = ("is not known", "cannot understand line", "unknown action")
"""What versions of PLUMED say of an action that was not compiled."""


def drive(lines: list[str], node: str, x: Any) -> tuple[Any, Any]:
    """Value ``(n,)`` and gradient ``(n, n_atoms, 3)`` of one quantity of an input file.

    The quantity is a bias, so that its gradient comes as minus the forces.
    """
    import plumed

    n_atoms = x.shape[1]
    engine = plumed.Plumed()
    engine.cmd("setMDEngine", "gencg")
    engine.cmd("setNatoms", n_atoms)
    engine.cmd("setTimestep", 0.001)
    engine.cmd("setKbT", 2.494)
    engine.cmd("setLogFile", "/dev/null")
    engine.cmd("init")
    # An angle is periodic, and a bias may not be
    biased = [f"gencg_value: CUSTOM ARG={node} FUNC=x PERIODIC=NO", "BIASVALUE ARG=gencg_value"]
    for line in [*lines, *biased]:
        engine.cmd("readInputLine", line)
    values, gradients = np.zeros(len(x)), np.zeros_like(x)
    masses, box, virial = np.ones(n_atoms), np.zeros((3, 3)), np.zeros((3, 3))
    for k, positions in enumerate(x):
        forces, bias = np.zeros((n_atoms, 3)), np.zeros(1)
        engine.cmd("setStep", k)
        engine.cmd("setMasses", masses)
        engine.cmd("setBox", box)
        engine.cmd("setPositions", np.ascontiguousarray(positions))
        engine.cmd("setForces", forces)
        engine.cmd("setVirial", virial)
        engine.cmd("calc")
        engine.cmd("getBias", bias)
        values[k], gradients[k] = bias[0], -forces
    return values, gradients


def main(given: str, found: str) -> int:
    """Compute what a file asks for; the exit code."""
    try:
        import plumed

        plumed.Plumed()
    except (ImportError, RuntimeError):
        return NOT_HERE
    asked = np.load(given)
    lines, nodes, x = asked["lines"].tolist(), asked["nodes"].tolist(), asked["x"]
    try:
        pairs = [drive(lines, node, x) for node in nodes]
    except RuntimeError as error:
        text = str(error)
        print(" ".join(text.split()), file=sys.stderr)
        unknown = any(words in text.lower() for words in _UNKNOWN)
        return NOT_HERE if unknown and "PYTORCH_MODEL" in text else 1
    np.savez(found, values=[pair[0] for pair in pairs], gradients=[pair[1] for pair in pairs])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
