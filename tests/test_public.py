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


IS_FIT = "assert callable(gencg.fit) and gencg.fit.__module__ == 'gencg.fit'"
BEGINNINGS = (
    "import gencg.fit; import gencg; gencg.fit.__code__",
    "import gencg; import gencg.run; gencg.fit.__code__",
    "from gencg import fit; fit.__code__",
    "import gencg; gencg.systems.double_well()",
    f"import gencg; {IS_FIT}; import gencg.fit; {IS_FIT}; from gencg.fit import FitResult",
    f"import gencg.fit; {IS_FIT}; gencg.FitResult",
    f"from gencg import fit; import gencg; {IS_FIT}; assert fit is gencg.fit",
)
NEEDED = "import arviz, matplotlib.pyplot, mdtraj, normflows, openmm, pyro, torch"
EACH = """
import os, sys, traceback, warnings

assert not any(name.split(".")[0] == "gencg" for name in sys.modules)
for code in {codes}:
    with warnings.catch_warnings():
        # Newer Pythons warn of threads, none of which holds a lock here
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        try:
            exec(code, {{}})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, code
"""


def test_names_mean_the_same_whatever_was_imported_before() -> None:
    # What gencg needs is imported once, gencg itself anew by each
    code = NEEDED + EACH.format(codes=repr(BEGINNINGS))
    subprocess.run([sys.executable, "-B", "-W", "error", "-c", code], check=True)


def test_a_wrong_beginning_would_be_noticed() -> None:
    code = EACH.format(codes=repr(("import gencg; assert gencg.__doc__ is None",)))
    failed = subprocess.run([sys.executable, "-B", "-c", code], stderr=subprocess.PIPE, text=True)
    assert failed.returncode == 1
    assert "AssertionError: import gencg; assert gencg.__doc__ is None" in failed.stderr
