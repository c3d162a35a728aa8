"""Shared fixtures: double precision, a fixed seed, a clean Pyro store, the command line."""

import signal
from collections.abc import Iterator

import pyro
import pytest
import torch

from gencg import cli


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    # A shell that starts the tests in the background has them ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _clean_state() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    pyro.clear_param_store()
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def gencg(capfd):
    """Run the command in this process: exit code, stdout, stderr."""

    def call(*args: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(arg) for arg in args])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return call
