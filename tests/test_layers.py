"""Imports inside gencg point down: the arrows of the design.

Cannot detect: an import made by name at run time (`importlib`), or a dependency through an
argument; only import statements are read, also those inside functions.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gencg

ROOT = Path(__file__).parents[1] / "gencg"

# Later rooms import earlier ones
ORDER = [
    "units",
    "deadline",
    "html",
    "files",
    "native",
    "parallel",
    "geometry",
    "importance",
    "matching",
    "molecule",
    "coordinates",
    "energies",
    "target",
    "systems",
    "distributions",
    "models",
    "checkpoint_archive",
    "checkpoint",
    "drawn",
    "ensemble",
    "objectives",
    "tempering",
    "targeted",
    "reweighting",
    "testing",
    "optimisers",
    "guard",
    "training",
    "fit",
    "mixing",
    "pretrained",
    "discover",
    "analysis",
    "plots",
    "export",
    "report",
    "config",
    "run",
    "notebook",
    "cli",
    "__main__",
]

# Rooms that do not know each other, although the order would allow it
APART = {
    "energies": {"coordinates"},
    "distributions": {"coordinates", "energies", "target", "systems"},
    "models": {"energies", "target", "systems"},
    "export": {"plots"},
}

# Who may import what from outside
GUESTS = {
    "openmm": (
        "energies/openmm.py",
        "energies/openmm_values.py",
        "systems/",
        "export/openmm_check.py",
        "export/openmm_cv.py",
    ),
    "mdtraj": ("molecule.py", "ensemble.py", "export/", "systems/"),
    "rdkit": ("energies/mmff.py", "systems/"),
    "tblite": ("energies/tblite_values.py",),
    "plumed": ("export/plumed_driver.py",),
}


def imported_modules(source: str, module: str, *, is_package: bool) -> set[str]:
    """Dotted names that a module imports, relative ones resolved."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                keep = len(parts) - node.level + is_package
                base = ".".join(parts[:keep] + ([base] if base else []))
            # `from gencg import units` imports a room, not a name
            found |= {f"{base}.{a.name}" for a in node.names} if base == "gencg" else {base}
    return found


def violations(path: Path, source: str, *, root: Path = ROOT) -> list[str]:
    """What is wrong with the imports of one file of gencg."""
    relative = path.relative_to(root).as_posix()
    is_package = path.name == "__init__.py"
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(("gencg", *(parts[:-1] if is_package else parts)))
    own = module.split(".")[1] if "." in module else ""
    wrong = []
    for name in sorted(imported_modules(source, module, is_package=is_package)):
        top, *rest = name.split(".")
        if top in GUESTS and not relative.startswith(GUESTS[top]):
            wrong.append(f"{relative} imports {name}, which only {GUESTS[top]} may")
        if top != "gencg" or not own:
            continue
        other = rest[0] if rest else ""
        if other not in ORDER:
            wrong.append(f"{relative} imports {name}, which is no room below it")
        elif other != own and ORDER.index(other) > ORDER.index(own):
            wrong.append(f"{relative} imports {name}: the arrow points up")
        elif other in APART.get(own, ()):
            wrong.append(f"{relative} imports {name}: {own} does not know {other}")
    return wrong


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[p.relative_to(ROOT).as_posix() for p in FILES])
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    assert own == "__init__" or own in ORDER, f"{path} is no room of the design; add it to ORDER"
    assert violations(path, path.read_text()) == []


@pytest.mark.parametrize(
    "file, line",
    [
        ("units.py", "import gencg.molecule"),
        ("importance.py", "from gencg.ensemble import Ensemble"),
        ("target.py", "from gencg import systems"),
        ("target.py", "from .systems import base"),
        ("coordinates/internal.py", "from ..energies.base import Energy"),
        ("energies/base.py", "from gencg.coordinates.base import CoordinateMap"),
        ("models/decoders.py", "def late():\n    from gencg.energies.toy import DoubleWell"),
        ("models/__init__.py", "from ..fit import fit"),
        ("objectives/reverse_kl.py", "from gencg.fit import fit"),
        ("export/trajectory.py", "from gencg.plots import plot_energy"),
        ("energies/toy.py", "from gencg import DoubleWell"),
        ("energies/toy.py", "import gencg"),
        ("energies/bonded.py", "import openmm.app"),
        ("analysis/torsions.py", "import mdtraj as md"),
        ("coordinates/zmatrix.py", "from rdkit import Chem"),
        ("energies/tblite.py", "from tblite.interface import Calculator"),
    ],
)
def test_a_planted_violation_is_caught(file: str, line: str) -> None:
    path = ROOT / file
    before = path.read_text() if path.exists() else ""
    assert violations(path, before) == []
    assert len(violations(path, f"{before}\n{line}\n")) == 1


@pytest.mark.parametrize(
    "file, line",
    [
        ("energies/bonded.py", "from gencg.energies.base import Energy"),
        ("energies/bonded.py", "from .base import Energy"),
        ("systems/openmm.py", "import openmm"),
        ("systems/__init__.py", "from ..molecule import Molecule"),
        ("models/decoders.py", "from gencg.coordinates.base import CoordinateMap"),
        ("analysis/torsions.py", "from gencg import geometry"),
        ("cli/verbs/fit.py", "import gencg.fit"),
        ("__init__.py", "from gencg.cli import main"),
    ],
)
def test_an_arrow_that_points_down_passes(file: str, line: str) -> None:
    assert violations(ROOT / file, line) == []


def run(code: str) -> None:
    subprocess.run([sys.executable, "-B", "-W", "error", "-c", code], check=True)


def test_importing_gencg_loads_and_writes_nothing() -> None:
    run("import sys, gencg; assert not {'torch', 'numpy', 'openmm', 'mdtraj'} & set(sys.modules)")

    # Nor do its names write, beyond what their dependencies do at import
    run("""
import sys, torch, pyro, mdtraj, normflows, matplotlib.pyplot
import gencg

def refuse_writing(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise RuntimeError(f"writes {arguments[0]}")

before = set(sys.modules)
sys.addaudithook(refuse_writing)
for name in gencg.__all__:
    getattr(gencg, name)
late = {"openmm", "arviz", "rdkit", "tblite", "ipywidgets", "anywidget", "py3Dmol"}
heavy = late & (set(sys.modules) - before)
assert not heavy, heavy
""")


def test_public_names_are_the_declared_ones() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {
        alias.name: (node.module or "").removeprefix("gencg").lstrip(".") or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert list(declared) == gencg.__all__
    assert declared == gencg._HOMES
    for name in gencg.__all__:
        assert getattr(gencg, name).__doc__, name
        assert name in dir(gencg)
    with pytest.raises(AttributeError, match="module 'gencg' has no attribute 'fitt'"):
        _ = gencg.fitt
