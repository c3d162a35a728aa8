"""The folder of a run holds what the run needs, and notices what was changed.

Cannot detect: a change of the programs; versions.json records those.
"""

import shutil
from pathlib import Path

import pytest
from openmm import app

from gencg import systems
from gencg.config import RunConfig, file_checksum
from gencg.run import RunFolder

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


def test_a_run_keeps_its_structure(folder: RunFolder) -> None:
    before = Path("my.pdb").read_bytes()
    Path("my.pdb").write_text("something else")
    system = RunFolder.open("run").system()
    assert folder.structure.read_bytes() == before
    assert system.name == "my"
    assert system.description == "my, mine.xml + implicit/obc1.xml"
    assert system.molecule is not None
    assert system.molecule.n_atoms == 22


def test_a_run_by_openmm_names_can_be_opened_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIPEPTIDE, "my.pdb")
    config = RunConfig("my.pdb").resolve(systems.double_well(), checksum=file_checksum("my.pdb"))
    RunFolder.create("run", config)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert RunFolder.open("../run").system().description == (
        "my, amber14-all.xml + implicit/obc2.xml"
    )


def test_a_changed_or_missing_structure_is_refused(folder: RunFolder) -> None:
    folder.structure.write_text(folder.structure.read_text().replace("REMARK", "REMARK  ") + "\n")
    with pytest.raises(ValueError, match=r"structure\.pdb is not the one of the run .*--override"):
        folder.system()
    folder.structure.unlink()
    with pytest.raises(ValueError, match=r"structure\.pdb of the run cannot be read"):
        folder.system()


def test_a_changed_force_field_is_refused(folder: RunFolder) -> None:
    field = Path("mine.xml")
    field.write_text(field.read_text() + "<!-- -->\n")
    with pytest.raises(ValueError, match=r"mine\.xml implicit/obc1\.xml are not those of run run"):
        folder.system()
    field.unlink()
    with pytest.raises(ValueError, match="are not those of run run"):
        folder.system()


def test_overriding_replaces_the_structure(folder: RunFolder) -> None:
    Path("my.pdb").write_text(Path("my.pdb").read_text() + "\n")
    again = RunConfig("my.pdb").resolve(systems.double_well(), checksum=file_checksum("my.pdb"))
    RunFolder.create("run", again, override=True)
    assert folder.structure.read_bytes() == Path("my.pdb").read_bytes()
    ready_made = RunConfig("double-well").resolve(systems.double_well())
    RunFolder.create("run", ready_made, override=True)
    assert not folder.structure.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    config = RunConfig("double-well").resolve(systems.double_well())
    with pytest.raises(ValueError, match=r"file/run cannot be written .*choose another --out"):
        RunFolder.create(tmp_path / "file" / "run", config)


def test_drafts_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    config = RunConfig("double-well").resolve(systems.double_well())
    folder = RunFolder.create(tmp_path, config)
    for name in (".checkpoint.pt.123.tmp", ".123-samples.h5", ".mine", "notes.tmp"):
        (tmp_path / name).write_text("")
    with folder.locked():
        pass
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.json", ".lock", ".mine", "notes.tmp"}


def test_versions_are_read_or_missing_or_damaged(tmp_path: Path) -> None:
    config = RunConfig("double-well").resolve(systems.double_well())
    folder = RunFolder.create(tmp_path, config)
    assert folder.versions is None
    (tmp_path / "versions.json").write_text('{"torch": "2"}')
    assert folder.versions == {"torch": "2"}
    (tmp_path / "versions.json").write_text("{")
    with pytest.raises(ValueError, match=r"versions\.json is damaged; remove it and run"):
        _ = folder.versions
