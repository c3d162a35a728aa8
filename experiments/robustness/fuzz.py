"""Thousands of damaged files, texts and command lines: none brings gencg down.

Every reader is given whole files with bytes flipped, cut, put in and set to extremes, in a process
of its own with bounded memory. A case fails if anything but a `ValueError` or an `OSError` comes
out (for the command line: another code than the documented ones, or more than one line), if a file
is touched outside of the working folder, a program is run or anything is unpickled, or if it takes
longer than `SECONDS`. Texts and command lines come from hypothesis.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from experiments.robustness.mutations import WORDS, mutated
from experiments.robustness.readers import (
    RUN_FILES,
    VERBS,
    Reader,
    command,
    complaint,
    damaged_run,
    finished_run,
    readers,
)

SECONDS = 20.0
"""Of the processor for one case at most; what stands still is ended after `PATIENCE`."""
PATIENCE = 300.0
MEMORY = 1_500_000_000
"""Bytes that a case may take beyond those of the process with everything loaded."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect",
             "pickle.find_class")  # fmt: skip
Case = Callable[[int, Path], None]
"""Tries the case of a number, raising what it raises; it may write to the path."""


class TooSlow(BaseException):
    """A case took longer than `SECONDS`."""


class BrokenError(Exception):
    """A case did what it must not."""


