"""What the command says of a molecule, and what it does with many.

Cannot detect: a table that is right and hard to read.
"""

import json
from pathlib import Path

import pytest

from gencg.cli import main


def gencg(*args: str) -> int:
    try:
        main(list(args))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_describe_tells_draws_and_refuses(tmp_path: Path, capsys) -> None:
    picture = tmp_path / "dipeptide.png"
    assert gencg("describe", "alanine-dipeptide", "--out", str(picture)) == 0
    told = capsys.readouterr().out
    assert "1  phi(ALA2)" in told
    assert "barrier of 92 kJ/mol" in told
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert gencg("describe", "alanine-dipeptide", "--out", str(picture)) == 2
    assert "exists; choose another file" in capsys.readouterr().err

    assert gencg("describe", "double-well", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rows"]] == ["x1", "x2"]
    assert gencg("describe", "nothing-known") == 2


def test_two_targets_make_two_folders_and_one_table(tmp_path: Path, capsys) -> None:
    options = ["--cvs", "0", "--energy-calls", "2500", "--samples", "400", "--batch-size", "64"]
    out = tmp_path / "both"
    code = gencg("run", "double-well", "butane", *options, "--out", str(out), "--json")
    rows = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [row["name"] for row in rows] == ["double-well", "butane"]
    for name in ("double-well", "butane"):
        config = json.loads((out / name / "config.json").read_text())
        assert (config["n_cvs"], config["batch_size"], config["n_samples"]) == (0, 64, 400)

    # A failure is told and is the exit code
    smi = tmp_path / "bad.smi"
    smi.write_text("double-well\n")
    assert gencg("run", str(smi), *options, "--out", str(tmp_path / "bad")) == 1
    table = capsys.readouterr().out
    assert "| molecule | atoms |" in table
    pytest.importorskip("rdkit")
    assert "smiles" in (tmp_path / "bad" / "summary.csv").read_text()
