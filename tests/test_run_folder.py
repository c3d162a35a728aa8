"""The folder of a run holds what the run needs, and notices what was changed.

Cannot detect: a change of the programs; versions.json records those.
"""

import dataclasses
import errno
import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from amide_files import POSITIONS, write_gromacs
from openmm import app

from gencg import files, systems
from gencg.config import RunConfig
from gencg.config.comparing import energy_calls_with_cvs
from gencg.run import RunFolder
from gencg.run.metrics import COLUMNS, MetricsWriter
from gencg.training import StepInfo

DIPEPTIDE = Path(systems.__file__).parent / "data" / "alanine_dipeptide.pdb"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A new run of a structure and a force field of the user's own, by relative paths."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIPEPTIDE, "my.pdb")
    shutil.copy(Path(app.__file__).parent / "data" / "amber96.xml", "mine.xml")
    config = RunConfig("my.pdb", forcefield=("mine.xml", "implicit/obc1.xml"))
    system = systems.load("my.pdb", forcefield=config.forcefield)
    return RunFolder.create("run", config.resolve(system))


def test_a_run_keeps_its_inputs(folder: RunFolder) -> None:
    before = [Path(name).read_bytes() for name in ("my.pdb", "mine.xml")]
    assert [p.read_bytes() for p in folder.inputs.values()] == before
    assert list(folder.inputs) == ["my.pdb", "mine.xml"]
    for change in (lambda p: p.write_text("something else"), Path.unlink):
        for name in ("my.pdb", "mine.xml"):
            change(Path(name))
        system = RunFolder.open("run").system()
        assert system.name == "my"
        assert system.description == "my, mine.xml + implicit/obc1.xml"
        assert system.molecule is not None
        assert system.molecule.n_atoms == 22


def test_a_run_by_openmm_names_can_be_opened_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIPEPTIDE, "my.pdb")
    RunFolder.create("run", RunConfig("my.pdb").resolve(systems.double_well()))
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert RunFolder.open("../run").system().description == (
        "my, amber14-all.xml + implicit/obc2.xml"
    )


@pytest.mark.parametrize("name", ["my.pdb", "mine.xml"])
def test_a_changed_or_missing_copy_is_refused(name: str, folder: RunFolder) -> None:
    copy = folder.inputs[name]
    copy.write_text(copy.read_text() + "\n")
    with pytest.raises(ValueError, match=rf"inputs/{name} is not the one of the run .*--override"):
        folder.system()
    copy.unlink()
    with pytest.raises(ValueError, match=rf"inputs/{name} of the run cannot be read"):
        folder.system()


def test_includes_of_a_force_field_are_kept_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIPEPTIDE, "my.pdb")
    Path("a/b").mkdir(parents=True)
    shutil.copy(Path(app.__file__).parent / "data" / "amber96.xml", "a/b/mine.xml")
    Path("a/mine.xml").write_text("<ForceField><Include file='b/mine.xml'/></ForceField>")
    Path("mine.xml").write_text(
        '<ForceField>\n <Include file="a/mine.xml" />\n'
        ' <Include file="implicit/obc1.xml"/>\n</ForceField>'
    )
    config = RunConfig("my.pdb", forcefield=("mine.xml",))
    system = systems.load("my.pdb", **config.loader_options)
    folder = RunFolder.create("run", config.resolve(system))
    names = {path.name for path in Path("run/inputs").iterdir()}
    assert names == {"my.pdb", "mine.xml", "2-mine.xml", "3-mine.xml"}
    shutil.rmtree("a")
    Path("mine.xml").unlink()
    x = system.coordinates.inverse(system.coordinates.centre[None])[0]
    assert float(folder.system().energy(x)) == pytest.approx(float(system.energy(x)), abs=1e-9)


def test_a_topology_is_kept_with_its_includes_and_coordinates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gromacs(Path(), include="share/field.itp")
    options = {"implicit_solvent": "OBC2", "include_dir": "share"}
    top = Path("amide.top")
    top.write_text(top.read_text().replace("share/field", "field"))
    config = RunConfig("amide.top", **options)
    system = systems.load("amide.top", **config.loader_options)
    folder = RunFolder.create("run", config.resolve(system))
    assert list(folder.inputs) == ["amide.top", "amide.gro"]
    assert folder.config.coordinates == "amide.gro"
    before = folder.config
    field = Path("share/field.itp")
    field.write_text(field.read_text() + "; changed\n")
    (words,) = config.resolve(system).differences(before)
    assert words.startswith("checksum of amide.top is ")

    shutil.rmtree("share")
    for name in ("amide.top", "amide.gro"):
        Path(name).unlink()
    again = RunFolder.open("run").system()
    assert again.description == system.description == "amide, GROMACS topology + OBC2"
    x = torch.tensor(POSITIONS / 10)
    assert float(again.energy(x)) == pytest.approx(float(system.energy(x)), abs=1e-9)


