"""Worker processes: they end when their parent does, and leave Ctrl-C to it.

Cannot detect: a compiled library that holds the interpreter for minutes.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, time
import numpy as np
from gencg.energies.workers import Workers

def build(seconds):
    def evaluate(positions, gradient):
        time.sleep(seconds)
        return np.full(len(positions), os.getpid()), positions[:0]
    return evaluate

if __name__ == "__main__":
    workers = Workers("slow", 2, build, 0.1)
    positions = np.zeros((2000, 1, 3))
    print(*{int(pid) for pid in workers(positions[:64], False)[0]}, flush=True)
    workers(positions, False)
    time.sleep(60)
"""


@pytest.fixture
def busy(tmp_path: Path):
    """A process whose workers are busy, and their process numbers."""
    (tmp_path / "busy.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "busy.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            yield process, [int(word) for word in process.stdout.readline().split()]
        finally:
            process.kill()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_the_end(pids: list[int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in pids if is_running(pid)]


def test_workers_end_with_a_parent_that_is_killed(busy) -> None:
    process, pids = busy
    assert pids
    assert all(map(is_running, pids))
    process.kill()
    wait_for_the_end(pids, 20)


def test_an_interrupt_reaches_the_parent_alone_and_nothing_hangs(busy) -> None:
    process, pids = busy
    # Ctrl-C goes to all processes of the terminal; most of the parts have not begun
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_for_the_end(pids, 20)
