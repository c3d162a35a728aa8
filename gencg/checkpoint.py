"""Checkpoints: versioned, checksummed, written atomically, loaded without running code."""

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
_MAGIC = b"gencg-checkpoint\n"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the reason and the cure."""


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write tensors and plain Python values so that a kill at any moment leaves a whole file.

    The file is a magic line, the SHA-256 of the rest, and a `torch.save` archive. It is written
    beside its place, flushed to the disk and renamed.
    """
    path = Path(path)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    payload = buffer.getvalue()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: If the file is missing, damaged, or of a newer format.
    """
    path = Path(path)
    cure = "restore the file or start over with --override"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error.strerror}); {cure}"
        ) from None
    head = len(_MAGIC)
    payload = data[head + 32 :]
    if not data.startswith(_MAGIC) or hashlib.sha256(payload).digest() != data[head : head + 32]:
        raise CheckpointError(f"checkpoint {path} is damaged (wrong checksum); {cure}")
    try:
        content: dict[str, Any] = torch.load(
            io.BytesIO(payload), map_location="cpu", weights_only=True
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise CheckpointError(
            f"checkpoint {path} holds more than tensors and plain values ({error}); {cure}"
        ) from None
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {content.get('format')}, this gencg reads {FORMAT}; "
            "use the gencg that wrote it"
        )
    return content
