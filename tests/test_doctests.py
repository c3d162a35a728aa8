"""Examples in docstrings give what they say.

Cannot detect: an example that is true and of no use.
"""

import doctest
import importlib
import math
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "gencg").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    torch.set_default_dtype(torch.float32)
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"torch": torch, "math": math})
    assert found.attempted > 0
    assert found.failed == 0
