"""The command: bad input is one line and exit code 2, and nothing is overwritten.

Cannot detect: whether a full run is any good; experiments measure that.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from amide_files import write_amber, write_gromacs

from gencg import cli, systems
from gencg.checkpoint import load_checkpoint
from gencg.cli.parameters import COUNT, spread
from gencg.export import read_samples
from gencg.run.metrics import read_metrics

DIPEPTIDE = Path(systems.__file__).parent / "data" / "alanine_dipeptide.pdb"
# The generator alone; collective variables have runs of their own below
SMALL = ["--energy-calls", "12e3", "--samples", "2000", "--batch-size", "200", "--quiet",
         "--cvs", "0"]  # fmt: skip
SUMMARY_KEYS = {
    "ess", "joint_ess", "log_z", "log_z_error", "pareto_k", "energy_calls", "gradient_calls",
    "wall_seconds", "temperature", "n_atoms", "n_cvs", "seed", "bound_gap", "populations",
    "cv_timescales",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _work_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENCG_COMPILE", "0")
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the double well."""
    folder = tmp_path_factory.mktemp("run") / "well"
    torch.set_default_dtype(torch.float32)
    cli.main(["run", "double-well", *SMALL, "--out", str(folder), "--seed", "1"])
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def pdb(change) -> Path:
    """The dipeptide's file with each ATOM line changed or, where None comes back, left out."""
    lines = [
        change(line) if line.startswith(("ATOM", "HETATM")) else line
        for line in DIPEPTIDE.read_text().splitlines()
    ]
    path = Path("my.pdb")
    path.write_text("\n".join(line for line in lines if line is not None) + "\n")
    return path


def named(line: str, name: str) -> bool:
    return line[12:16].strip() == name


def text_file() -> list[object]:
    Path("notes.pdb").write_text("not a structure\n")
    return ["notes.pdb"]


def a_folder() -> str:
    Path("ala2").mkdir()
    return "ala2"


def rst7() -> str:
    Path("my.rst7").write_text("")
    return "my.rst7"


def unknown_residue() -> list[object]:
    return [pdb(lambda line: line.replace("ALA", "XYZ"))]


def missing_hydrogen() -> list[object]:
    return [pdb(lambda line: None if named(line, "HA") else line)]


def infinite_coordinate() -> list[object]:
    return [pdb(lambda line: line[:30] + "     nan" + line[38:] if named(line, "CB") else line)]


def two_molecules() -> list[object]:
    here = mdtraj.load(str(DIPEPTIDE))
    there = mdtraj.load(str(DIPEPTIDE))
    there.xyz += 3.0
    here.stack(there).save_pdb("two.pdb")
    return ["two.pdb"]


def lacking_element() -> list[object]:
    """A peptide whose CB became selenium, in name and element."""
    return [
        pdb(lambda line: line.replace(" CB ", "SE  ")[:76] + "SE  " if named(line, "CB") else line)
    ]


def out_is_a_file() -> list[object]:
    Path("taken").write_text("mine")
    return ["double-well", "--out", "taken"]


def out_holds_other_files() -> list[object]:
    Path("thesis").mkdir()
    Path("thesis/chapter.tex").write_text("mine")
    return ["double-well", "--out", "thesis", "--override"]


def out_is_of_another_program() -> list[object]:
    Path("site/figures").mkdir(parents=True)
    Path("site/figures/mine.png").write_text("mine")
    Path("site/config.json").write_text('{"title": "mine"}')
    return ["double-well", "--out", "site"]


def override_another_program() -> list[object]:
    return [*out_is_of_another_program(), "--override"]


def broken_toml() -> list[object]:
    Path("a.toml").write_text("seed = = 1")
    return ["double-well", "--config", "a.toml"]


def unknown_toml() -> list[object]:
    Path("a.toml").write_text("sed = 1")
    return ["double-well", "--config", "a.toml"]


