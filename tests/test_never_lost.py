"""Accidents while a run is written: nothing is lost, and one line says what happened.

The long forms are `experiments.robustness.kill` and `fuzz`; here are short ones of the same code.
Cannot detect: a disk that lies about a flush; a power cut, which no process can play.
"""

import errno
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gencg import files, pretrained
from gencg.drawn import Parts
from gencg.ensemble import draw
from gencg.export import read_samples
from gencg.run import RunFolder, execute

ROOT = Path(__file__).parents[1]
TINY = ["run", "double-well", "--energy-calls", "3600", "--samples", "100", "--batch-size", "400",
        "--coverage-calls", "1300", "--cvs", "0", "--threads", "1", "--quiet",
        "--checkpoint-seconds", "1e-9"]  # fmt: skip

KILLS = """
import os, random, signal, sys, time
import gencg.report, gencg.run, gencg.systems
from experiments.robustness.readers import quick_figures
from gencg import cli

def start(out):
    if pid := os.fork():
        return pid
    code = 1
    try:
        cli.main([*sys.argv[1:], "--out", out])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os._exit(code)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

with quick_figures():
    begun = time.monotonic()
    assert ended(start("whole")) == 0
    seconds = time.monotonic() - begun
    codes, moments = [], random.Random(3)
    for _ in range(4):
        pid = start("run")
        time.sleep(moments.uniform(0, 0.8 * seconds))
        os.kill(pid, signal.SIGKILL)
        codes.append(ended(pid))
    assert ended(start("run")) == 0
print("codes", *codes)
"""
FULL_DISK = """
import pathlib, resource
from experiments.robustness.readers import _ensemble
from gencg.export import write_samples
ensemble = _ensemble(500)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for kind in ("h5", "xtc", "dcd"):
    for limit in (0, 100, 5_000, 60_000, 100_000):
        folder = pathlib.Path(f"{kind}{limit}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            write_samples(folder, ensemble, formats=("h5", kind))
        except OSError:
            print("refused", kind, limit, *(path.name for path in folder.iterdir()), flush=True)
"""


