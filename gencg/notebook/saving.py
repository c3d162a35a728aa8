"""What was selected as files: structures with weights, numbers, pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from gencg.analysis.alignment import superposed
from gencg.export.trajectory import save_trajectory, write_samples
from gencg.files import replacing
from gencg.molecule import Molecule
from gencg.notebook.pictures import figure_png, write_movie
from gencg.notebook.route import Route
from gencg.notebook.selection import Selection
from gencg.notebook.source import KnownState
from gencg.notebook.surface import Surface
from gencg.report import write_atomically
from gencg.run.record import write_json
from gencg.run.states import masses_without_ch

N_STRUCTURES = 20
"""Structures of equal weight in structures.pdb, the representative included."""


def write_selection(folder: str | Path, selection: Selection, figure: Figure) -> list[Path]:
    """Write a selection; see `Explorer.save`.

    Args:
        folder: Where to write; made if missing.
        selection: What to write.
        figure: Its figure.
    """
    folder = _made(folder)
    molecule = selection.ensemble.molecule
    formats = ("h5",) if molecule is None else ("h5", "xtc")
    written = write_samples(folder, selection.ensemble, formats=formats)
    if molecule is not None:
        x = selection.structures(N_STRUCTURES)
        laid = superposed(x, x[0], masses_without_ch(molecule))
        for name, structures in (("representative", laid[:1]), ("structures", laid)):
            written.append(folder / f"{name}.pdb")
            with replacing(written[-1]) as draft:
                molecule.to_mdtraj(structures).save_pdb(str(draft))
    write_json(folder / "selection.json", selection.numbers())
    write_atomically(folder / "selection.png", figure_png(figure))
    return [folder / "selection.json", folder / "selection.png", *written]


def write_route(
    folder: str | Path, route: Route, figure: Figure, molecule: Molecule | None
) -> list[Path]:
    """Write a path; see `Explorer.save`.

    Args:
        folder: Where to write; made if missing.
        route: What to write.
        figure: Its figure.
        molecule: Topology of its frames; None for a toy, of which there is no trajectory.
    """
    folder = _made(folder)
    write_json(folder / "selection.json", route.numbers() | {"frames": _frames_of(route, molecule)})
    write_atomically(folder / "selection.png", figure_png(figure))
    written = [folder / "selection.json", folder / "selection.png"]
    if molecule is not None:
        frames = molecule.to_mdtraj(route.frames)
        for suffix in ("pdb", "xtc"):
            written.append(folder / f"path.{suffix}")
            with replacing(written[-1]) as draft:
                save_trajectory(frames, draft)
        written.append(folder / "path.gif")
        write_movie(written[-1], route, molecule)
    return written


def write_surface(
    folder: str | Path, surface: Surface, states: Sequence[KnownState], figure: Figure
) -> list[Path]:
    """Write the surface and its states, for which nothing needs to be selected.

    Args:
        folder: Where to write; made if missing.
        surface: The surface.
        states: Its states.
        figure: Their figure.
    """
    folder = _made(folder)
    content = {
        "names": list(surface.names),
        "centres": [centre.tolist() for centre in surface.density.centres],
        "free_energy": surface.free_energy.tolist(),
        "states": [
            {"name": s.name, "basin": s.basin, "population": s.population[0],
             "population_error": s.population[1], "centre": list(s.centre),
             "doubts": list(s.doubts)}
            for s in states
        ],
    }  # fmt: skip
    write_json(folder / "surface.json", content)
    write_atomically(folder / "surface.png", figure_png(figure))
    return [folder / "surface.json", folder / "surface.png"]


def _frames_of(route: Route, molecule: Molecule | None) -> list[list[float]] | None:
    """Frames of a toy, which have no other file."""
    return torch.flatten(route.frames, 1).tolist() if molecule is None else None


def _made(folder: str | Path) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