BAD_INPUT = {
    "an unknown system": (lambda: ["double-wel"], "did you mean double-well"),
    "a SMILES without its prefix": (
        lambda: ["C[C@H](N)c1ccccc1"], "did you mean smiles:C[C@H](N)c1ccccc1?",
    ),
    "no SMILES, for want of an atom": (lambda: ["5"], "smiles:...; known are"),
    "a folder in place of a molecule": (lambda: [a_folder()], "is a folder; give a molecule"),
    "an unknown residue": (
        lambda: ["sequence:ACE-XYZ-NME"], "XYZ",
    ),
    "an option of another kind": (
        lambda: [DIPEPTIDE, "--implicit-solvent", "OBC2"], "implicit/obc2.xml",
    ),
    "an unknown solvent": (lambda: ["my.prmtop", "--implicit-solvent", "wet"], "HCT, OBC1"),
    "half a pair of angles": (lambda: ["sequence:AA", "--phi-psi", "-60"], "pairs of numbers"),
    "coordinates alone": (lambda: [rst7()], "give the topology"),
    "a missing file": (lambda: ["nothing.pdb"], "nothing.pdb"),
    "a file that is no structure": (text_file, "notes.pdb"),
    "an unknown force field": (
        lambda: [DIPEPTIDE, "--forcefield", "amber97.xml", "implicit/obc1.xml"], "amber97.xml",
    ),
    "a force field for a toy": (lambda: ["butane", "--forcefield", "amber96.xml"], "toy"),
    "a residue without template": (unknown_residue, "No template found for residue"),
    "an element the force field lacks": (lacking_element, "ALA"),
    "a missing hydrogen": (missing_hydrogen, "hydrogen"),
    "a coordinate that is not finite": (infinite_coordinate, "nan"),
    "two molecules": (two_molecules, "disconnected"),
    "a negative temperature": (lambda: ["butane", "--temperature", "-5"], "-5"),
    "a temperature of nan": (lambda: ["butane", "--temperature", "nan"], "nan"),
    "a temperature in words": (lambda: ["butane", "--temperature", "hot"], "hot"),
    "a budget that is too small": (lambda: ["butane", "--energy-calls", "10"], "energy_calls"),
    "a budget in words": (lambda: ["butane", "--energy-calls", "many"], "5e6"),
    "a seed below zero": (lambda: ["butane", "--seed", "-1"], "2^63 - 1"),
    "a seed beyond 63 bits": (lambda: ["butane", "--seed", str(2**63)], "2^63 - 1"),
    "one sample": (lambda: ["butane", "--samples", "1"], "at least 100"),
    "half a sample": (lambda: ["butane", "--samples", "0.5"], "0.5"),
    "CVs in words": (lambda: ["butane", "--cvs", "some"], "some"),
    "more CVs than soft coordinates": (lambda: ["butane", "--cvs", "2"], "`cvs` must be at most 1"),
    "the model of 2020 without CVs": (lambda: ["butane", "--decoder", "gaussian"], "--cvs 1"),
    "a trajectory of a toy": (lambda: ["butane", "--format", "xtc"], "molecule"),
    "an unknown option": (lambda: ["butane", "--sed", "1"], "--sed"),
    "no target": (list, "TARGET"),
    "a folder that is a file": (out_is_a_file, "taken"),
    "a folder with other files": (out_holds_other_files, "chapter.tex"),
    "a folder of another program": (out_is_of_another_program, "not of a gencg run"),
    "overriding another program": (override_another_program, "not of a gencg run"),
    "a broken TOML file": (broken_toml, "not TOML"),
    "an unknown setting in TOML": (unknown_toml, "`sed`"),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["run", "fit"])
