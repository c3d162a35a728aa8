"""Checkpoints: whole, checked, harmless. Cannot detect a disk that lies about a flush."""

import hashlib
import io
import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from tiny_fit import numbers, tiny_fit

from gencg.checkpoint import (
    FORMAT,
    CheckpointError,
    checkpoint_size,
    load_checkpoint,
    save_checkpoint,
)

DATA = Path(__file__).parent / "data"


def test_a_checkpoint_comes_back_as_it_was(tmp_path) -> None:
    content = {"a": torch.randn(3), "b": [1, "two", None], "c": {"d": 3.5}}
    save_checkpoint(tmp_path / "c.pt", content)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(loaded["a"], content["a"])
    assert loaded["b"] == content["b"]
    assert loaded["c"] == content["c"]
    assert os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize("position", [0, 30, 60, 100, -1])
def test_a_changed_byte_is_noticed(tmp_path, position) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"a": torch.randn(10)})
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"c\.pt is damaged.*remove that file alone"):
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


class _Greedy:
    def __reduce__(self):
        return bytearray, (10**13,)


class _Long:
    def __reduce__(self):
        storage = torch.zeros(4).untyped_storage()
        typed = torch.storage.TypedStorage(
            wrap_storage=storage, dtype=torch.float32, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (typed, 0, (10**12,), (1,), False, {})


def sealed(payload: bytes) -> bytes:
    """A file with a right checksum, whatever it holds."""
    return b"gencg-checkpoint\n" + hashlib.sha256(payload).digest() + payload


def archive(content: object) -> bytes:
    """What gencg wrote in format 1."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return sealed(buffer.getvalue())


def text(tree: object, tail: bytes = b"") -> bytes:
    """A file of format 2 of any JSON text."""
    words = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return sealed(b"format 2\n" + len(words).to_bytes(8, "little") + words + tail)


def test_an_archive_of_another_format_is_refused(tmp_path) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(archive({"format": 1, "a": torch.ones(2)}))
    assert set(load_checkpoint(path)) == {"a"}
    path.write_bytes(archive({"format": 7, "a": torch.ones(2)}))
    with pytest.raises(CheckpointError, match="an archive has format 1, this one says 7"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path) -> None:
    trap = tmp_path / "sprung"
    path = tmp_path / "c.pt"
    path.write_bytes(archive({"trap": _Trap(str(trap))}))
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_checkpoint(path)
    assert not trap.exists()
    with pytest.raises(CheckpointError, match=r"content\.a\[1\] must be .* plain value, got _Trap"):
        save_checkpoint(path, {"a": [1, _Trap("")]})


HOSTILE = {
    "an archive that asks for memory": archive({"a": _Greedy()}),
    "an archive with a tensor beyond its storage": archive({"a": _Long()}),
    "an archive of no mapping": archive([1]),
    "an archive of which a part is cut": sealed(archive({"a": torch.ones(99)})[49:-40]),
    "a shape beyond the file": text({"a": {"$tensor": ["float32", [10**12]]}}),
    "a negative shape": text({"a": {"$tensor": ["float32", [-1, -4]]}}, bytes(16)),
    "an unknown number": text({"a": {"$tensor": ["object", [1]]}}, bytes(8)),
    "no list": text({"a": {"$tensor": 3}}),
    "a tail": text({}, b"more"),
    "a deep text": text(b"[" * 100_000),
    "no text": sealed(b"format 2\n" + bytes([255] * 8)),
    "no mapping": text([1, 2]),
    "a list as a key": text({"$items": [[[1], 2]]}),
    "nothing": sealed(b""),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_made_to_harm_is_refused(tmp_path, data: bytes) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"c\.pt (holds more|has format None)"):
        load_checkpoint(path)


def test_every_plain_value_comes_back(tmp_path) -> None:
    content = {
        "numbers": [1, -(2**70), 0.1, math.inf, -math.inf, True, None, "ü"],
        "tuple": (1, (2.0, torch.arange(6).reshape(2, 3).T)),
        "whole keys": {0: "a", 1: {"$tensor": 1}, "x": (), (1, 2): []},
        "tensors": [torch.zeros(()), torch.zeros(0, 3), torch.ones(2, dtype=torch.bool),
                    torch.tensor([1.5], dtype=torch.bfloat16), torch.tensor(3, dtype=torch.int16)],
        "format": "a word",
    }  # fmt: skip
    save_checkpoint(tmp_path / "c.pt", content)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert checkpoint_size(content) == (tmp_path / "c.pt").stat().st_size
    tensors, again = content.pop("tensors"), loaded.pop("tensors")
    assert [(t.dtype, t.shape) for t in again] == [(t.dtype, t.shape) for t in tensors]
    assert all(map(torch.equal, again, tensors))
    assert torch.equal(loaded["tuple"][1][1], content["tuple"][1][1])
    del loaded["tuple"], content["tuple"]
    assert loaded == content
    # The same content is the same file
    save_checkpoint(tmp_path / "d.pt", content)
    save_checkpoint(tmp_path / "e.pt", loaded)
    assert (tmp_path / "d.pt").read_bytes() == (tmp_path / "e.pt").read_bytes()


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
def test_every_format_is_read_and_goes_on_to_the_same_model(tmp_path, number: int) -> None:
    # Each file was written in the middle of a training by the gencg of that format
    torch.set_default_dtype(torch.float32)
    name = f"checkpoint_format{number}"
    expected = json.loads((DATA / f"{name}.json").read_text())
    shutil.copy(DATA / f"{name}.pt", tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt")["step"] == 4
    found = numbers(tiny_fit(tmp_path / "c.pt"))
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, abs=1e-4), key
    # Written again it is of the present format
    head = (tmp_path / "c.pt").read_bytes()[49:58]
    assert head == b"format %d\n" % FORMAT


def test_a_newer_format_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gencg.checkpoint.FORMAT", 99)
    save_checkpoint(tmp_path / "c.pt", {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 99, this gencg reads 1 to 2"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"a": 1})

    def fail(*_):
        raise OSError("disk full")

    for call in ("os.replace", "os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"gencg.files.{call}", fail)
            with pytest.raises(OSError, match="disk full"):
                save_checkpoint(path, {"a": 2})
        assert os.listdir(tmp_path) == ["c.pt"]
    assert load_checkpoint(path)["a"] == 1


def test_a_foreign_archive_is_not_a_checkpoint(tmp_path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": 1}, buffer)
    (tmp_path / "c.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "c.pt")
