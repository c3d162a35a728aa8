"""The files that a target is made of, as a run keeps them."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencg.systems.registry import kind_of

_INCLUDE = re.compile(rb"""(<Include\s[^>]*?file\s*=\s*)(["'])(.*?)\2""")


@dataclass(frozen=True)
class InputFile:
    """A file that a target needs, complete in itself.

    Attributes:
        given: Its path as the user gave it.
        name: Its name among the copies.
        content: What is kept: the file, with the names of included ones changed to those of their
            copies, or (GROMACS) with the included ones written out in it.
    """

    given: str
    name: str
    content: bytes

    @property
    def checksum(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


def input_files(target: str, options: Mapping[str, Any]) -> list[InputFile]:
    """Files of a target and its options: structure or topology, coordinates, own force fields.

    Files that are not there are left out; the loader says so.

    Args:
        target: As of `gencg.systems.load`.
        options: Options of its loader, by name.
    """
    kind, files = kind_of(target), _Files()
    if kind.contents is not None:
        with suppress(FileNotFoundError):
            files.add(target, kind.contents(target, options))
    coordinates = options.get("coordinates")
    if coordinates and Path(coordinates).is_file():
        files.add(str(coordinates), Path(coordinates).read_bytes())
    for name in options.get("forcefield") or ():
        if Path(name).is_file():
            files.add_force_field(str(name))
    return list(files)


class _Files:
    """Files by their path, under names that no two share."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._contents: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[InputFile]:
        return (InputFile(p, self._names[p], c) for p, c in self._contents.items())

    def _name(self, path: str) -> str:
        name = Path(path).name
        taken = {k for p, k in self._names.items() if p != path}
        while name in taken:
            name = f"{len(taken)}-{name}"
        return self._names.setdefault(path, name)

    def add(self, path: str, content: bytes) -> None:
        self._name(path)
        self._contents[path] = content

    def add_force_field(self, path: str) -> str:
        """Add a force-field file and what it includes; returns its name."""
        if path in self._names:
            return self._names[path]
        name = self._name(path)

        def copied(match: re.Match[bytes]) -> bytes:
            included = Path(path).parent / match[3].decode()
            if not included.is_file():
                return match[0]  # OpenMM's own
            return match[1] + b'"' + self.add_force_field(str(included)).encode() + b'"'

        self._contents[path] = _INCLUDE.sub(copied, Path(path).read_bytes())
        return name