def _environment() -> dict[str, str]:
    """That of a process that finds the same modules."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path))), "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.fixture
def robustness(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The experiment's modules, and reports with a figure that is drawn at once."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENCG_COMPILE", "0")
    torch.set_default_dtype(torch.float32)
    threads = torch.get_num_threads()
    readers = importlib.import_module("experiments.robustness.readers")
    with readers.quick_figures():
        yield importlib.import_module("experiments.robustness")
    torch.set_num_threads(threads)


def test_a_kill_at_any_file_operation_loses_nothing(robustness, gencg, caplog) -> None:
    kill = importlib.import_module("experiments.robustness.kill")
    codes = []

    def call(arguments: list[str]) -> None:
        codes.append(gencg(*arguments)[0])

    found = kill.operations(TINY, Path(), every=5, call=call)
    assert found["wrong"] == []
    assert found["cases"] >= 6
    assert codes == [0] * found["cases"]
    # What is compared can differ
    compare = importlib.import_module("experiments.robustness.compare")
    assert gencg(*TINY, "--seed", 1, "--out", "other")[0] == 0
    differ = compare.differences(Path("watched"), Path("other"))
    assert {line.partition(".")[0] for line in differ} >= {"checkpoint", "samples", "metrics"}


def test_a_kill_while_a_generator_is_trained_further_loses_nothing(
    robustness, gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = importlib.import_module("experiments.robustness.kill")
    assert gencg(*TINY, "--out", "source")[0] == 0
    folder = RunFolder.open("source")
    monkeypatch.setattr(pretrained, "FOLDER", Path())
    about = {"command": "gencg run double-well", "seed": 0, "energy_calls": 3600, "ess": 0.1}
    pretrained.write(execute.trained(folder.system(), folder), "double-well.pt", about=about)
    # The generator of a file is heated, too, in twenty steps of each temperature
    words = [*TINY, "--batch-size", "20", "--energy-calls", "1600", "--coverage-calls", "0",
             "--generator", "shipped", "--further-calls", "200"]  # fmt: skip
    left = []

    def call(arguments: list[str]) -> None:
        left.append({path.name for path in Path(arguments[-1]).iterdir()})
        assert gencg(*arguments)[0] == 0

    found = kill.operations(words, Path(), every=40, call=call)
    assert found["wrong"] == []
    assert any("further.pt" in names and "reheating0.pt" not in names for names in left)
    assert any({"further.pt", "reheating0.pt"} <= names for names in left)


@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_full_disk_is_told_and_loses_nothing(
    at: int, robustness, gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, written = files._flush, []

    def full(path: Path) -> None:
        if path.is_file():
            written.append(path)
        if len(written) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_flush", full)
        code, out, err = gencg(*TINY, "--out", "run")
    assert (code, out, err.count("\n")) == (74, "", 1)
    file = written[-1].with_name(written[-1].name.rpartition("-")[2])
    assert err == (
        f"gencg: {file}: No space left on device; make room and run the same command: all that "
        "was written before is whole\n"
    )
    assert not list(files.drafts(Path("run")))
    assert gencg(*TINY, "--out", "run")[0] == 0
    assert gencg(*TINY, "--out", "whole")[0] == 0
    compare = importlib.import_module("experiments.robustness.compare")
    assert compare.differences(Path("whole"), Path("run")) == []


def test_a_file_that_did_not_fit_does_not_appear(robustness, tmp_path: Path) -> None:
    # In a process of its own, which a library that falls over a full disk may bring down
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK], cwd=tmp_path, capture_output=True, text=True,
        env=_environment(),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    # Readers of trajectories print what they like between
    lines = (line.split() for line in done.stdout.splitlines())
    told = [words[1:] for words in lines if words[:1] == ["refused"]]
    assert len(told) == 15
    for kind, limit, *there in told:
        assert {"samples.h5", *(name for name in there if name[0] == ".")} & {*there} == set()
        assert ("topology.pdb" in there) == (int(limit) > 2_000), (kind, limit)


def test_a_folder_that_cannot_be_written_is_told(
    robustness, gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gencg(*TINY, "--out", "run")[0] == 0
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    opened = os.open

    def read_only(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR) and "run" in Path(path).parts:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    code, _, err = gencg("report", "run")
    assert (code, err.count("\n")) == (74, 1)
    assert "run/.lock: Read-only file system; make the disk writable" in err
    # What is finished can be read all the same
    code, out, _ = gencg(*TINY, "--out", "run")
    assert (code, "report: run/report.html" in out) == (0, True)
    assert gencg("sample", "run", "-n", "100", "--out", "elsewhere")[0] == 0
    assert gencg("check", "run")[0] == 0
    assert before == {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}


def test_a_clock_that_runs_backwards_changes_nothing(
    robustness, gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gencg(*TINY, "--out", "whole")[0] == 0
    now = iter(range(2_000_000_000, 0, -10_000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    assert gencg(*TINY, "--time-limit", "1h", "--out", "run")[0] == 0
    compare = importlib.import_module("experiments.robustness.compare")
    assert compare.differences(Path("whole"), Path("run")) == []
    assert 0 < RunFolder.open("run").summary["wall_seconds"] < 3600
    # And what is compared would be seen
    Path("run/figures/small.png").write_bytes(b"another")
    assert compare.differences(Path("whole"), Path("run")) == ["figures/small.png differs"]


CHILD = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', {work!r}]); {then}"


@pytest.mark.parametrize(
    "work, then, seconds, code",
    [
        ("", "sys.exit(3)", 60, 3),
        ("sum(range(3 * 10**7))", "time.sleep(60)", 0.2, -9),
    ],
)
def test_a_start_is_killed_at_its_moment_or_its_code_told(
    robustness, work: str, then: str, seconds: float, code: int
) -> None:
    kill = importlib.import_module("experiments.robustness.kill")
    command = [sys.executable, "-c", CHILD.format(work=work, then=then)]
    assert kill._killed(command, seconds) == code


def test_a_start_that_fails_by_itself_counts(
    robustness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kill = importlib.import_module("experiments.robustness.kill")
    make = "import os, sys; os.makedirs(sys.argv[1])"
    monkeypatch.setattr(kill, "_command", lambda _, path: [sys.executable, "-c", make, str(path)])
    monkeypatch.setattr(kill, "_killed", lambda *_: 3)
    monkeypatch.setattr(kill, "differences", lambda *_: [])
    found = kill.moments([], tmp_path / "out", 1, seed=0)
    assert found["wrong"][0] == "killed0 failed by itself with 3"


def test_a_second_process_is_refused_by_every_verb_that_writes(robustness, gencg) -> None:
    assert gencg(*TINY, "--out", "run")[0] == 0
    (Path("run") / "summary.json").unlink()
    with RunFolder.open("run").locked():
        for verb in (["report", "run"], ["explain", "run"], [*TINY, "--out", "run"]):
            code, _, err = gencg(*verb)
            assert (code, err.count("\n")) == (2, 1)
            assert f"in use by another gencg process (process {os.getpid()} on " in err


def test_a_folder_that_was_started_over_meanwhile_is_not_gone_on_with(robustness, gencg) -> None:
    assert gencg(*TINY, "--out", "run")[0] == 0
    mine = RunFolder.open("run")
    assert gencg(*TINY, "--seed", 2, "--out", "run", "--override")[0] == 0
    with pytest.raises(ValueError, match=r"started over by another process .* seed is 2 there"):
        mine.check_current()


def test_samples_are_topped_up_in_their_place(robustness, gencg) -> None:
    assert gencg(*TINY, "--out", "run")[0] == 0
    draw = ["sample", "run", "--out", "more", "-n"]
    assert gencg(*draw, 30)[0] == 0
    for n in (30, 20):
        code, _, err = gencg(*draw, n)
        assert (code, err.count("\n")) == (2, 1)
        assert "more/samples.h5 exists; choose another --seed or --out" in err
    assert gencg(*draw, 50)[0] == 0
    assert read_samples("more").n_samples == 50
    assert {path.name for path in Path("more").iterdir()} == {"samples.h5", "draw.pt"}


def test_a_run_killed_while_it_draws_goes_on_from_its_parts(
    robustness, gencg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "draw", partial(draw, batch_size=10))
    assert gencg(*TINY, "--out", "whole")[0] == 0
    keep, take_up, batches, taken = Parts.keep, Parts.take_up, [], []

    def killed(parts: Parts, batch: tuple[torch.Tensor, ...], n_calls: int) -> None:
        keep(parts, batch, n_calls)
        batches.append(len(batch[0]))
        if len(batches) == 4:
            raise KeyboardInterrupt

    def counted(parts: Parts, *args: int) -> list[tuple[torch.Tensor, ...]]:
        found = take_up(parts, *args)
        taken.append(parts.n_taken)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "keep", killed)
        assert gencg(*TINY, "--out", "run")[0] == 130
    monkeypatch.setattr(Parts, "take_up", counted)
    assert gencg(*TINY, "--out", "run")[0] == 0
    assert (batches, taken) == ([10] * 4, [40])
    compare = importlib.import_module("experiments.robustness.compare")
    assert compare.differences(Path("whole"), Path("run")) == []
    # Of a kill just before they are removed, parts go with the next start
    Path("run/drawing/generator").mkdir(parents=True)
    assert gencg(*TINY, "--out", "run")[0] == 0
    assert not Path("run/drawing").exists()


def test_kills_at_random_moments_lose_nothing(robustness) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, *TINY], capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, done.stderr
    codes = [int(word) for word in done.stdout.split("codes")[1].split()]
    assert -9 in codes
    assert set(codes) <= {-9, 0}
    compare = importlib.import_module("experiments.robustness.compare")
    assert compare.differences(Path("whole"), Path("run")) == []


def test_work_may_be_lost_and_never_gained(robustness) -> None:
    compare = importlib.import_module("experiments.robustness.compare")
    more, less = {"energy_calls": 5, "z": "1"}, {"energy_calls": "4", "z": "1"}
    assert list(compare._differ(less, more, "a")) == []
    assert list(compare._differ(more, less, "a")) == ["a.energy_calls is lower: 5 and 4"]


@pytest.mark.parametrize("script", ["kill", "fuzz"])
def test_the_long_forms_start(script: str, robustness, monkeypatch, capsys) -> None:
    module = importlib.import_module(f"experiments.robustness.{script}")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    assert capsys.readouterr().out.startswith("usage")


@pytest.mark.parametrize("name", ["figures", "draws"])
def test_nothing_is_written_through_a_link(name: str, robustness, gencg, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path("run").mkdir()
    (Path("run") / name).symlink_to(tmp_path / "elsewhere")
    code, _, err = gencg(*TINY, "--out", "run")
    assert (code, err.count("\n")) == (2, 1)
    assert f"run/{name} is a link, and nothing is written outside of a run folder" in err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_damaged_input_never_brings_it_down(robustness, tmp_path: Path) -> None:
    fuzz = importlib.import_module("experiments.robustness.fuzz")
    report = fuzz.fuzz(tmp_path, 7, seed=1)
    assert {name: found["failures"] for name, found in report.items() if found["failures"]} == {}
    assert sum(found["cases"] for found in report.values()) > 180
    assert sum(found["refused"] for found in report.values()) > 100


def test_what_must_not_happen_is_noticed(robustness, tmp_path: Path) -> None:
    fuzz = importlib.import_module("experiments.robustness.fuzz")
    (tmp_path / "work").mkdir()

    def case(k: int, path: Path) -> None:
        if k == 0:
            (tmp_path / "outside").write_text("")
        if k == 1:
            raise KeyError("no such thing")
        if k == 2:
            os.kill(os.getpid(), 11)
        if k == 3:
            bytearray(10**10)
        if k == 4:
            raise ValueError("as it should")
        path.write_text("inside")

    found = fuzz._tried("planted", case, 6, tmp_path)
    assert (found["cases"], found["refused"]) == (6, 1)
    wrong = [failure.partition(" (")[0] for failure in found["failures"]]
    assert wrong == [
        f"case 0: open {tmp_path / 'outside'}",
        "case 1: KeyError: 'no such thing'",
        "case 2 ended the process with -11",
        "case 3: MemoryError: ",
    ]
