"""A view to turn with the mouse, by py3Dmol, whose script the browser loads from its own site."""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

from gencg.analysis.alignment import superposed
from gencg.molecule import Molecule
from gencg.notebook.display import tell_once
from gencg.notebook.route import Route
from gencg.notebook.selection import Selection
from gencg.run.states import masses_without_ch

HAZE = 12
"""Structures drawn thin around the representative."""


def view3d(what: Selection | Route, molecule: Molecule | None, *, width: int, height: int) -> Any:
    """A py3Dmol view of a selection or a path; None where py3Dmol is missing, which is told once.

    Args:
        what: What to show; the frames of a path are played.
        molecule: Topology.
        width: Pixels.
        height: Pixels.

    Raises:
        ValueError: If there is no molecule to show.
    """
    if molecule is None:
        raise ValueError("a toy has no atoms to show; `figure` draws it")
    if importlib.util.find_spec("py3Dmol") is None:
        tell_once("a view to turn needs py3Dmol: pip install 'gencg[notebook]'; figures do not")
        return None
    import py3Dmol

    view = py3Dmol.view(width=width, height=height)
    if isinstance(what, Route):
        view.addModelsAsFrames(_pdb(molecule, what.frames), "pdb")
        view.setStyle({"stick": {"radius": 0.13}, "sphere": {"scale": 0.22}})
        view.animate({"loop": "backAndForth", "interval": 120})
    else:
        x = what.structures(HAZE)
        laid = superposed(x, x[0], masses_without_ch(molecule))
        for k in range(len(laid)):
            view.addModel(_pdb(molecule, laid[k : k + 1]), "pdb")
            thin = {"stick": {"radius": 0.04, "opacity": 0.5}}
            thick = {"stick": {"radius": 0.13}, "sphere": {"scale": 0.22}}
            view.setStyle({"model": k}, thin if k else thick)
    view.zoomTo()
    return view


def _pdb(molecule: Molecule, x: Any) -> str:
    """Structures as the text of a PDB file of several models."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "view.pdb"
        molecule.to_mdtraj(x).save_pdb(str(path))
        return path.read_text()