def main() -> None:
    """Fuzz, write fuzz.json, end with code 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/robustness-fuzz"))
    parser.add_argument("--cases", type=int, default=400, help="of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers with this in their name")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    report = fuzz(given.out.absolute(), given.cases, seed=given.seed, only=given.only)
    (given.out / "fuzz.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, found in report.items():
        print(f"{name}: {found['cases']} cases, {found['refused']} refused, "
              f"{len(found['failures'])} failures, {found['seconds']:.0f} s, "
              f"{found['peak_mb']} MB")  # fmt: skip
        for failure in found["failures"][:5]:
            print(f"    {failure}")
    n_cases = sum(found["cases"] for found in report.values())
    n_failures = sum(len(found["failures"]) for found in report.values())
    print(f"{n_cases} cases, {n_failures} failures; {given.out / 'fuzz.json'}")
    sys.exit(1 if n_failures else 0)


def fuzz(out: Path, n: int, *, seed: int = 0, only: str = "") -> dict[str, Any]:
    """Try `n` cases of each reader; of slow ones a tenth.

    Args:
        out: Folder to work in; inputs that failed are kept in ``failures``.
        n: Cases of each reader.
        seed: Seed of the damage.
        only: Readers with this in their name alone.
    """
    shutil.rmtree(out / "work", ignore_errors=True)
    (out / "work" / "seeds").mkdir(parents=True)
    report = {}
    with _quiet():
        for name, case in cases(out / "work" / "seeds", seed).items():
            if only in name:
                count = max(n // 10, 1) if name in SLOW else n
                report[name] = _tried(name, case, count, out)
    return report


SLOW = ("training that goes on", "texts", "command lines")


def cases(folder: Path, seed: int) -> dict[str, Case]:
    """What is tried, by name.

    Args:
        folder: Where the whole files are made.
        seed: Seed of the damage.
    """
    # Loaded here, so that no case is slowed by it, and told where it may write
    from hypothesis.configuration import set_hypothesis_home_dir

    set_hypothesis_home_dir(folder.parent / "case" / ".hypothesis")

    known = readers(folder)
    for name, reader in known.items():
        _check_whole(name, reader, folder)
    found = {
        name: _damage(reader, zlib.crc32(name.encode()) + seed) for name, reader in known.items()
    }
    (folder / "whole").mkdir()
    whole = finished_run(folder / "whole")
    return {
        **found,
        "damaged run": lambda k, path: _damaged(k, whole, seed),
        "texts": lambda k, path: _texts(seed + k),
        "command lines": lambda k, path: _command_lines(seed + k),
    }


def _check_whole(name: str, reader: Reader, folder: Path) -> None:
    """Refuse seeds that are refused themselves: damaging them would show nothing."""
    for file, data in reader.seeds.items():
        path = folder / file
        path.write_bytes(data)
        try:
            reader.read(path)
        except Exception as error:
            raise ValueError(f"{name} does not read its own {file}: {error}") from error


def _damage(reader: Reader, seed: int) -> Case:
    def case(k: int, path: Path) -> None:
        rng = random.Random(1_000_003 * seed + k)
        name = rng.choice(sorted(reader.seeds))
        data = mutated(reader.seeds[name], rng)
        file = path.with_name(name)
        file.write_bytes(reader.repair(data) if reader.repair else data)
        reader.read(file)

    return case


def _damaged(k: int, whole: Path, seed: int) -> None:
    rng = random.Random(7_919 * seed + k)
    name = rng.choice(RUN_FILES)
    data = (whole / name).read_bytes()
    verb = rng.choice(VERBS)
    if wrong := damaged_run(whole, name, mutated(data, rng), verb):
        raise BrokenError(f"{' '.join(verb)} with a damaged {name}: {wrong}")


EXAMPLES = 20
"""Of hypothesis, for one case."""


def _given(seed: int, strategy: Any, check: Callable[[Any], None]) -> None:
    """Check examples of a strategy."""
    import hypothesis

    settings = hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None,
        suppress_health_check=[*hypothesis.HealthCheck], phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    hypothesis.seed(seed)(settings(hypothesis.given(strategy)(check)))()


def _texts(seed: int) -> None:
    """SMILES, sequences, durations, settings and targets as text."""
    from hypothesis import strategies as st

    from gencg.cli.durations import seconds_of
    from gencg.config import RunConfig
    from gencg.systems.registry import kind_of
    from gencg.systems.residues import parse_sequence
    from gencg.systems.smiles import parse_smiles

    pieces = (
        "C c N n O o [ ] ( ) = # @ @@ / \\ . 1 2 %10 % + - H [nH] [C@H] [Na+] [Xe] Cl * : $ 9999"
    )
    smiles = st.one_of(st.lists(st.sampled_from(pieces.split())).map("".join), st.text())
    residues = [
        "ALA",
        "GLY",
        "ACE",
        "NME",
        "D-ALA",
        "PRO",
        "HIS",
        "-",
        "--",
        "ala",
        "XXX",
        "5",
        "ä",
    ]
    sequence = st.one_of(st.lists(st.sampled_from(residues)).map("-".join), st.text())
    durations = st.one_of(st.from_regex(r"[0-9hms:.]{0,12}"), st.text(max_size=20))
    plain = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=6,
    )
    names = st.sampled_from(sorted(RunConfig.__dataclass_fields__))
    settings = st.dictionaries(names | st.text(max_size=8), plain, max_size=5)

    def from_json(content: dict[str, Any]) -> None:
        RunConfig.from_json(json.dumps({"target": "double-well", **content}))

    for strategy, read in (
        (smiles, parse_smiles), (sequence, parse_sequence), (durations, seconds_of),
        (st.text(), kind_of), (settings, from_json), (st.text(), RunConfig.from_json),
    ):  # fmt: skip
        _given(seed, strategy, _refuses(read))


def _refuses(read: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Lets a reader refuse."""

    def check(value: Any) -> None:
        with contextlib.suppress(ValueError, OSError):
            read(value)

    return check


def _command_lines(seed: int) -> None:
    """Words in any order, most of them options and verbs; nothing is trained."""
    from hypothesis import strategies as st

    from gencg import cli
    from gencg.deadline import TimeIsUp

    # Molecules take long to load, batches are other processes
    verbs = sorted({*cli.app.commands} - {"fit"})
    options = sorted({o for c in cli.app.commands.values() for p in c.params for o in p.opts
                      if o.startswith("-")} - {"--debug"})  # fmt: skip
    words = st.sampled_from(
        ["double-well", "butane", "run", "0", "-1", "1e400", "nan", "5e6", "100", "auto", "plumed",
         "a.pdb", "smiles:", "sequence:", "smiles:C((", "1:00", "x" * 300, "", "--", "/", "\udcff",
         *(w.decode("latin-1")[:200] for w in WORDS if b"\0" not in w)]
    )  # fmt: skip
    word = st.one_of(st.sampled_from(options), words, st.text(max_size=6))
    lines = st.tuples(st.sampled_from(verbs), st.lists(word, max_size=6)).map(
        lambda pair: [pair[0], *(w.replace("\0", "") for w in pair[1])]
    )

    def stop(*_: Any, **__: Any) -> None:
        raise TimeIsUp("time is up at once")

    def check(arguments: list[str]) -> None:
        code, err = command(arguments)
        if wrong := complaint(code, err, (0, 2, 74, 75)):
            raise BrokenError(f"{arguments}: {wrong}")

    with (
        mock.patch("gencg.run.execute.fit", stop),
        mock.patch("gencg.run.measure.measure", stop),
        mock.patch("gencg.run.batch.run_batch", stop),
    ):
        _given(seed, lines, check)