def test_a_run_of_an_earlier_version_is_read_and_resumed(folder: RunFolder) -> None:
    # It kept the structure alone, and looked for force fields where they had been
    (folder.path / "inputs" / "my.pdb").rename(folder.path / "structure.pdb")
    shutil.rmtree(folder.path / "inputs")
    file = folder.path / "config.json"
    content = json.loads(file.read_text())
    content["checksum"] = {given: c for given, _, c in content.pop("inputs")}["my.pdb"]
    for name in ("coordinates", "implicit_solvent", "include_dir", "defines", "add_hydrogens", "ph",
                 "caps", "phi_psi"):  # fmt: skip
        del content[name]
    file.write_text(json.dumps(content))
    old = RunFolder.open("run")
    assert old.system().description == "my, mine.xml + implicit/obc1.xml"

    (folder.path / "metrics.csv").write_text("")
    again = RunFolder.create("run", folder.config)
    assert list(again.inputs) == ["my.pdb"]
    assert again.system().molecule is not None
    field = Path("mine.xml")
    field.write_text(field.read_text() + "<!-- -->\n")
    with pytest.raises(ValueError, match=r"mine\.xml implicit/obc1\.xml are not those of run run"):
        old.system()
    config = RunConfig("my.pdb", forcefield=folder.config.forcefield)
    changed = config.resolve(systems.double_well())
    with pytest.raises(ValueError, match="forcefield_checksum is"):
        RunFolder.create("run", changed)


def test_overriding_replaces_the_inputs(folder: RunFolder) -> None:
    Path("my.pdb").write_text(Path("my.pdb").read_text() + "\n")
    again = RunConfig("my.pdb").resolve(systems.double_well())
    RunFolder.create("run", again, override=True)
    assert Path("run/inputs/my.pdb").read_bytes() == Path("my.pdb").read_bytes()
    assert not Path("run/inputs/mine.xml").exists()
    ready_made = RunConfig("double-well").resolve(systems.double_well())
    RunFolder.create("run", ready_made, override=True)
    assert not Path("run/inputs").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    config = RunConfig("double-well").resolve(systems.double_well())
    with pytest.raises(ValueError, match=r"file/run cannot be written .*choose another --out"):
        RunFolder.create(tmp_path / "file" / "run", config)


def test_drafts_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    config = RunConfig("double-well").resolve(systems.double_well())
    folder = RunFolder.create(tmp_path, config)
    with files.replacing(tmp_path / "a") as draft:
        draft.touch()
    begin = draft.name.removesuffix("-a")
    mine, dead = os.getpid(), 2**22 + 1
    gone_with, elsewhere = begin.replace(str(mine), str(dead)), f".draft-{dead}@else.where"
    # Of what the run writes no other process has a draft; beside it one may be at work
    gone = [".checkpoint.pt.123.tmp", f".{mine}-samples.h5", f"{begin}-samples.h5",
            f"figures/{begin}-a.png", f"draws/a/.{dead}-samples.h5",
            f"draws/a/{gone_with}-samples.h5", f"{gone_with}-cvs.npy"]  # fmt: skip
    kept = [".mine", "notes.tmp", f"draws/a/.{mine}-samples.h5", f".{mine}-cvs.npy", "a",
            ".2024-notes.txt", "figures/.2024-notes.txt", f"draws/a/{elsewhere}-samples.h5",
            f"draws/a/{begin}-samples.h5", f"{elsewhere}-cvs.npy"]  # fmt: skip
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with folder.locked():
        pass
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"config.json", ".lock", *kept}


