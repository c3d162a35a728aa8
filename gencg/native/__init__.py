"""Machine code: C++ files of the package, compiled once per machine where a compiler is there."""

from gencg.native.library import load_library

__all__ = ["load_library"]
