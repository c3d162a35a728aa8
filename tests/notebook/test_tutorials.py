"""The tutorials run, with a few steps each, and say where the method fails.

Cannot detect: whether they are easy to follow, or what they say with their full budgets.
"""

import runpy
import sys
from pathlib import Path

import pytest
import torch

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.py"))


@pytest.mark.parametrize("path", TUTORIALS, ids=[p.stem for p in TUTORIALS])
def test_a_tutorial_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "from_smiles" in path.read_text():
        pytest.importorskip("rdkit")
    monkeypatch.setenv("SMOKE_TEST", "1")
    monkeypatch.setenv("GENCG_COMPILE", "0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    found = runpy.run_path(str(path))
    sys.modules.pop("openmm_cv", None)
    assert found["SMOKE"] is True
    assert "explorer" in found or (tmp_path / "exported_cvs" / "plumed.dat").exists()


@pytest.mark.parametrize("path", TUTORIALS, ids=[p.stem for p in TUTORIALS])
def test_a_tutorial_tells_where_the_method_fails(path: Path) -> None:
    text = path.read_text()
    assert "# ## Where it fails" in text
    assert text.startswith("# %% [markdown]\n# # ")
