"""Checksums of input files, by which a changed one is noticed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def file_checksum(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def forcefield_checksum(names: Sequence[str]) -> str | None:
    """SHA-256 over those force-field files that are files here; None where OpenMM brings all."""
    own = [file_checksum(name) for name in names if Path(name).is_file()]
    return hashlib.sha256("".join(own).encode()).hexdigest() if own else None
