"""Checkpoints: versioned, checksummed, written atomically, loaded without running code.

A file is a magic line, the SHA-256 of the rest, and the rest. That of format 2 is the line
``format 2``, the length of a JSON text in eight bytes (little-endian), the JSON text, and the bytes
of the tensors one after the other. In the JSON text ``{"$tensor": [dtype, shape]}`` stands for the
next tensor, ``{"$tuple": [...]}`` for a tuple and ``{"$items": [[key, value], ...]}`` for a mapping
whose keys are not all plain words. Nothing in it is code, and no number in it makes the reader take
more memory than the file is long. Format 1 was a `torch.save` archive; see `checkpoint_archive`.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from gencg.checkpoint_archive import ARCHIVE, read_archive
from gencg.files import replacing

FORMAT = 2
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64,
        torch.complex128, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
        torch.bool,
    )
}  # fmt: skip
LONGEST_TEXT = 2**25
"""Bytes of the JSON text at most: what is read before the sizes of the tensors are known."""
_MAGIC = b"gencg-checkpoint\n"
_HEAD = len(_MAGIC) + 32
_CHUNK = 2**20


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the reason and the cure."""


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write tensors and plain Python values so that a kill at any moment leaves a whole file.

    It is written beside its place, flushed to the disk and renamed.

    Raises:
        CheckpointError: If `content` holds something else.
        OSError: If it cannot be written; the file of before stays.
    """
    tree, tensors = _pieces(content)
    if len(tree) > LONGEST_TEXT:
        raise CheckpointError(
            f"`content` must hold plain values of at most {LONGEST_TEXT:,} bytes, got "
            f"{len(tree):,}; put long lists of numbers into tensors"
        )
    digest = hashlib.sha256()
    with replacing(Path(path)) as draft, open(draft, "wb") as file:
        file.write(_MAGIC + bytes(32))
        for piece in (b"format %d\n" % FORMAT, len(tree).to_bytes(8, "little"), tree):
            digest.update(piece)
            file.write(piece)
        for tensor in tensors:
            content_bytes = tensor.reshape(-1).view(torch.uint8).numpy().data
            digest.update(content_bytes)
            file.write(content_bytes)
        file.seek(len(_MAGIC))
        file.write(digest.digest())


def checkpoint_size(content: dict[str, Any]) -> int:
    """Bytes of the file that `save_checkpoint` would write."""
    tree, tensors = _pieces(content)
    head = _HEAD + len(b"format %d\n" % FORMAT) + 8
    return head + len(tree) + sum(tensor.nbytes for tensor in tensors)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU; nothing but tensors and plain values can come of it.

    Raises:
        CheckpointError: If the file is missing, damaged, or of a newer format.
    """
    path = Path(path)
    cure = "restore it, or remove that file alone and run the same command: its stage begins again"
    try:
        with open(path, "rb") as file:
            n_bytes = _checked(file, path, cure)
            file.seek(_HEAD)
            begin = file.read(32)
            file.seek(_HEAD)
            if begin.startswith(ARCHIVE):
                return read_archive(file.read())
            match = re.match(rb"format (\d{1,9})\n", begin)
            number = int(match[1]) if match else None
            if match is None or number != FORMAT:
                raise CheckpointError(
                    f"checkpoint {path} has format {number}, this gencg reads 1 to {FORMAT}; use "
                    "the gencg that wrote it"
                )
            file.seek(_HEAD + match.end())
            return _read(file, n_bytes - _HEAD - match.end())
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error.strerror}); {cure}"
        ) from None
    # What a file with a right checksum holds may still be anything
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f"checkpoint {path} holds more than tensors and plain values ({reason}); {cure}"
        ) from None


