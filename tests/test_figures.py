"""Released figures: they stand where the list says, behind commands that exist.

Cannot detect: a number that is wrong; `python -m experiments.figures` measures the cheap ones.
"""

import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import pytest

from gencg import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("experiments.figures")


def test_every_figure_stands_on_its_pages_behind_a_command(figures: ModuleType) -> None:
    for figure in figures.figures():
        assert figures.absent(figure) == []
        words = shlex.split(figure.command)
        if words[0] == "gencg":
            verb = cli.app.get_command(click.Context(cli.app), words[1])
            verb.make_context(words[1], ["0" if word == "S" else word for word in words[2:]])
        else:
            assert words[:2] == ["python", "-m"]
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), figure.command
        assert bool(figure.quantities) == figure.repeats
        assert figure.measure in ("", *figures.MEASURES)


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_every_table_of_results_has_a_figure(figures: ModuleType, page: str) -> None:
    texts = [text for figure in figures.figures() if page in figure.page for text in figure.text]
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE)
    assert tables
    for table in tables:
        assert any(text in table for text in texts), table


def test_cheap_figures_are_measured_and_a_changed_one_is_missed(figures: ModuleType) -> None:
    from experiments.expectations import misses

    for name in ("units", "double_well_exact", "molecules_table"):
        (figure,) = (f for f in figures.figures() if f.measure == name)
        found = {"folder": name, **figures.measured(figure)}
        assert misses(found, figure.quantities) == []
        key = next(iter(figure.quantities))
        assert len(misses(found | {key: 1.1 * found[key]}, figure.quantities)) == 1