@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line(name: str, verb: str, gencg, tmp_path: Path) -> None:
    make, words = BAD_INPUT[name]
    args = make()
    before = snapshot(tmp_path)
    code, out, err = gencg(verb, *args)
    assert code == 2
    assert out == ""
    assert err.startswith("gencg: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert words in err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "args, words",
    [
        (["energy", "nothing.pdb"], "nothing.pdb"),
        (["energy", "alanine-dipeptide", "--forcefield", "amber97.xml"], "amber96.xml"),
        (["sample", "nowhere", "-n", "5"], "not a run folder"),
        (["sample", "nowhere"], "-n"),
        (["report", "nowhere"], "not a run folder"),
        (["cv", "nowhere", "a.xtc"], "not a run folder"),
        (["cv", "nowhere"], "TRAJ"),
        (["backmap", "nowhere", "--cv", "0", "-1", "-n", "5"], "not a run folder"),
        (["backmap", "nowhere", "-n", "5"], "--cv"),
        (["backmap", "nowhere", "--cv", "left", "-n", "5"], "left"),
        (["dance"], "No such command 'dance'; see gencg --help"),
        (["sample", "--dance"], "see gencg sample --help"),
    ],
)
def test_bad_input_of_the_other_verbs(args, words, gencg) -> None:
    code, out, err = gencg(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_run_leaves_everything_a_user_needs(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()} - {".lock"}
    assert names == {"config.json", "versions.json", "metrics.csv", "checkpoint.pt", "samples.h5",
                     "summary.json", "report.html", "figures", "probes.pt"}  # fmt: skip
    summary = json.loads((finished / "summary.json").read_text())
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["seed"] == 1
    assert summary["joint_ess"] == summary["ess"]
    assert [check["name"] for check in summary["mode_checks"]] == ["Samples of the hot flows"]
    populations = summary["populations"]
    assert set(populations) == {"left", "right"}
    for kind in ("raw", "reweighted"):
        assert sum(p[kind] for p in populations.values()) == pytest.approx(1.0)

    # The budget holds for everything, and the table has every step
    assert summary["energy_calls"] <= 12_000 + 10
    history = read_metrics(finished / "metrics.csv")
    assert [info.step for info in history] == list(range(1, 48))
    assert read_samples(finished).n_samples == 2000
    versions = json.loads((finished / "versions.json").read_text())
    assert (versions["torch"], versions["rdkit"]) == (version("torch"), version("rdkit"))


def test_a_finished_run_is_not_done_again(finished: Path, gencg) -> None:
    before = snapshot(finished)
    code, out, err = gencg(
        "run", "double-well", *SMALL, "--out", finished, "--seed", "1", "--json", "--threads", "1"
    )
    assert code == 0
    assert err == ""
    assert json.loads(out) == json.loads(before["summary.json"])
    assert snapshot(finished) == before


def test_other_settings_are_refused(finished: Path, gencg) -> None:
    before = snapshot(finished)
    code, _, err = gencg("run", "double-well", *SMALL, "--out", finished, "--seed", "2")
    assert code == 2
    assert "seed is 1 there and 2 here" in err
    assert "--out" in err
    assert "--override" in err
    assert snapshot(finished) == before


def test_override_starts_over_and_touches_nothing_else(finished: Path, gencg) -> None:
    shutil.copytree(finished, "run")
    Path("run/notes.txt").write_text("mine")
    args = ["run", "double-well", *SMALL, "--out", "run", "--seed", "2"]
    assert gencg(*args, "--override")[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["seed"] == 2
    assert Path("run/notes.txt").read_text() == "mine"


@pytest.mark.parametrize("verb", ["run", "fit", "sample"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_refused(verb: str, damage: str, finished: Path, gencg) -> None:
    shutil.copytree(finished, "run")
    Path("run/summary.json").unlink()
    file = Path("run/checkpoint.pt")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes({"cut": data[:1000], "flip": data, "empty": b""}[damage])
    before = snapshot(Path("run"))
    args = ["run", "-n", "10"] if verb == "sample" else ["double-well", *SMALL, "--out", "run",
                                                         "--seed", "1"]  # fmt: skip
    code, _, err = gencg(verb, *args)
    assert (code, err.count("\n")) == (2, 1)
    assert "checkpoint.pt is damaged" in err
    assert snapshot(Path("run")) == before


def test_a_folder_in_use_is_refused(finished: Path, gencg) -> None:
    from gencg.run import RunFolder

    shutil.copytree(finished, "run")
    Path("run/summary.json").unlink()
    args = ["double-well", *SMALL, "--out", "run", "--seed", "1"]
    with RunFolder.open("run").locked():
        for extra in ([], ["--override"]):
            code, _, err = gencg("run", *args, *extra)
            assert (code, err.count("\n")) == (2, 1)
            assert "in use by another gencg process" in err
    assert gencg("run", *args)[0] == 0


def test_the_settings_of_a_run_that_has_just_begun_stay(finished: Path, gencg) -> None:
    from gencg.run import RunFolder

    # Nothing but settings and lock: the first step of a molecule takes seconds to compile
    begun = RunFolder.create("run", RunFolder.open(finished).config)
    before = snapshot(Path("run"))
    with begun.locked():
        code, _, err = gencg("run", "double-well", *SMALL, "--out", "run", "--seed", "2")
    assert (code, err.count("\n")) == (2, 1)
    assert "in use by another gencg process" in err
    assert snapshot(Path("run")) == before


def test_samples_are_drawn_and_never_overwritten(finished: Path, gencg) -> None:
    code, out, _ = gencg("sample", finished, "-n", "1e3", "--json", "--out", "more")
    assert code == 0
    numbers = json.loads(out)
    assert numbers["n_samples"] == 1000
    drawn = read_samples("more")
    assert drawn.n_samples == 1000
    assert numbers["ess"] == drawn.ess
    assert not torch.equal(drawn.x[:10], read_samples(finished).x[:10])

    code, _, err = gencg("sample", finished, "-n", "1e3", "--out", "more")
    assert (code, err.count("\n")) == (2, 1)
    assert "--override" in err
    assert gencg("sample", finished, "-n", "10", "--out", "more", "--override")[0] == 0
    assert read_samples("more").n_samples == 10


def test_a_report_is_written_again(finished: Path, gencg) -> None:
    shutil.copytree(finished, "run")
    before = snapshot(Path("run"))
    Path("run/report.html").unlink()
    shutil.rmtree("run/figures")
    assert gencg("report", "run")[0] == 0
    after = snapshot(Path("run"))
    assert after.keys() == before.keys()
    assert b"Effective sample size" in after["report.html"]


def test_fit_then_sample_then_run(gencg) -> None:
    args = ["double-well", *SMALL, "--out", "run"]
    code, out, _ = gencg("fit", *args, "--json")
    assert code == 0
    assert json.loads(out)["steps"] == 47
    trained = load_checkpoint("run/checkpoint.pt")["average"]
    assert gencg("report", "run")[0] == 2
    assert gencg("sample", "run", "-n", "10")[0] == 0
    assert gencg("run", *args)[0] == 0
    after = load_checkpoint("run/checkpoint.pt")["average"]
    assert all(torch.equal(after[name], trained[name]) for name in trained)


def test_the_command_line_wins_over_the_file(gencg) -> None:
    Path("a.toml").write_text("seed = 7\nenergy-calls = 12e3\nsamples = 50000\nbatch-size = 200\n")
    args = ["double-well", "--config", "a.toml", "--samples", "2000", "--quiet", "--out", "run"]
    assert gencg("fit", *args)[0] == 0
    config = json.loads(Path("run/config.json").read_text())
    assert (config["seed"], config["energy_calls"], config["n_samples"]) == (7, 12_000, 2_000)


def test_the_model_of_2020_runs_too(gencg) -> None:
    args = ["--decoder", "gaussian", "--cvs", "1", "--estimator", "plain", "--tempering", "kl"]
    assert gencg("run", "double-well", *SMALL, *args, "--out", "run")[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["n_cvs"] == 1
    report = Path("run/report.html").read_text()
    assert "Collective variables" in report
    assert "Adam, learning rate 0.001, seed" in report


def test_the_one_stage_flow_runs_and_resumes(gencg) -> None:
    args = ["butane", *SMALL[:-2], "--decoder", "unimodal", "--cvs", "1", "--out", "run"]
    assert gencg("fit", *args)[0] == 0
    assert gencg("run", *args)[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["n_cvs"] == 1
    np.save("frames.npy", np.linspace(-3, 3, 7)[:, None])
    assert gencg("cv", "run", "frames.npy", "--out", "cvs.csv")[0] == 0
    assert Path("cvs.csv").read_text().startswith("z1 (rad)")


def test_the_flow_matching_decoder_runs_and_asks_for_a_force_with_each_energy(gencg) -> None:
    args = ["double-well", "--decoder", "flow-matching", "--cvs", "0", "--out", "run", "--quiet"]
    args += ["--energy-calls", "3e3", "--samples", "500", "--batch-size", "100"]
    assert gencg("run", *args, "--coverage-calls", "0")[0] == 0
    summary = json.loads(Path("run/summary.json").read_text())
    # 25 steps; samples have none
    assert summary["gradient_calls"] == 2500
    assert summary["energy_calls"] == pytest.approx(3000, abs=10)
    assert gencg("sample", "run", "-n", "200")[0] == 0


def test_energy_prints_terms_beside_openmm(gencg) -> None:
    code, out, _ = gencg(
        "energy", "alanine-dipeptide", "--forcefield", "amber96.xml", "implicit/obc1.xml", "--json"
    )
    assert code == 0
    values = json.loads(out)
    assert set(values) == {"total", "terms", "openmm"}
    assert values["total"] == pytest.approx(values["openmm"], abs=1e-5)
    assert sum(values["terms"].values()) == pytest.approx(values["total"], abs=1e-8)
    assert gencg("energy", "alanine-dipeptide", "--json")[1] == out
    assert "OpenMM" in gencg("energy", DIPEPTIDE)[1]

    # Changed solvent, given after repeated flags, the value after the target
    flags = ["--forcefield", "amber96.xml", "--forcefield", "implicit/obc2.xml"]
    code, out, _ = gencg("energy", *flags, DIPEPTIDE, "--json")
    assert code == 0
    assert json.loads(out)["total"] != pytest.approx(values["total"], abs=1.0)


def test_force_fields_follow_their_flag() -> None:
    parsed = ["run", "--forcefield", "a.xml", "--forcefield", "b.xml", "my.pdb", "--seed", "1"]
    assert spread(["run", "--forcefield", "a.xml", "b.xml", "my.pdb", "--seed", "1"]) == parsed
    assert spread(["--forcefield=a.xml", "b.xml"]) == [
        "--forcefield=a.xml", "--forcefield", "b.xml",
    ]  # fmt: skip
    assert spread(["my.xml", "b.xml"]) == ["my.xml", "b.xml"]


def test_negative_values_follow_their_flag() -> None:
    values = ["--cv", "0.3", "--cv", "-1.2", "--cv", "-1e-3"]
    assert spread(["run", "--cv", "0.3", "-1.2", "-1e-3", "-n", "5"]) == [
        "run", *values, "-n", "5",
    ]  # fmt: skip
    assert spread(["--cv", "-0.3", "-1.2", "run"]) == ["--cv", "-0.3", "--cv", "-1.2", "run"]
    assert spread(["--cv=-0.3", "-1.2", "run"]) == ["--cv=-0.3", "--cv", "-1.2", "run"]
    assert spread(["--phi-psi", "-60", "-45", "--caps"]) == [
        "--phi-psi", "-60", "--phi-psi", "-45", "--caps",
    ]  # fmt: skip
    assert spread(["-n", "-1", "3"]) == ["-n", "-1", "3"]


def test_a_long_seed_is_not_rounded() -> None:
    assert COUNT.convert(str(2**63 - 1), None, None) == 2**63 - 1
    assert COUNT.convert("5e6", None, None) == 5_000_000


def test_energy_of_every_kind_of_target(gencg, caplog) -> None:
    amber, gromacs = write_amber(Path()), write_gromacs(Path(), include="share/field.itp")
    text = gromacs.read_text().replace("share/field", "field").replace("1 2 1 0.11 ", "1 2 1 BOND ")
    gromacs.write_text(text)
    macros = ["--include-dir", "share", "--define", "BOND=0.11"]
    totals = []
    for args in (
        [amber, "--implicit-solvent", "obc2"],
        [amber, "--coordinates", "amide.gro", "--implicit-solvent", "obc2"],
        [gromacs, *macros],
        ["sequence:ACE-ALA-NME", "--phi-psi", "-60", "-45", "--forcefield", "amber96.xml"],
        ["sequence:A", "--caps", "--phi-psi", "-60", "-45", "--forcefield", "amber96.xml"],
    ):
        code, out, err = gencg("energy", *args, "--json")
        assert code == 0, err
        values = json.loads(out)
        assert values["total"] == pytest.approx(values["openmm"], abs=1e-5)
        assert sum(values["terms"].values()) == pytest.approx(values["total"], abs=1e-8)
        totals.append(values["total"])
    assert totals[0] == pytest.approx(totals[1], abs=1e-4)  # a gro has fewer digits
    assert totals[0] < totals[2] - 10
    assert totals[3] == totals[4]

    bare = pdb(lambda line: None if line[76:78].strip() == "H" else line)
    assert gencg("energy", bare)[0] == 2
    assert gencg("energy", bare, "--add-hydrogens", "--ph", "7")[0] == 0
    assert "added 12 hydrogens: 3 to ACE 1, 5 to ALA 2, 4 to NME 3" in caplog.text


TINY = ["--energy-calls", "1e3", "--samples", "100", "--batch-size", "100", "--quiet", "--cvs", "0",
        "--coverage-calls", "0"]  # fmt: skip


def test_a_short_run_of_a_sequence(gencg) -> None:
    target = "sequence:ACE-GLY-NME"
    args = [*TINY, "--forcefield", "amber14-all.xml"]
    code, out, err = gencg("run", target, *args, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["name"], summary["n_atoms"]) == ("ACE-GLY-NME", 19)
    run = Path("runs/ACE-GLY-NME")
    config = json.loads((run / "config.json").read_text())
    assert (config["target"], config["inputs"]) == (target, [])
    assert mdtraj.load(str(run / "samples.h5")).topology.n_residues == 3
    code, out, _ = gencg("sample", run, "-n", "10", "--format", "xtc")
    assert code == 0
    names = [Path(line).name for line in out.splitlines()[1:]]
    assert names == ["samples.h5", "topology.pdb", "samples.xtc", "frames.csv"]
    code, _, err = gencg("run", target, *args, "--phi-psi", "-60", "-45")
    assert code == 2
    assert "phi_psi is not given there and (-60.0, -45.0) here" in err


def test_a_run_goes_on_without_its_files_but_not_with_others(gencg) -> None:
    amber = write_amber(Path())
    args = ["amide.prmtop", *TINY, "--out", "run"]
    assert gencg("fit", *args)[0] == 0
    assert {p.name for p in Path("run/inputs").iterdir()} == {"amide.prmtop", "amide.rst7"}

    before = amber.read_text()
    amber.write_text(before.replace("0.11", "0.12") + "\n")
    code, _, err = gencg("run", *args)
    assert (code, err.count("\n")) == (2, 1)
    assert "checksum of amide.prmtop is" in err

    # One of them gone, the copies stand for both
    amber.write_text(before)
    Path("amide.rst7").unlink()
    code, _, err = gencg("run", *[a for a in args if a != "--quiet"])
    assert code == 0, err
    assert "no coordinates beside amide.prmtop" in err
    assert "going on from the copies in run" in err
    amber.unlink()
    for verb in (["sample", "run", "-n", "10"], ["report", "run"], ["run", *args]):
        code, _, err = gencg(*verb)
        assert code == 0, err
    code, _, err = gencg("run", *args, "--override")
    assert (code, err.count("\n")) == (2, 1)
    assert "no topology file at amide.prmtop" in err
    assert gencg("run", "amide.prmtop", *TINY, "--out", "other")[0] == 2


def test_a_run_goes_on_without_what_its_files_include(gencg) -> None:
    top = write_gromacs(Path(), include="share/field.itp")
    top.write_text(top.read_text().replace("share/field", "field"))
    args = ["amide.top", *TINY, "--out", "run", "--include-dir", "share"]
    assert gencg("fit", *args)[0] == 0
    shutil.rmtree("share")
    assert gencg("run", *args)[0] == 0


def test_systems_are_listed(gencg) -> None:
    code, out, _ = gencg("systems")
    assert code == 0
    header, *rows = out.splitlines()
    assert header.split()[:2] == ["name", "atoms"]
    assert [row.split()[0] for row in rows] == list(systems.SYSTEMS)
    found = json.loads(gencg("systems", "--json")[1])
    assert set(found) == set(systems.SYSTEMS)
    assert found["double-well"]["n_atoms"] is None
    assert found["double-well"]["known"]["log_z"] == pytest.approx(12.0649, abs=1e-4)
    dipeptide = found["alanine-dipeptide"]
    assert dipeptide["n_atoms"] == 22
    assert dipeptide["forcefield"] == ["amber96.xml", "implicit/obc1.xml"]
    assert dipeptide["known"]["log_z"] == -178.685


def test_an_unexpected_error_keeps_its_traceback_for_debug(gencg, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("gencg.systems.overview", fail)
    code, _, err = gencg("systems")
    assert (code, err.count("\n")) == (1, 1)
    assert "unexpected ZeroDivisionError: oops" in err
    assert "--debug" in err
    with pytest.raises(ZeroDivisionError):
        gencg("systems", "--debug")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_a_machine_without_memory_is_told(error: Exception, gencg, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("gencg.systems.overview", fail)
    code, _, err = gencg("systems")
    assert (code, err) == (
        1, "gencg: out of memory; ask for fewer samples or a smaller batch, or close other "
        "programs\n",
    )  # fmt: skip


def test_a_warning_is_one_line_like_the_others(gencg, monkeypatch) -> None:
    def warn(*_: object) -> None:
        logging.getLogger("gencg").warning("a word\nof %s", "warning")
        raise ValueError("the end")

    monkeypatch.setattr("gencg.systems.overview", warn)
    # Where logging is set up, it is told there
    assert gencg("systems")[2] == "gencg: the end\n"
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for _ in range(2):
        assert gencg("systems")[2] == "gencg: a word of warning\ngencg: the end\n"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, gencg.cli; assert not {'torch', 'openmm', 'mdtraj'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def start(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gencg", *args]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GENCG_COMPILE": "0"}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert path.exists(), process.communicate()[1]


LONG = ["run", "double-well", "--energy-calls", "32e3", "--samples", "2000", "--batch-size",
        "200", "--checkpoint-seconds", "0.2", "--cvs", "0"]  # fmt: skip


def test_a_killed_run_goes_on_to_the_same_parameters() -> None:
    process = start(*LONG, "--out", "cut")
    wait_for(Path("cut/checkpoint.pt"), process)
    while process.poll() is None and load_checkpoint("cut/checkpoint.pt")["step"] == 0:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Path("cut/summary.json").exists()
    done = read_metrics("cut/metrics.csv")[-1].step
    redone = 200 * (done - load_checkpoint("cut/checkpoint.pt")["step"])

    for name in ("cut", "whole"):
        process = start(*LONG, "--out", name)
        _, err = process.communicate()
        assert process.returncode == 0, err
    cut, whole = (load_checkpoint(f"{name}/checkpoint.pt") for name in ("cut", "whole"))
    assert all(torch.equal(cut["average"][k], whole["average"][k]) for k in whole["average"])
    assert torch.equal(read_samples("cut").x, read_samples("whole").x)
    steps = [info.step for info in read_metrics("cut/metrics.csv")]
    assert steps == list(range(1, 143))
    summaries = [json.loads(Path(f"{k}/summary.json").read_text()) for k in ("cut", "whole")]
    assert summaries[0]["log_z"] == summaries[1]["log_z"]
    # Steps done twice count twice; a resumed run asks once more for the energy of the reference
    assert summaries[0]["energy_calls"] == summaries[1]["energy_calls"] + redone + 1
    assert summaries[0]["gradient_calls"] == summaries[1]["gradient_calls"] + redone


def test_an_interrupted_run_says_how_to_go_on() -> None:
    process = start(*LONG, "--out", "cut")
    wait_for(Path("cut/metrics.csv"), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert not Path("cut/summary.json").exists()
    assert err.splitlines()[-1] == (
        "gencg: interrupted; the same command goes on from its last checkpoint"
    )
    assert "Traceback" not in err


def test_a_short_run_of_the_dipeptide(gencg) -> None:
    args = ["--energy-calls", "2e3", "--samples", "1000", "--batch-size", "100", "--quiet",
            "--cvs", "0"]  # fmt: skip
    fields = ["--forcefield", "amber96.xml", "implicit/obc1.xml"]
    code, out, err = gencg(
        "run", DIPEPTIDE, *fields, *args, "--out", "run", "--format", "xtc", "--json"
    )
    assert code == 0, err
    summary = json.loads(out)
    assert summary["n_atoms"] == 22
    assert set(summary["populations"]) == {"alpha_L", "alpha_R", "PPII", "beta"}
    names = {p.name for p in Path("run").iterdir()}
    assert names >= {"topology.pdb", "samples.h5", "samples.xtc", "report.html"}
    assert Path("run/figures/ramachandran_ALA2.png").exists()

    # A changed structure file is another run
    shutil.copy(DIPEPTIDE, "my.pdb")
    assert gencg("fit", "my.pdb", *fields, *args, "--out", "mine")[0] == 0
    moved = Path("my.pdb").read_text().replace("REMARK", "REMARK  ") + "\n"
    Path("my.pdb").write_text(moved)
    code, _, err = gencg("run", "my.pdb", *fields, *args, "--out", "mine")
    assert code == 2
    assert "checksum" in err
