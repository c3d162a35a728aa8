"""A batch is its runs: each in its folder, none stopped by another, none repeated.

Cannot detect: what a molecule of the user's own needs.
"""

import csv
import json
from pathlib import Path

import pytest

from gencg.run.batch import COLUMNS, Item, expand, is_batch, run_batch

SMALL = ["--cvs", "0", "--energy-calls", "3000", "--samples", "500", "--batch-size", "64"]


def test_files_of_molecules_are_taken_apart(tmp_path: Path) -> None:
    smi = tmp_path / "few.smi"
    smi.write_text(
        "SMILES name\nCCO ethanol\n\n# a comment\nC1CCCCC1\nCCO ethanol\nCC#N a nitrile\n"
    )
    assert is_batch([str(smi)])
    assert expand([str(smi)]) == [
        Item("ethanol", "smiles:CCO"),
        Item("C1CCCCC1", "smiles:C1CCCCC1"),
        Item("ethanol-2", "smiles:CCO"),
        Item("a_nitrile", "smiles:CC#N"),
    ]
    sdf = tmp_path / "two.sdf"
    sdf.write_text("a\n\n\nM  END\n$$$$\nb\n\n\nM  END\n$$$$\n")
    assert expand([str(sdf)]) == [Item("two-0", f"{sdf}#0"), Item("two-1", f"{sdf}#1")]
    assert not is_batch(["double-well"])
    assert expand(["double-well", "smiles:CC(=O)O"]) == [
        Item("double-well", "double-well"),
        Item("CC_O_O", "smiles:CC(=O)O"),
    ]
    with pytest.raises(FileNotFoundError, match=r"no file of molecules at .*none\.smi"):
        expand([str(tmp_path / "none.smi")])
    smi.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no molecule; a line is a SMILES"):
        expand([str(smi)])


def test_one_failure_stops_no_other_and_nothing_is_repeated(tmp_path: Path) -> None:
    items = [Item("well", "double-well"), Item("no", "no-such-system"), Item("hills", "butane")]
    lines: list[str] = []
    rows = run_batch(items, SMALL, tmp_path, announce=lines.append)
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "no-such-system" in rows[1]["reason"]
    assert rows[0]["n_soft"] == 2
    assert rows[0]["kept"] == 1.0
    assert len(lines) == 6

    # What is told is what the runs say of themselves
    for row in (rows[0], rows[2]):
        summary = json.loads((tmp_path / row["name"] / "summary.json").read_text())
        assert row["ess"] == summary["ess"]
        assert row["energy_calls"] == summary["energy_calls"] <= 3000
    with (tmp_path / "summary.csv").open() as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == COLUMNS
    assert [line["name"] for line in table] == ["well", "no", "hills"]
    assert "| no |" in (tmp_path / "summary.md").read_text()

    # Again: the finished ones stay as they are
    stamp = (tmp_path / "well" / "checkpoint.pt").stat().st_mtime_ns
    assert run_batch(items, SMALL, tmp_path)[0]["ess"] == rows[0]["ess"]
    assert (tmp_path / "well" / "checkpoint.pt").stat().st_mtime_ns == stamp
