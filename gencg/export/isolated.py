"""Trajectories read in a process of their own, which a damaged one may bring down.

MDTraj reads XTC, DCD, TRR and other binary formats with C code that trusts what it reads. Its
process gives back arrays, through a pipe, and nothing else.
"""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRUSTING = (
    ".xtc", ".trr", ".dcd", ".nc", ".netcdf", ".ncdf", ".ncrst", ".binpos", ".dtr", ".stk", ".tng",
    ".gsd",
)  # fmt: skip
"""Formats that are read apart."""
READ = """
import io, os, sys, warnings
# What the C code prints goes another way
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
warnings.simplefilter("ignore")
import mdtraj, numpy
top = mdtraj.Topology()
residue = top.add_residue("X", top.add_chain())
for _ in range(int(sys.argv[2])):
    top.add_atom("X", mdtraj.element.virtual, residue)
try:
    frames = mdtraj.load(sys.argv[1], top=top)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
none = numpy.zeros((0, 3))
for values in (frames.xyz, frames.time, frames.unitcell_lengths, frames.unitcell_angles):
    array = io.BytesIO()
    numpy.save(array, none if values is None else values, allow_pickle=False)
    out.write(array.getbuffer())
out.close()
"""


def load_apart(path: Path, topology: Any) -> Any:
    """A trajectory as `mdtraj.load` gives it, read in a process of its own.

    Args:
        path: The trajectory.
        topology: Its atoms.

    Raises:
        ValueError: If it cannot be read, or its reader comes down over it.
    """
    code, content, words = run_apart([str(path.absolute()), str(topology.n_atoms)])
    if code:
        lines = words.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if code > 0 and lines else f"its reader fell over it ({code})")
    # A pipe has no position, and what comes of it is held anyway
    file = io.BytesIO(content)
    arrays: list[NDArray[Any]] = [np.load(file, allow_pickle=False) for _ in range(4)]
    from mdtraj import Trajectory

    x, time, lengths, angles = arrays
    cell = {"unitcell_lengths": lengths, "unitcell_angles": angles} if len(lengths) else {}
    return Trajectory(x, topology, time=time, **cell)


def run_apart(arguments: list[str]) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of `READ`."""
    # -P: modules of the working directory are not those that are meant
    done = subprocess.run([sys.executable, "-P", "-c", READ, *arguments], capture_output=True)
    return done.returncode, done.stdout, done.stderr
