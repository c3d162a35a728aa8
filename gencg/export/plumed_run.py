"""PLUMED itself on the file that was written for it, where it is installed."""

import importlib.util
import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gencg.export.checks import Array, ExportError, Quantities
from gencg.export.plumed_driver import NOT_HERE

logger = logging.getLogger("gencg")

DRIVER = Path(__file__).with_name("plumed_driver.py")


def plumed_itself(path: Path, nodes: Mapping[str, str], x: Array) -> Quantities | None:
    """Columns and angles of an input file with gradients, by PLUMED, in a process of its own.

    Args:
        path: The input file.
        nodes: PLUMED's name of each quantity.
        x: Positions ``(n, n_atoms, 3)`` in nm.

    Returns:
        The quantities; None where PLUMED's Python interface is not installed, finds no kernel,
        or the kernel has no PYTORCH_MODEL; and, which is told, where it breaks down.

    Raises:
        ExportError: If PLUMED refuses the file.
    """
    if importlib.util.find_spec("plumed") is None:
        return None
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith("PRINT")]
    with tempfile.TemporaryDirectory(prefix="gencg-") as scratch:
        given, found = Path(scratch) / "given.npz", Path(scratch) / "found.npz"
        np.savez(given, lines=np.array(lines), nodes=np.array(list(nodes.values())), x=x)
        # -P: the folder of the driver has a plumed.py of its own
        run = subprocess.run(
            [sys.executable, "-P", str(DRIVER), str(given), str(found)],
            cwd=path.parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if run.returncode == NOT_HERE:
            return None
        if run.returncode < 0:
            logger.warning(
                "PLUMED broke down on %s (%s), so that it was not checked by PLUMED itself; its "
                "LibTorch may be another than the one it was built with: run PLUMED on the file "
                "before you rely on it",
                path,
                _signal_name(-run.returncode),
            )
            return None
        if run.returncode:
            reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ExportError(f"{path} is refused by PLUMED: {reason}")
        with np.load(found) as arrays:
            pairs = zip(arrays["values"], arrays["gradients"], strict=True)
            return dict(zip(nodes, pairs, strict=True))


def _signal_name(number: int) -> str:
    """SIGSEGV for 11, for instance."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
