"""Checkpoints: whole, checked, harmless. Cannot detect a disk that lies about a flush."""

import io
import os

import pytest
import torch

from gencg.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


def test_a_checkpoint_comes_back_as_it_was(tmp_path) -> None:
    content = {"a": torch.randn(3), "b": [1, "two", None], "c": {"d": 3.5}}
    save_checkpoint(tmp_path / "c.pt", content)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(loaded["a"], content["a"])
    assert loaded["b"] == content["b"]
    assert loaded["c"] == content["c"]
    assert os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize("position", [0, 30, 60, 200, -1])
def test_a_changed_byte_is_noticed(tmp_path, position) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"a": torch.randn(10)})
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"c\.pt is damaged.*--override"):
        load_checkpoint(path)


@pytest.mark.parametrize("keep", [0, 10, 100])
def test_a_cut_file_is_noticed(tmp_path, keep) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"a": torch.randn(10)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "none.pt")


class _Trap:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_does_not_run(tmp_path) -> None:
    trap = tmp_path / "sprung"
    save_checkpoint(tmp_path / "c.pt", {"trap": _Trap(str(trap))})
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_checkpoint(tmp_path / "c.pt")
    assert not trap.exists()


def test_a_newer_format_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gencg.checkpoint.FORMAT", 99)
    save_checkpoint(tmp_path / "c.pt", {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 99, this gencg reads 1"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"a": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("gencg.checkpoint.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"a": 2})
    monkeypatch.undo()
    assert load_checkpoint(path)["a"] == 1


def test_a_foreign_archive_is_not_a_checkpoint(tmp_path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": 1}, buffer)
    (tmp_path / "c.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "c.pt")
