"""The lock of a run folder is held by the living, and left by the dead.

Cannot detect: a file system whose locks fail silently and whose other machine stands still.
"""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gencg.run import lock
from gencg.run.lock import LOCK, holding

# The file alone: its package loads torch
HOLD = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("lock", sys.argv[2])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
with lock.holding(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path, lock.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "no locks")


def left(folder: Path, **changes: object) -> dict:
    """The file that a process leaves when it dies."""
    record = lock._own() | changes
    (folder / LOCK).write_text(json.dumps(record))
    return record


@pytest.mark.parametrize("kernel", [True, False])
def test_one_process_at_a_time_and_a_dead_one_lets_go(
    kernel: bool, holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    if not kernel:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    told = rf"in use by another gencg process \(process {holder.pid} on .*, since 20"
    for _ in range(2):
        with pytest.raises(ValueError, match=told), holding(tmp_path):
            pass
    assert not caplog.messages
    holder.kill()
    holder.wait()
    with holding(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    (message,) = caplog.messages
    assert f"was left by process {holder.pid} on" in message
    # Let go of as it should be, it tells of nobody
    with holding(tmp_path):
        pass
    assert len(caplog.messages) == 1
    assert (tmp_path / LOCK).read_bytes() == b""


def test_a_number_that_was_given_again_is_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    left(tmp_path)
    with pytest.raises(ValueError, match="in use"), holding(tmp_path):
        pass
    left(tmp_path, born="another time")
    with holding(tmp_path):
        pass


def test_another_machine_is_watched_for_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    record = left(tmp_path, host="elsewhere")
    with holding(tmp_path):
        pass
    assert [m.partition("process")[0] for m in caplog.messages] == [
        f"the lock of {tmp_path} is of ", f"{tmp_path} was left by ",
    ]  # fmt: skip

    (tmp_path / LOCK).write_text(json.dumps(record))
    sleep = lock.time.sleep

    def beats(seconds: float) -> None:
        sleep(seconds)
        left(tmp_path, host="elsewhere", beat=1)

    monkeypatch.setattr(lock.time, "sleep", beats)
    with pytest.raises(ValueError, match=r"in use by .* on elsewhere"), holding(tmp_path):
        pass


def test_of_two_that_take_it_at_once_without_locks_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(lock.time, "sleep", lambda _: left(tmp_path, host="elsewhere"))
    with pytest.raises(ValueError, match=r"in use by .* on elsewhere"), holding(tmp_path):
        pass
    # What the other wrote stays
    assert json.loads((tmp_path / LOCK).read_text())["host"] == "elsewhere"


def test_other_errors_of_locking_and_writing_are_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for module, name in ((fcntl, "flock"), (os, "pwrite")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(OSError, match="Input/output") as told, holding(tmp_path):
                pass
            assert told.value.filename == str(tmp_path / LOCK)


def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with holding(tmp_path):
        for _ in range(500):
            if json.loads((tmp_path / LOCK).read_text() or "{}").get("beat", 0) > 1:
                break
            lock.time.sleep(0.01)
        else:
            pytest.fail("no beat")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"[" * 4000, b"\0" * 100, b"{}"])
def test_a_damaged_lock_is_nobodys(content: bytes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.02)
    monkeypatch.setattr(lock, "BEAT", 0.02)
    (tmp_path / LOCK).write_bytes(content)
    with holding(tmp_path):
        pass
    assert (tmp_path / LOCK).read_bytes() == b""


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("dear to me")
    (tmp_path / LOCK).symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"\.lock is a link"), holding(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "dear to me"
