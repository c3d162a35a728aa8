"""C++ files are compiled once per machine. Cannot detect a compiler that makes wrong code."""

import pytest

from gencg.native import library


def test_a_file_is_compiled_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GENCG_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "nothing.cpp"
    source.write_text('extern "C" int one() { return 1; }')
    first = library.build(source, ("-shared", "-fPIC"))
    made = first.stat().st_mtime_ns
    assert library.build(source, ("-shared", "-fPIC")) == first
    assert first.stat().st_mtime_ns == made
    assert library.build(source, ("-shared", "-fPIC", "-O1")) != first
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".so", ".so"]
    source.write_text("no C++")
    with pytest.raises(RuntimeError, match=r"failed: .*nothing\.cpp"):
        library.build(source, ("-shared", "-fPIC"))


def test_a_missing_compiler_is_named(monkeypatch) -> None:
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler found .*set CXX"):
        library.find_compiler()


def test_a_cache_that_cannot_be_written_is_replaced(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GENCG_CACHE", str(tmp_path / "file" / "below"))
    assert library.cache_folder().name.startswith("gencg-")
