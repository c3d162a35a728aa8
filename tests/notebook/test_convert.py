"""Scripts in percent format become notebooks.

Cannot detect: what a notebook program makes of them.
"""

import json
from pathlib import Path

import pytest

from gencg.notebook.convert import cells_of, convert, main

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"


def test_scripts_become_notebooks(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    written = convert(TUTORIALS, tmp_path)
    assert len(written) == 5
    for path in written:
        notebook = nbformat.read(str(path), as_version=4)
        nbformat.validate(notebook)
        kinds = [cell.cell_type for cell in notebook.cells]
        assert kinds[0] == "markdown"
        assert 7 <= kinds.count("code") <= 12
        # Code is that of the script, in its order
        script = (TUTORIALS / f"{path.stem}.py").read_text()
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        places = [script.index(part) for part in code]
        assert places == sorted(places)


def test_cells_are_cut_where_they_begin() -> None:
    text = (
        "import os\n\n# %% [markdown]\n# # Title\n#\n# Text\n\n# %%\nx = 1  # %% no cell\n\n# %%\n"
    )
    assert cells_of(text) == [
        ("code", "import os"), ("markdown", "# Title\n\nText"), ("code", "x = 1  # %% no cell"),
    ]  # fmt: skip


def test_the_command_writes_notebooks_or_says_why_not(tmp_path: Path, capsys) -> None:
    (tmp_path / "one.py").write_text("# %%\n1 + 1\n")
    assert main([str(tmp_path)]) == 0
    assert json.loads((tmp_path / "one.ipynb").read_text())["nbformat"] == 4
    (tmp_path / "two.py").write_text("1 + 1\n")
    for wrong, words in ((tmp_path / "two.py", "has no cells"), (tmp_path / "no", "must be a")):
        capsys.readouterr()
        assert main([str(wrong)]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1
