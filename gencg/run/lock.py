"""The lock of a run folder: one process at a time writes into it.

The kernel's lock on the file ``.lock`` goes with the process that holds it, however it ends. Where
a file system has no such locks, or they do not reach other machines, the file itself tells: it
names the process and the machine, and its count grows while the process lives. No clock is
compared.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gencg.files import is_alive, naming

logger = logging.getLogger("gencg")

LOCK = ".lock"
BEAT = 5.0
"""Seconds between two beats of a holder."""
PATIENCE = 4 * BEAT
"""Seconds without a beat after which a holder on another machine counts as gone."""
SETTLING = 0.5
"""Seconds after which of several that took a folder at once, without locks, all but one see it."""
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_LONGEST = 4096


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold a folder as long as the block lasts.

    A lock that a dead process left is taken over, and the log says so. One of another machine is
    watched for `PATIENCE` first.

    Raises:
        ValueError: If another process holds it, or the lock leads out of the folder.
        OSError: If the folder cannot be written.
    """
    descriptor = _open(folder / LOCK)
    try:
        reaches = _try(descriptor, folder)
        _take_over(descriptor, folder, reaches=reaches)
        stop = threading.Event()
        record = _own()
        with naming(folder / LOCK):
            _write(descriptor, record)
        if not reaches:
            _refuse_later(descriptor, folder, record)
        beating = threading.Thread(target=_beat, args=(descriptor, record, stop), daemon=True)
        beating.start()
        try:
            yield
        finally:
            stop.set()
            beating.join()
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{path} is a link, which no gencg made; remove it") from None
        raise


def _try(descriptor: int, folder: Path) -> bool:
    """Lock the file; whether the file system has locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        if error.errno not in _HELD:
            raise OSError(error.errno, error.strerror, str(folder / LOCK)) from error
        raise _in_use(folder, _read(descriptor)) from None
    return True


def _take_over(descriptor: int, folder: Path, *, reaches: bool) -> None:
    """Refuse the lock of a process that lives; tell of that of one which does not."""
    record = _read(descriptor)
    if record is None:
        return
    here = record.get("host") == socket.gethostname()
    if here:
        # On one machine a lock of the kernel that was free says it all
        lives = not reaches and _runs(record)
    else:
        logger.warning(
            "the lock of %s is of %s; waiting %.0f s for a sign of life", folder, _who(record),
            PATIENCE,
        )  # fmt: skip
        lives = _beats(descriptor, record)
    if lives:
        raise _in_use(folder, record)
    logger.warning("%s was left by %s, which is gone; going on", folder, _who(record))


def _refuse_later(descriptor: int, folder: Path, record: dict[str, Any]) -> None:
    """Without locks, refuse a folder that another process took at the same moment."""
    time.sleep(SETTLING)
    if (there := _read(descriptor)) != record:
        raise _in_use(folder, there)


def _beats(descriptor: int, record: dict[str, Any]) -> bool:
    """Whether the record changes while one looks at it."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        time.sleep(min(BEAT / 4, 1.0))
        if _read(descriptor) != record:
            return True
    return False


def _beat(descriptor: int, record: dict[str, Any], stop: threading.Event) -> None:
    count = 0
    while not stop.wait(BEAT):
        count += 1
        # A full disk does not stop what only others read
        with suppress(OSError):
            _write(descriptor, record | {"beat": count})


def _own() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "born": _birth(pid),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join(sys.argv)[:500],
        "beat": 0,
    }


def _write(descriptor: int, record: dict[str, Any]) -> None:
    content = json.dumps(record).encode()
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))


def _read(descriptor: int) -> dict[str, Any] | None:
    """What the holder wrote; None where nobody holds it, empty where it cannot be read."""
    content = os.pread(descriptor, _LONGEST, 0)
    if not content.strip(b"\0 \n"):
        return None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _runs(record: dict[str, Any]) -> bool:
    """Whether the very process lives on this machine: numbers are given again."""
    pid = record.get("pid")
    return isinstance(pid, int) and pid > 0 and is_alive(pid) and _birth(pid) == record.get("born")


def _birth(pid: int) -> str | None:
    """When a process began, as its machine counts; None where that is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{boot} {fields[19]}"


def _who(record: dict[str, Any]) -> str:
    return f"process {record.get('pid', '?')} on {record.get('host', 'an unknown machine')}"


def _in_use(folder: Path, record: dict[str, Any] | None) -> ValueError:
    who = f" ({_who(record)}, since {record.get('since', '?')})" if record else ""
    return ValueError(
        f"folder {folder} is in use by another gencg process{who}; wait for it or choose another "
        "--out"
    )
