"""C++ files of this package as shared libraries: compiled once per machine, loaded with ctypes."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

HEADERS = Path(__file__).parent
"""Folder of the headers that C++ files of the package may include."""
FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread",
    # Nothing here reads errno or traps; sums keep their order, so that NaN and Kahan's sum survive
    "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
)  # fmt: skip


@functools.cache
def load_library(source: Path) -> ctypes.CDLL:
    """The library of a C++ file, compiled if this machine has not done so before.

    It is kept in ``GENCG_CACHE``, by default ``~/.cache/gencg``, under a name which depends on
    source, compiler and processor.

    Raises:
        RuntimeError: If there is no C++ compiler, or it fails.
    """
    return ctypes.CDLL(str(build(source, (*FLAGS, f"-I{HEADERS}"))))


def build(source: Path, flags: Iterable[str]) -> Path:
    """Compile a C++ file into a shared library, or find it compiled; returns its path."""
    compiler, flags = find_compiler(), tuple(flags)
    # What the compiler defines tells its version and the processor it compiles for
    macros = run(compiler, *flags, "-dM", "-E", "-x", "c++", os.devnull)
    headers = b"".join(path.read_bytes() for path in sorted(HEADERS.glob("*.hpp")))
    text = source.read_bytes() + headers + " ".join((compiler, *flags)).encode() + macros
    library = cache_folder() / f"{source.stem}-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            run(compiler, *flags, str(source), "-o", str(made))
            # In one step, so that no other process loads half a file
            made.replace(library)
    return library


def find_compiler() -> str:
    """Path of the C++ compiler: ``CXX`` of the environment, or the first that is there."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (path := shutil.which(name)):
            return path
    raise RuntimeError("no C++ compiler found (g++, clang++); install one or set CXX")


def run(*command: str) -> bytes:
    """Output of a command.

    Raises:
        RuntimeError: If it fails, with the first line of what it said.
    """
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or "no message"
        raise RuntimeError(f"{command[0]} failed: {said.splitlines()[0]}")
    return done.stdout


def cache_folder() -> Path:
    """Folder of compiled libraries, made if need be; a temporary one where none can be written."""
    folder = Path(os.environ.get("GENCG_CACHE") or Path.home() / ".cache" / "gencg")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="gencg-"))