def test_only_drafts_of_the_dead_of_this_machine_are_removed_without_a_lock(tmp_path: Path) -> None:
    mine, dead, host = os.getpid(), 2**22 + 1, files._host()
    kept = {f".draft-{mine}@{host}-a.h5", f".draft-{dead}@else.where-a.h5", f".{dead}-a.h5"}
    for name in (*kept, f".draft-{dead}@{host}-a.h5"):
        (tmp_path / name).touch()
    files.remove_left_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_names_are_flushed_where_that_is_known(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = files._flush

    def refuse(path: Path) -> None:
        if path.is_dir():
            raise OSError(number, os.strerror(number))
        flush(path)

    monkeypatch.setattr(files, "_flush", refuse)
    with nullcontext() if number == errno.EINVAL else pytest.raises(OSError, match="put/output"):
        files.write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_full_disk_names_the_table_of_metrics(tmp_path: Path) -> None:
    metrics = MetricsWriter(tmp_path / "metrics.csv")
    metrics._file = open("/dev/full", "w")  # noqa: SIM115
    info = StepInfo(**dict.fromkeys(COLUMNS, 1))
    # A line that could not be written is tried once more where the table is closed
    for call in (lambda: metrics(info), metrics.__exit__):
        with pytest.raises(OSError, match="No space left") as told:
            call()
        assert told.value.filename == str(tmp_path / "metrics.csv")


def test_a_generator_is_not_overridden_by_the_run_that_takes_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    config = RunConfig("double-well").resolve(systems.double_well())
    RunFolder.create(source, config)
    (source / "checkpoint.pt").write_text("trained")
    (tmp_path / "link").symlink_to(source)
    for name in (source, tmp_path / "link", source / "draws"):
        mine = dataclasses.replace(config, generator=str(name), energy_calls=None)
        with pytest.raises(ValueError, match="is the run's own folder, or lies in it; choose ano"):
            RunFolder.create(source, mine, override=True)
    assert (source / "checkpoint.pt").read_text() == "trained"


def test_links_to_folders_are_found_at_any_depth(tmp_path: Path) -> None:
    config = RunConfig("double-well").resolve(systems.double_well())
    run, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    RunFolder.create(run, config)
    for name in ("draws/a", "draws/b/parts", "drawing/generator"):
        link = run / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(outside)
        with pytest.raises(ValueError, match=f"{name} is a link, and nothing is written outside"):
            RunFolder.open(run)
        link.unlink()
    assert RunFolder.open(run).config == config


@pytest.mark.parametrize("name", ["origin", "before_cvs"])
def test_what_is_written_once_is_to_be_restored(name: str, tmp_path: Path) -> None:
    file = {"origin": "origin.json", "before_cvs": "generator.json"}[name]
    folder = RunFolder(tmp_path, RunConfig("double-well"))
    (tmp_path / file).write_text("{")
    with pytest.raises(ValueError, match=rf"{file} is damaged; restore it, or"):
        getattr(folder, name)


def test_versions_are_read_or_missing_or_damaged(tmp_path: Path) -> None:
    config = RunConfig("double-well").resolve(systems.double_well())
    folder = RunFolder.create(tmp_path, config)
    assert folder.versions is None
    (tmp_path / "versions.json").write_text('{"torch": "2"}')
    assert folder.versions == {"torch": "2"}
    (tmp_path / "versions.json").write_text("{")
    with pytest.raises(ValueError, match=r"versions\.json is damaged; remove it and run"):
        _ = folder.versions


def test_cvs_are_taken_up_in_an_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    system = systems.double_well()
    bare = RunConfig("double-well", n_cvs=0, energy_calls=300_000, coverage_calls=0).resolve(system)
    folder = RunFolder.create("run", bare)
    (folder.path / "metrics.csv").write_text("step\n")
    (folder.path / "summary.json").write_text('{"ess": 0.5}')

    asked = dataclasses.replace(bare, n_cvs="auto")
    with pytest.raises(ValueError, match=r"give --energy-calls \d+ --coverage-calls 0 to add"):
        RunFolder.create("run", asked)
    assert RunFolder.open("run").config == bare
    assert folder.summary == {"ess": 0.5}

    enough = dataclasses.replace(asked, energy_calls=energy_calls_with_cvs(asked, bare))
    with folder.locked(), pytest.raises(ValueError, match="in use by another gencg process"):
        RunFolder.create("run", enough)
    taken = RunFolder.create("run", enough)
    assert RunFolder.open("run").config == taken.config == enough
    assert (taken.summary, taken.before_cvs) == (None, {"ess": 0.5})
    # Once more changes nothing, and starting over leaves nothing
    assert RunFolder.create("run", enough).before_cvs == {"ess": 0.5}
    assert RunFolder.create("run", enough, override=True).before_cvs is None
