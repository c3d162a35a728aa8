"""The pages of the API, one a room, written from the package into docs/api before each build."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

INTERNAL = ("cli", "config", "native", "report")
"""Rooms that are no library."""
MODULES = (
    "units", "geometry", "importance", "molecule", "target", "targeted", "ensemble", "tempering",
    "optimisers", "fit", "checkpoint", "parallel", "testing",
)  # fmt: skip
"""Modules beside the rooms that are of use from outside."""


def pages() -> dict[str, str]:
    """Texts of all pages by file name.

    A room whose `__init__` lists what is public has that, in this order; of another every module is
    shown, since it is there to be extended.
    """
    import gencg

    seen: set[int] = set()
    found = [item.name for item in pkgutil.iter_modules(gencg.__path__) if item.ispkg]
    rooms = {name: importlib.import_module(f"gencg.{name}") for name in sorted(found)}
    top = [name for name in gencg.__all__ if name not in rooms]
    texts = {"0_gencg": _page("gencg", gencg, top, seen, "What `import gencg` gives")}
    listed = {name: _public(room, everything=True) for name, room in rooms.items()}
    shown = [name for name in rooms if name not in INTERNAL]
    for name in (name for name in shown if listed[name]):
        texts[f"1_{name}"] = _page(f"gencg.{name}", rooms[name], listed[name], seen)
    for name in (name for name in shown if not listed[name]):
        parts = sorted(item.name for item in pkgutil.iter_modules(rooms[name].__path__))
        texts[f"2_{name}"] = _modules(f"gencg.{name}", [f"gencg.{name}.{m}" for m in parts], seen)
    texts["3_modules"] = _modules("Single modules", [f"gencg.{m}" for m in MODULES], seen)
    return texts


def _page(
    title: str, module: ModuleType, names: list[str], seen: set[int], subtitle: str = ""
) -> str:
    heading = f"{title}\n{'=' * len(title)}\n\n{subtitle or inspect.getdoc(module)}\n"
    return heading + "".join(_entry(module, name, seen) for name in names)


def _modules(title: str, names: list[str], seen: set[int]) -> str:
    text = f"{title}\n{'=' * len(title)}\n"
    for name in names:
        module = importlib.import_module(name)
        entries = "".join(_entry(module, item, seen) for item in _public(module))
        if entries:
            text += f"\n{name}\n{'-' * len(name)}\n\n{inspect.getdoc(module)}\n{entries}"
    return text


def _public(module: ModuleType, *, everything: bool = False) -> list[str]:
    """Public classes and functions in the order of the source, those of other modules if asked."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and (value.__module__ == module.__name__ or everything)
        and value.__module__.startswith("gencg")
    ]


def _entry(module: ModuleType, name: str, seen: set[int]) -> str:
    value = getattr(module, name)
    if id(value) in seen:
        return ""
    seen.add(id(value))
    if not inspect.isclass(value):
        return f"\n.. autofunction:: {module.__name__}.{name}\n"
    derived = value.__bases__ != (object,)
    text = f"\n.. autoclass:: {module.__name__}.{name}\n"
    return text + ("   :show-inheritance:\n" if derived else "")


def write(app: Any) -> None:
    """Write the pages; those that are as they were stay untouched."""
    folder = Path(app.srcdir) / "docs" / "api"
    folder.mkdir(exist_ok=True)
    texts = pages()
    for name, text in texts.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.glob("*.rst"):
        if path.stem not in texts:
            path.unlink()


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
