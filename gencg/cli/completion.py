"""What the shell is offered where a word is not finished: systems, molecule files, run folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

READY_MADE = (
    "double-well",
    "mueller-brown",
    "curved-wells",
    "gaussian-mixture",
    "butane",
    "alanine-dipeptide",
    "alanine-tetrapeptide",
    "alanine-hexapeptide",
)
"""Names of the ready-made systems, those of `gencg.systems.SYSTEMS`, which loads slowly."""
SUFFIXES = (
    ".pdb", ".cif", ".mmcif", ".prmtop", ".parm7", ".top", ".xml", ".sdf", ".sd", ".mol", ".smi",
)  # fmt: skip
"""Suffixes of files that may be a target."""


class Target(click.ParamType):  # type: ignore[type-arg]
    """A name, file, sequence or SMILES; the library reads it."""

    name = "target"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[Any]]":
        names = [name for name in READY_MADE if name.startswith(incomplete)]
        paths = [
            path for path in _paths(incomplete) if path.is_dir() or path.suffix.lower() in SUFFIXES
        ]
        return [*map(CompletionItem, names), *map(_item, paths)]


class Run(click.Path):
    """A run folder."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[Any]]":
        folders = [path for path in _paths(incomplete) if path.is_dir()]
        return [_item(path) for path in folders if _is_run(path) or any(_runs_in(path))]


def _paths(incomplete: str) -> list[Path]:
    """Paths that begin so; hidden ones only where a dot is there."""
    folder, start = (
        (Path(incomplete or "."), "")
        if not incomplete or incomplete.endswith("/")
        else (Path(incomplete).parent, Path(incomplete).name)
    )
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    return [p for p in found if p.name.startswith(start) and (start or not p.name.startswith("."))]


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file()


def _runs_in(path: Path) -> Iterator[Path]:
    try:
        yield from (child for child in path.iterdir() if _is_run(child))
    except OSError:
        return


def _item(path: Path) -> "CompletionItem[Any]":
    # The slash lets one type on into a folder that is no run
    inner = path.is_dir() and not _is_run(path)
    return CompletionItem(f"{path}/" if inner else str(path))
