"""Files that are either old or new, never half."""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, or a quota, that has no more room."""
UNWRITABLE = (*FULL, errno.EROFS, errno.EIO)
"""Errors of writing that are no fault of what was asked for."""
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""Errors of file systems on which the names in a folder cannot be flushed."""
_DRAFT = re.compile(r"\.draft-(?P<pid>\d+)@(?P<host>[\w.]+)-(?P<name>.+)")
_EARLIER = re.compile(r"\.(?:(?P<pid>\d+)-(?P<name>.+)|(?P<name_2>.+)\.(?P<pid_2>\d+)\.tmp)")
"""Names of drafts of earlier versions, which may also be those of other files."""


@dataclass(frozen=True)
class Draft:
    """A file that is not yet in its place.

    Attributes:
        path: Where it lies.
        name: Name of the file it is to become.
        pid: Number of the process that writes or wrote it.
        host: Machine of that process; None for a name of an earlier version, which may be that
            of anything else.
    """

    path: Path
    name: str
    pid: int
    host: str | None

    @property
    def is_left(self) -> bool:
        """Whether its process is known to be gone: of another machine one knows nothing."""
        return self.host in (None, _host()) and not is_alive(self.pid)


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
    draft = path.with_name(f".draft-{os.getpid()}@{_host()}-{path.name}")
    try:
        yield draft
        _flush(draft)
        os.replace(draft, path)
        _flush_names(path.parent)
    except OSError as error:
        if error.errno is None or error.errno == errno.EIO:
            raise
        # Of the file, not of its draft; other libraries name none
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the errors of writing within the block tell of which file they are.

    Raises:
        OSError: As it was raised, with the name of the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def drafts(folder: Path) -> Iterator[Draft]:
    """Drafts that lie in a folder."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if match := _DRAFT.fullmatch(path.name):
            yield Draft(path, match["name"], int(match["pid"]), match["host"])
        elif match := _EARLIER.fullmatch(path.name):
            name, pid = match["name"] or match["name_2"], match["pid"] or match["pid_2"]
            yield Draft(path, name, int(pid), None)


def remove_left_drafts(folder: Path) -> None:
    """Remove the drafts that killed processes of this machine left in a folder."""
    for draft in drafts(folder):
        if draft.host is not None and draft.is_left:
            draft.path.unlink(missing_ok=True)


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


def _flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where its file system knows of that."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


def _host() -> str:
    """This machine, in letters that a name of a file may have."""
    return re.sub(r"[^\w.]", "_", socket.gethostname()) or "_"