def _tried(name: str, case: Case, n: int, out: Path) -> dict[str, Any]:
    """Try cases in processes with bounded memory; a process that dies is a failure, too."""
    work = out / "work" / "case"
    found: dict[str, Any] = {"cases": 0, "refused": 0, "failures": [], "peak_mb": 0}
    started, begin = time.monotonic(), 0
    while begin < n:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        log = out / "work" / "log"
        log.write_text("")
        pid = os.fork()
        if not pid:
            _child(case, range(begin, n), work, log)
        code = _wait(pid, log)
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        ended = [row for row in rows if "end" in row]
        found["refused"] += sum(row["end"] == "refused" for row in ended)
        found["failures"] += [row["wrong"] for row in ended if row["end"] == "failed"]
        found["peak_mb"] = max([found["peak_mb"], *(row["mb"] for row in ended)])
        begin += len(ended)
        if begin < n:
            found["failures"].append(f"case {begin} ended the process with {code}")
            begin += 1
    found["cases"] = n
    found["seconds"] = time.monotonic() - started
    return found


def _wait(pid: int, log: Path) -> int:
    """Exit code of a process, which is killed when nothing more comes of it."""
    size, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if log.stat().st_size != size:
            size, since = log.stat().st_size, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _child(case: Case, numbers: range, work: Path, log: Path) -> None:
    """Try cases one after the other and never return."""
    try:
        import torch

        # The threads of before are not in the copy of the process
        torch.set_num_threads(1)
        # Of one that dies the parent tells
        faulthandler.disable()
        os.chdir(work)
        tempfile.tempdir = str(work)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        guard = Guard(work)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with open(log, "a") as file:
            for k in numbers:
                row = attempt(case, k, work / f"case{k}", guard)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                file.write(json.dumps(row | {"mb": (peak - before) // 1024}) + "\n")
                file.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=open(log.with_name("crash"), "w"))  # noqa: SIM115
        os._exit(99)


def attempt(case: Case, k: int, path: Path, guard: "Guard") -> dict[str, Any]:
    """Try one case; how it ended."""
    guard.broken.clear()
    signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    end, wrong = "accepted", ""
    try:
        with guard.watching():
            case(k, path)
    except (ValueError, OSError) as error:
        end = "refused"
        if not str(error).strip():
            end, wrong = "failed", f"case {k}: an error without words"
    except (Exception, TooSlow) as error:
        end = "failed"
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        wrong = f"case {k}: {type(error).__name__}: {str(error)[:400]} ({where})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if guard.broken:
        end, wrong = "failed", f"case {k}: {guard.broken[0]}"
    return {"end": end, "wrong": wrong}


def _too_slow(*_: Any) -> None:
    raise TooSlow(f"longer than {SECONDS:.0f} s")


class Guard:
    """Notices files that are touched outside of a folder, programs and pickles.

    Args:
        folder: Where a case may write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.broken: list[str] = []
        self._on = False
        sys.addaudithook(self._look)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look, as long as the block lasts."""
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event in FORBIDDEN:
            self.broken.append(f"{event} {arguments!r:.200}")
        elif (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES
        ) or event in CHANGES:
            self._check(event, arguments[0])

    def _check(self, event: str, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        place = Path(os.path.realpath(os.fsdecode(path)))
        if not place.is_relative_to(self.folder) and str(place) != os.devnull:
            self.broken.append(f"{event} {place}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of other libraries and the messages of our own."""
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


if __name__ == "__main__":
    main()
