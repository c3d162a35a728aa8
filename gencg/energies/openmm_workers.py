"""Evaluating configurations with OpenMM, in this process and in several."""

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.energies.openmm_values import create_context, from_xml, to_xml

Array = NDArray[np.float64]


def evaluate(context: Any, positions: Array, gradient: bool) -> tuple[Array, Array]:
    """Energies ``(n,)`` and gradients ``(n, n_atoms, 3)``; without gradient the latter is empty."""
    values, gradients = (
        np.empty(len(positions)),
        np.empty_like(positions if gradient else positions[:0]),
    )
    for k, configuration in enumerate(positions):
        context.setPositions(configuration)
        state = context.getState(energy=True, forces=gradient)
        values[k] = state.getPotentialEnergy()._value
        if gradient:
            gradients[k] = -state.getForces(asNumpy=True)._value
    return values, gradients


class OpenMMWorkers:
    """Processes with one context each, sharing the configurations of a batch evenly.

    Args:
        system: The system every worker evaluates.
        platform: Name of the OpenMM platform.
        n_processes: How many.
    """

    def __init__(self, system: Any, platform: str, n_processes: int) -> None:
        self.n_processes = n_processes
        self.pool = ProcessPoolExecutor(
            n_processes,
            # A forked process would inherit threads that are not there
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(to_xml(system), platform),
        )

    def evaluate(self, positions: Array, gradient: bool) -> tuple[Array, Array]:
        """Energies and gradients of a batch, in order.

        Raises:
            RuntimeError: If a worker died, or OpenMM raised in one.
        """
        parts = np.array_split(positions, self.n_processes)
        futures: list[Future[tuple[Array, Array]]] = [
            self.pool.submit(work, part, gradient) for part in parts if len(part)
        ]
        try:
            results = [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process that evaluates OpenMM energies ended unexpectedly (out of memory, or a "
                'script without `if __name__ == "__main__":`); try n_processes=1'
            ) from error
        if not results:
            return np.empty(0), np.empty_like(positions)
        values, gradients = zip(*results, strict=True)
        return np.concatenate(values), np.concatenate(gradients)

    def close(self) -> None:
        """End the processes."""
        self.pool.shutdown(cancel_futures=True)


_context: Any = None


def start_worker(system: str, platform: str) -> None:
    """Build the context of this worker process."""
    global _context
    _context = create_context(from_xml(system), platform)


def work(positions: Array, gradient: bool) -> tuple[Array, Array]:
    """Evaluate a part of a batch in this worker process."""
    try:
        return evaluate(_context, positions, gradient)
    except Exception as error:
        # OpenMM's own exceptions do not survive the way between processes
        raise RuntimeError(f"OpenMM failed in a worker process: {error}") from None