def _checked(file: IO[bytes], path: Path, cure: str) -> int:
    """Length of a file whose checksum is right, of which no more than a piece is held at once."""
    head = file.read(_HEAD)
    digest = hashlib.sha256()
    n_bytes = len(head)
    while piece := file.read(_CHUNK):
        digest.update(piece)
        n_bytes += len(piece)
    if not head.startswith(_MAGIC) or digest.digest() != head[len(_MAGIC) :]:
        raise CheckpointError(f"checkpoint {path} is damaged (wrong checksum); {cure}")
    return n_bytes


def _read(file: IO[bytes], n_bytes: int) -> dict[str, Any]:
    """Content of the rest of a file of format 2, which is `n_bytes` long."""
    n_text = int.from_bytes(file.read(8), "little")
    if n_text > min(LONGEST_TEXT, n_bytes - 8):
        raise ValueError(f"its text cannot have {n_text} bytes")
    tree = json.loads(file.read(n_text))
    left = n_bytes - 8 - n_text

    def tensor(dtype: str, shape: list[int]) -> Tensor:
        nonlocal left
        kind = DTYPES[dtype]
        if not all(type(n) is int and 0 <= n < 2**48 for n in shape):
            raise ValueError(f"no tensor has the shape {shape}")
        size = math.prod(shape) * kind.itemsize
        if size > left:
            raise ValueError(f"a tensor of {size} bytes is longer than the file")
        left -= size
        if size == 0:
            return torch.empty(shape, dtype=kind)
        values = np.empty(size, dtype=np.uint8)
        if file.readinto(values.data) != size:  # type: ignore[attr-defined]
            raise ValueError("it changed while it was read")
        return torch.from_numpy(values).view(kind).reshape(shape)

    content = _decoded(tree, tensor)
    if not isinstance(content, dict) or left:
        raise ValueError("it is no mapping, or has a tail")
    return content


def _pieces(content: dict[str, Any]) -> tuple[bytes, list[Tensor]]:
    """The JSON text of a content, and its tensors in their order."""
    tensors: list[Tensor] = []
    tree = json.dumps(_encoded(content, tensors, "content"), separators=(",", ":"))
    return tree.encode(), tensors


def _encoded(value: Any, tensors: list[Tensor], place: str) -> Any:
    """JSON of a value, whose tensors go into the list in the order of the text."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Tensor) and str(value.dtype).removeprefix("torch.") in DTYPES:
        tensors.append(value.detach().cpu().contiguous())
        return {"$tensor": [str(value.dtype).removeprefix("torch."), list(value.shape)]}
    if isinstance(value, tuple):
        return {"$tuple": [_encoded(v, tensors, f"{place}[{k}]") for k, v in enumerate(value)]}
    if isinstance(value, list):
        return [_encoded(v, tensors, f"{place}[{k}]") for k, v in enumerate(value)]
    if isinstance(value, dict):
        pairs = [
            (_encoded(k, tensors, f"key {k!r} of {place}"), _encoded(v, tensors, f"{place}.{k}"))
            for k, v in value.items()
        ]
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return dict(pairs)
        return {"$items": pairs}
    raise CheckpointError(
        f"{place} must be a tensor or a plain value, got {type(value).__name__}; a checkpoint "
        "holds nothing else"
    )


def _decoded(tree: Any, tensor: Callable[[str, list[int]], Tensor]) -> Any:
    """The value that `_encoded` wrote."""
    if isinstance(tree, list):
        return [_decoded(item, tensor) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        if "$tensor" in tree:
            dtype, shape = tree["$tensor"]
            return tensor(dtype, shape)
        if "$tuple" in tree:
            return tuple(_decoded(item, tensor) for item in tree["$tuple"])
        if "$items" in tree:
            return dict(_pairs(tree["$items"], tensor))
    return {key: _decoded(item, tensor) for key, item in tree.items()}


def _pairs(
    items: list[Any], tensor: Callable[[str, list[int]], Tensor]
) -> Iterator[tuple[Any, Any]]:
    for key, value in items:
        yield _decoded(key, tensor), _decoded(value, tensor)
