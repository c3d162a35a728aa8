"""What a shell sees of the command: help, completion, exit codes, progress, the page about it.

Cannot detect: whether an example does what a reader hopes for; they are parsed, not run.
"""

import io
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from gencg import cli
from gencg.cli.completion import READY_MADE
from gencg.cli.durations import in_words, seconds_of
from gencg.cli.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, TIME_IS_UP
from gencg.cli.progress import Progress, TrainingProgress
from gencg.cli.verbs import VERBS
from gencg.deadline import Deadline
from gencg.training import StepInfo

PAGE = Path(__file__).parents[1] / "docs" / "command_line.md"
HEAVY = {"torch", "numpy", "scipy", "openmm", "mdtraj", "matplotlib", "rdkit", "tqdm"}


def verb(name: str) -> click.Command:
    command = cli.app.get_command(click.Context(cli.app), name)
    assert command is not None
    return command


def test_help_and_completion_load_nothing_heavy() -> None:
    code = f"""
import os, sys
from gencg.cli import app
names = [[], *([name] for name in app.commands)]
for name in names:
    try:
        app.main([*name, "--help"], prog_name="gencg")
    except SystemExit as stop:
        assert stop.code == 0
for words in ("gencg run al", "gencg sample ru"):
    os.environ |= {{"COMP_WORDS": words, "COMP_CWORD": "2", "_GENCG_COMPLETE": "bash_complete"}}
    try:
        app.main([], prog_name="gencg")
    except SystemExit as stop:
        assert stop.code == 0
assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "plain,alanine-dipeptide" in done.stdout


@pytest.mark.parametrize("name", VERBS)
def test_help_ends_with_examples_that_parse(name: str) -> None:
    command = verb(name)
    assert 2 <= len(command.examples) <= 4
    for line in command.examples:
        words = shlex.split(line.replace('eval "$(', "").replace(')"', ""), comments=True)
        words = list(itertools.takewhile(lambda word: word != ">", words))
        assert words[:2] == ["gencg", name]
        command.make_context(name, words[2:])
    with click.Context(command, info_name=f"gencg {name}") as context:
        assert command.get_help(context).splitlines()[-1] == f"  {command.examples[-1]}"


def test_verbs_are_listed_in_their_order_with_a_line_each(capsys) -> None:
    cli.main(["--help"])
    out = capsys.readouterr().out
    listed = re.findall(r"^  (\w+)  +(.*)$", out.split("Commands:")[1], re.MULTILINE)
    assert tuple(name for name, _ in listed) == VERBS
    assert not [text for _, text in listed if text.endswith("...")]


def test_the_version_is_that_of_the_package(capsys) -> None:
    cli.main(["--version"])
    assert re.fullmatch(r"gencg, version \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_that_of_the_shell(shell: str, capsys) -> None:
    cli.main(["completion", shell])
    assert f"_GENCG_COMPLETE={shell}_complete" in capsys.readouterr().out


def completed(args: list[str], incomplete: str) -> list[str]:
    found = BashComplete(cli.app, {}, "gencg", "_GENCG_COMPLETE").get_completions(args, incomplete)
    return [item.value for item in found]


def test_words_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gencg.systems import SYSTEMS

    monkeypatch.chdir(tmp_path)
    assert tuple(SYSTEMS) == READY_MADE
    Path("my.pdb").write_text("")
    Path("notes.txt").write_text("")
    Path("runs/ala2").mkdir(parents=True)
    Path("runs/other").mkdir()
    Path("thesis").mkdir()
    Path("runs/ala2/config.json").write_text("{}")

    assert completed(["run"], "alanine-d") == ["alanine-dipeptide"]
    assert completed(["run"], "m") == ["mueller-brown", "my.pdb"]
    assert completed(["energy"], "no") == []
    # Folders that hold runs, then the runs in them
    assert completed(["sample"], "") == ["runs/"]
    assert completed(["sample"], "runs/") == ["runs/ala2"]
    assert completed(["report"], "runs/al") == ["runs/ala2"]
    assert completed(["report"], "nowhere/") == []
    assert "--time-limit" in completed(["run", "butane"], "--t")
    assert completed([], "exp") == ["explain", "export"]


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("2h", 7200), ("30m", 1800), ("90s", 90), ("90", 90), ("1h30m", 5400), ("1.5h", 5400),
        ("01:30:00", 5400), ("02:05", 125), ("100:00:00", 360_000), ("5min", 300), ("1d", 86_400),
    ],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert (
        verb("run").make_context("run", ["butane", "--time-limit", text]).params["deadline"].seconds
        == seconds
    )


@pytest.mark.parametrize("text", ["soon", "", "-5s", "0", "2 hours", "1:99:00", "h", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration"):
        seconds_of(text)


@pytest.mark.parametrize(
    "seconds, words",
    [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (720, "12 min"), (11_400, "3 h 10 min"),
     (14_400, "4 h")],
)  # fmt: skip
def test_durations_are_written(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_deadline_keeps_time_for_a_step_and_for_leaving() -> None:
    now = [0.0]
    deadline = Deadline(100.0, clock=lambda: now[0])
    dues = {}
    for now[0] in range(0, 100, 4):
        dues[now[0]] = deadline.due()
    # Two steps of 4 s and 5 s for leaving
    assert next(t for t, due in dues.items() if due) == 88
    assert deadline.left == 4.0

    # A stage that takes longer than what is left waits, but not for ever
    now[0] = 0.0
    stage = Deadline(100.0, clock=lambda: now[0])
    assert not stage.late_for(1000.0)
    now[0] = 50.0
    assert stage.late_for(60.0)
    assert not stage.late_for(40.0)
    now[0] = 96.0
    assert stage.late_for()
    with pytest.raises(ValueError, match="`seconds` must be a positive number, got 0"):
        Deadline(0)


def info(step: int, n_steps: int) -> StepInfo:
    return StepInfo(step, n_steps, 0.4, 300.0, 1.5, 0.5, 100 * step, 0, 1.0, 1e-3, 0, 0, 0, 0.0)


def told(n_steps: int, seconds: float, *, first: int = 1) -> list[str]:
    """Lines of a training in a log file whose steps take so many seconds."""
    now, stream = [0.0], io.StringIO()
    progress = Progress("training", stream=stream, clock=lambda: now[0])
    report = TrainingProgress(progress, after=lambda step: 100 * step)
    for step in range(first, n_steps + 1):
        # The first two compile
        now[0] += 60.0 if step < first + 2 else seconds
        report(info(step, n_steps))
    assert "\r" not in stream.getvalue()
    return stream.getvalue().splitlines()


def test_a_log_file_gets_a_line_now_and_then() -> None:
    lines = told(1202, 0.5)
    # Two minutes of compiling are no pace; 600 s of steps, a line every 30 s
    assert lines[2] == "about 10 min left for training, then about 50 s to the report"
    assert len(lines) == 2 + 1 + 600 // 30
    assert lines[3] == (
        "training: step 62 of 1,202 (5 %), 10 min left, "
        "T=300 K, loss=1.500, ESS=0.50, calls=6.2e+03"
    )
    assert lines[-1].startswith("training: step 1,202 of 1,202 (100 %), T=300 K")
    left = [float(m[1]) for line in lines[3:-1] if (m := re.search(r"%\), (\d+) min", line))]
    assert left == sorted(left, reverse=True)


def test_time_left_counts_from_where_a_run_goes_on() -> None:
    assert "about 8 min left for training" in "\n".join(told(1202, 0.5, first=200))


def test_a_short_training_is_told_once() -> None:
    now, stream = [0.0], io.StringIO()
    report = TrainingProgress(Progress("training", stream=stream, clock=lambda: now[0]))
    for step in range(1, 6):
        report(info(step, 5))
    assert len(stream.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    now, stream = [0.0], Terminal()
    report = TrainingProgress(Progress("training", stream=stream, clock=lambda: now[0]))
    for step in range(1, 101):
        now[0] += 0.5
        report(info(step, 100))
    assert "about 44 s left for training" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_exit_codes_are_those_of_the_page() -> None:
    text = PAGE.read_text()
    for code in (DONE, FAILED, BAD_INPUT, TIME_IS_UP, INTERRUPTED):
        assert re.search(rf"^\| {code} \|", text, re.MULTILINE), code


@pytest.mark.parametrize("name", VERBS)
def test_the_page_names_every_verb_and_option(name: str) -> None:
    text = PAGE.read_text()
    assert f"`gencg {name}" in text
    for parameter in verb(name).params:
        if isinstance(parameter, click.Option):
            assert any(f"`{flag}" in text for flag in parameter.opts), parameter.opts


def test_the_page_names_no_option_that_is_not_there() -> None:
    known = {flag for name in VERBS for p in verb(name).params for flag in p.opts}
    known |= {"--help", "-h", "--version"}
    for flag in re.findall(r"`(--?[a-z][a-z-]*)", PAGE.read_text()):
        assert flag in known, flag


def test_verbs_that_have_a_result_share_the_options_of_printing() -> None:
    for name in VERBS:
        flags = {flag for parameter in verb(name).params for flag in parameter.opts}
        assert name == "completion" or {"--json", "--quiet", "--debug"} <= flags, name
