"""The public names: all there, each its own, loaded on first use.

Cannot detect: a name that should be public and is not in the list.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gencg


def declared() -> set[str]:
    """Names that a type checker sees."""
    (block,) = [
        n for n in ast.parse(Path(gencg.__file__).read_text()).body if isinstance(n, ast.If)
    ]
    return {alias.name for node in block.body for alias in getattr(node, "names", [])}


def test_the_type_checker_and_the_interpreter_see_the_same_names() -> None:
    assert declared() == set(gencg.__all__)


@pytest.mark.parametrize("name", gencg.__all__)
def test_every_public_name_is_there_and_described(name: str) -> None:
    assert getattr(gencg, name).__doc__
    assert name in dir(gencg)


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = gencg.fitt


@pytest.mark.parametrize(
    "code",
    [
        "import gencg.fit; import gencg; gencg.fit.__code__",
        "import gencg; import gencg.run; gencg.fit.__code__",
        "from gencg import fit; fit.__code__",
        "import gencg; gencg.systems.double_well()",
    ],
)
def test_names_mean_the_same_whatever_was_imported_before(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
