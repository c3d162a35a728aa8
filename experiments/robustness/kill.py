"""Runs that are killed at random moments, and at every file operation, and go on to the same end.

Two parts. *Moments*: real ``gencg run`` processes get SIGKILL at random moments of their own CPU
time, so that other programs do not shift them, several each, until there were as many as asked for;
the last start runs to the end. *Operations*: one run is watched,
and before every operation on a file of its folder the folder is copied: exactly what a kill at
that instant leaves. Every different copy is gone on with. Each end is compared with a run that
nobody disturbed.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.robustness.compare import differences

RUNS = {
    "double-well": [
        "run", "double-well", "--energy-calls", "12e3", "--samples", "6e3", "--batch-size", "100",
        "--coverage-calls", "2e3", "--cvs", "0",
    ],
    "butane": [
        "run", "butane", "--energy-calls", "40e3", "--samples", "5e3", "--batch-size", "200",
        "--coverage-calls", "2e3",
    ],
}  # fmt: skip
"""Runs without and with collective variables, small enough to be repeated."""
OPTIONS = ["--seed", "1", "--threads", "1", "--quiet", "--checkpoint-seconds", "0.2"]
PER_RUN = 5
"""Kills of one run; then it may end."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")


def main() -> None:
    """Run both parts, write kills.json, end with code 1 if an end was not the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/robustness-kill"))
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=[*RUNS])
    parser.add_argument("--kills", type=int, default=20, help="of each run, at random moments")
    parser.add_argument("--every", type=int, default=1, help="every n-th file operation; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"seed": given.seed, "command": " ".join(sys.argv[1:])}
    for name in given.runs:
        arguments = [*RUNS[name], *OPTIONS]
        found = {}
        if given.kills:
            found["moments"] = moments(arguments, given.out / name, given.kills, seed=given.seed)
        if given.every:
            found["operations"] = operations(arguments, given.out / name, every=given.every)
        report[name] = found
        (given.out / "kills.json").write_text(json.dumps(report, indent=2) + "\n")
    parts = [part for name in given.runs for part in report[name].values()]
    cases, failures = (sum(part[key] for part in parts) for key in ("cases", "failures"))
    print(f"{cases} kills, {failures} ends that differ; {given.out / 'kills.json'}")
    sys.exit(1 if failures else 0)


def moments(arguments: Sequence[str], out: Path, n_kills: int, *, seed: int) -> dict[str, Any]:
    """Kill real processes at random moments."""
    random_state = random.Random(seed)
    shutil.rmtree(out, ignore_errors=True)
    whole = out / "whole"
    before = _used_by_children()
    subprocess.run(_command(arguments, whole), check=True, stdout=subprocess.DEVNULL)
    seconds = _used_by_children() - before
    found: list[dict[str, Any]] = []
    wrong: list[str] = []
    number = 0
    report: dict[str, Any] = {"cases": 0, "failures": 0}
    while max(len(found), len(wrong)) < n_kills:
        folder = out / f"killed{number}"
        number += 1
        for _ in range(min(PER_RUN, n_kills - len(found))):
            # The first moments see no file; of the others each stage gets its share
            after = random_state.uniform(0.2, 1.0) * seconds
            code = _killed(_command(arguments, folder), after)
            if code not in (0, -signal.SIGKILL):
                wrong.append(f"{folder.name} ended with {code} before its kill")
            if code != -signal.SIGKILL:
                break
            found.append(
                {"run": folder.name, "cpu_seconds": round(after, 2), "left": _stage(folder)}
            )
        done = subprocess.run(
            _command(arguments, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if done.returncode:
            wrong.append(f"{folder.name} ended with {done.returncode}: {done.stderr.decode()}")
        else:
            wrong += [f"{folder.name}: {line}" for line in differences(whole, folder)]
        report = {"cases": len(found), "failures": len(wrong), "wrong": wrong, "kills": found}
        # After every run: this takes long, too
        (out / "moments.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _command(arguments: Sequence[str], folder: Path) -> list[str]:
    return [sys.executable, "-m", "gencg", *arguments, "--out", str(folder)]


def _killed(command: list[str], seconds: float) -> int:
    """Exit code of a process that is killed after so many CPU seconds, if it is still there."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if _used_by(process.pid) >= seconds:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    return process.returncode


def _used_by(pid: int) -> float:
    """CPU seconds of a process so far, and of those that it started and waited for."""
    # The name of the program, in brackets, may hold blanks
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _used_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stage(folder: Path) -> list[str]:
    """What the folder held at the kill."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def operations(
    arguments: Sequence[str],
    out: Path,
    *,
    every: int = 1,
    call: Callable[[list[str]], None] | None = None,
) -> dict[str, Any]:
    """Go on from what a kill before each file operation of a run leaves.

    Args:
        arguments: Of the command line, without the folder.
        out: Folder to work in.
        every: Go on from every n-th different state only.
        call: Runs a command line; by default in a process of its own.
    """
    call = call or _forked
    whole, copies = out / "watched", out / "copies"
    shutil.rmtree(whole, ignore_errors=True)
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir(parents=True)
    with _watched(whole, copies):
        from gencg import cli

        cli.main([*arguments, "--out", str(whole)])
    wrong = []
    chosen = sorted(copies.iterdir())[::every]
    for folder in chosen:
        try:
            call([*arguments, "--out", str(folder)])
            wrong += [f"{folder.name}: {line}" for line in differences(whole, folder)]
        except Exception as error:
            wrong.append(f"{folder.name}: {type(error).__name__}: {error}")
    return {"cases": len(chosen), "failures": len(wrong), "wrong": wrong}


def _forked(arguments: list[str]) -> None:
    """Run a command line in a copy of this process, which has everything loaded."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            from gencg import cli

            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                cli.main(arguments)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise RuntimeError(f"ended with code {code}")


@contextmanager
def _watched(folder: Path, copies: Path) -> Iterator[None]:
    """Copy a folder before every change of it, each content once."""
    seen: set[str] = set()
    state = {"on": True, "busy": False}

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if not state["on"] or state["busy"] or not _changes(event, arguments, folder):
            return
        state["busy"] = True
        try:
            content = _content(folder)
            if content not in seen:
                shutil.copytree(folder, copies / f"{len(seen):04d}")
                seen.add(content)
        finally:
            state["busy"] = False

    sys.addaudithook(look)
    try:
        yield
    finally:
        state["on"] = False


def _changes(event: str, arguments: tuple[Any, ...], folder: Path) -> bool:
    """Whether an audited event changes something in a folder that is there."""
    if event not in ("open", *CHANGES) or not isinstance(arguments[0], str | os.PathLike):
        return False
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
        return False
    return folder.is_dir() and Path(arguments[0]).absolute().is_relative_to(folder.absolute())


def _content(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        # The number of the process and the time are in the lock
        inner = path.read_bytes() if path.is_file() and path.name != ".lock" else b""
        digest.update(f"{path.relative_to(folder)} {len(inner)}\n".encode() + inner)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
