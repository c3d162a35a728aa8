"""Files that are either old or new, never half."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, or a quota, that has no more room."""
UNWRITABLE = (*FULL, errno.EROFS, errno.EIO)
"""Errors of writing that are no fault of what was asked for."""
_DRAFT = re.compile(r"^\.(?:(\d+)-(.+)|(.+)\.(\d+)\.tmp)$")
"""Names of drafts, and as they were called before."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it holds either its old content or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes the place of `path` once it is complete.

    The content is flushed to the disk before it takes the place, and the place after it. Where
    writing fails, the draft goes and the old file stays.

    Raises:
        OSError: If it cannot be written, with the name of the file.
    """
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield draft
        _flush(draft)
        os.replace(draft, path)
        _flush(path.parent)
    except OSError as error:
        if error.errno is None or error.errno == errno.EIO:
            raise
        # Of the file, not of its draft; other libraries name none
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        draft.unlink(missing_ok=True)


def drafts(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Drafts that lie in a folder, what they are of, and which process writes or wrote them."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := _DRAFT.match(path.name):
            yield path, match[2] or match[3], int(match[1] or match[4])


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
