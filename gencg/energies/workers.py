"""Several processes that share the configurations of a batch, for energies without a batched form.

Each process builds an evaluator of its own and computes on one thread. A worker leaves Ctrl-C to
the process that started it, and ends with it, even where that one is killed.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Evaluator = Callable[[Array, bool], tuple[Array, Array]]
"""From positions ``(n, n_atoms, 3)`` in nm, and whether gradients are asked for, to energies
``(n,)`` and gradients ``(n, n_atoms, 3)``; without gradient the latter is empty."""

LARGEST_PART = 32
"""Configurations a worker takes at once: what still has to end after Ctrl-C."""


class Workers:
    """Processes with one evaluator each, sharing the configurations of a batch evenly.

    Args:
        name: What evaluates, for messages.
        n_processes: How many.
        build: Makes the evaluator, once in every process; a function of a module.
        arguments: What `build` takes: plain values.
    """

    def __init__(
        self, name: str, n_processes: int, build: Callable[..., Evaluator], *arguments: Any
    ) -> None:
        self.name, self.n_processes = name, n_processes
        self.pool = ProcessPoolExecutor(
            n_processes,
            # A forked process would inherit threads that are not there
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(name, build, arguments),
        )

    def __call__(self, positions: Array, gradient: bool) -> tuple[Array, Array]:
        """Energies and gradients of a batch, in order.

        Raises:
            RuntimeError: If a worker died, or the evaluator raised in one.
        """
        n_parts = max(self.n_processes, -(-len(positions) // LARGEST_PART))
        parts = np.array_split(positions, n_parts)
        futures: list[Future[tuple[Array, Array]]] = []
        try:
            futures += [self.pool.submit(work, part, gradient) for part in parts if len(part)]
            results = [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a process that evaluates {self.name} energies ended unexpectedly (out of "
                'memory, or a script without `if __name__ == "__main__":`); try n_processes=1'
            ) from error
        except BaseException:
            # Ctrl-C above all: what has not begun is left
            for future in futures:
                future.cancel()
            raise
        if not results:
            return np.empty(0), np.empty_like(positions)
        values, gradients = zip(*results, strict=True)
        return np.concatenate(values), np.concatenate(gradients)

    def close(self) -> None:
        """End the processes."""
        self.pool.shutdown(cancel_futures=True)


_name = ""
_evaluate: Evaluator | None = None


def start_worker(name: str, build: Callable[..., Evaluator], arguments: tuple[Any, ...]) -> None:
    """Make this process a worker: its evaluator, one thread, an end with its parent."""
    global _name, _evaluate
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # For libraries still to be loaded; where a script has imported torch, OpenMP is already there
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    _name, _evaluate = name, build(*arguments)


def _end_with_parent() -> None:
    # A worker holds both ends of its queue, and would wait for a dead parent for ever
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def work(positions: Array, gradient: bool) -> tuple[Array, Array]:
    """Evaluate a part of a batch in this worker process."""
    assert _evaluate is not None
    try:
        return _evaluate(positions, gradient)
    except Exception as error:
        # Exceptions of compiled libraries do not survive the way between processes
        raise RuntimeError(f"{_name} failed in a worker process: {error}") from None
