"""The documentation says what is so: code runs, links lead somewhere, commands parse.

Cannot detect: a sentence or a number that is wrong; the experiments hold the numbers.
"""

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import torch

import gencg
from gencg import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    ROOT / "experiments" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Arguments of every `gencg` command in the shell blocks of a page."""
    typed = re.findall(r"^\$ (.*)$", "\n".join(blocks(page, "console")), re.MULTILINE)
    text = "\n".join([*blocks(page, "bash"), *typed]).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [w[1:] for w in lines if w[:1] == ["gencg"] and not w[1].startswith("-")]


COMMANDS = [args for page in PAGES for args in commands(page)]
PYTHON = [(page, code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(
    "page, code", PYTHON, ids=[f"{p.name}-{i}" for i, (p, _) in enumerate(PYTHON)]
)
def test_python_blocks_run(
    page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As written, but with a budget of two small steps and few samples
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENCG_COMPILE", "0")
    fit, draw = gencg.fit, gencg.draw
    small = {"energy_calls": 128, "batch_size": 64}
    monkeypatch.setattr(gencg, "fit", lambda system, **o: fit(system, **o | small))
    monkeypatch.setattr(gencg, "draw", lambda model, target, n, **o: draw(model, target, 400, **o))
    exec(compile(code, page.name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    # Also with blanks in the text, and without the anchor
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(there), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("args", COMMANDS, ids=map(" ".join, COMMANDS))
def test_commands_parse(args: list[str]) -> None:
    name, *rest = args
    command = cli.app.get_command(click.Context(cli.app), name)
    assert command is not None, f"gencg has no command {name}"
    command.make_context(name, rest)


def test_every_command_is_shown() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for name in cli.app.commands:
        assert re.search(rf"\bgencg {name}\b", text), name


def test_the_oldest_versions_are_those_that_are_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["hdf5"]]
    asked = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in wanted)
    text = (ROOT / "tests" / "environments" / "oldest.txt").read_text()
    oldest = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.MULTILINE))
    assert set(asked) - set(oldest) == {"torchdiffeq", "pillow"}
    for name, version in oldest.items():
        assert f"{version}.".startswith(f"{asked[name]}."), name


def test_environment_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        inline = re.findall(r"`(make [^`]+)`", page.read_text())
        typed = "\n".join([*blocks(page, "bash"), *inline])
        for target in re.findall(r"\bmake ([a-z-]+)", typed):
            assert re.search(rf"^[a-z -]*\b{target}\b[a-z -]*:", makefile, re.MULTILINE), target
