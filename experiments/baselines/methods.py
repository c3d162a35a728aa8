"""All methods of the comparison behind one call: a system, a budget and a seed give a generator."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import gencg
from experiments.baselines import gaussian_decoder, linear_bijection, temperature_annealed
from experiments.peers.plain_flow import Training
from gencg.discover import find_slow_cvs
from gencg.fit import FitResult
from gencg.objectives.bound_gap import bound_gap
from gencg.systems import System
from gencg.target import BoltzmannTarget
from gencg.tempering import NoTempering

CVs = Callable[[Tensor], NDArray[np.float64]]
"""From configurations x, ``(n, *event_shape)`` float64, to collective variables, ``(n, n_cvs)``."""


@dataclass(frozen=True)
class Trained:
    """What a method made of its budget.

    Args:
        model: What `gencg.draw` can draw from.
        target: What it was trained to, in the coordinates of the method.
        energy_calls: Energies asked for.
        seconds: CPU seconds.
        cvs: Collective variables, where the method has some.
        periodic: Whether they are angles.
        bound_gap: Of the encoder, in kT; None without one.
        about: Further numbers.
    """

    model: Any
    target: BoltzmannTarget
    energy_calls: int
    seconds: float
    cvs: CVs | None = None
    periodic: bool = False
    bound_gap: float | None = None
    about: dict[str, Any] | None = None


Method = Callable[[System, float, int, float | None], Trained]
"""From system, energy calls, seed and temperature in K (None for the system's own)."""


def two_stages(system: System, calls: float, seed: int, temperature: float | None) -> Trained:
    """gencg's default generator, and the slow CVs found after it with a tenth of the calls.

    Where fewer than 2,000 calls are left for the search there is none.
    """
    began = time.process_time()
    n_search = int(0.1 * calls)
    # Few calls want small batches, as the other methods have them
    result = gencg.fit(
        system,
        temperature=temperature,
        energy_calls=calls - n_search,
        batch_size=256,
        seed=seed,
    )
    if n_search < 2000:
        return _of_fit(result, began)
    slow = find_slow_cvs(result, n_samples=n_search, networks=False, seed=seed)
    soft = system.coordinates.soft

    def cvs(x: Tensor) -> NDArray[np.float64]:
        with torch.no_grad():
            y, _ = system.coordinates.forward(x)
            xi, _ = slow.map(y[:, soft].float())
        return xi.double().numpy()

    return Trained(
        result.model,
        result.target,
        result.energy_calls + slow.n_energy_calls,
        time.process_time() - began,
        cvs=cvs,
        periodic=bool(system.coordinates.periodic[soft].all()),
        # z is a function of y, so that nothing is lost
        bound_gap=0.0,
        about={"cvs": list(slow.names), "doubts": list(slow.doubts)},
    )


def gaussian(system: System, calls: float, seed: int, temperature: float | None) -> Trained:
    """The model of 2020."""
    began = time.process_time()
    result = gaussian_decoder.train(system, calls=calls, seed=seed, temperature=temperature)
    coordinates, model = result.system.coordinates, result.model

    def cvs(x: Tensor) -> NDArray[np.float64]:
        with torch.no_grad():
            y, _ = coordinates.forward(x)
            return model.encoder(y.float()).mean.double().numpy()  # type: ignore[no-any-return]

    spent = time.process_time() - began
    gap = bound_gap(model, seed=seed)
    return _of_fit(result, began, seconds=spent, cvs=cvs, bound_gap=gap.upper)


def linear(system: System, calls: float, seed: int, temperature: float | None) -> Trained:
    """The linear bijection of 2025; its collective variables are all slow latent variables."""
    began = time.process_time()
    result = linear_bijection.train(system, calls=calls, seed=seed, temperature=temperature)
    coordinates = result.system.coordinates
    flow: Any = result.model.decoder.flow

    def cvs(x: Tensor) -> NDArray[np.float64]:
        with torch.no_grad():
            y, _ = coordinates.forward(x)
            return flow.slow_variables(y.float()).double().numpy()  # type: ignore[no-any-return]

    return _of_fit(result, began, cvs=cvs, bound_gap=0.0, about={"n_slow": flow.n_slow})


def annealed(system: System, calls: float, seed: int, temperature: float | None) -> Trained:
    """gencg's decoder with temperature-annealed training."""
    began = time.process_time()
    return _of_fit(
        temperature_annealed.train(system, calls=calls, seed=seed, temperature=temperature), began
    )


def spline_flow(system: System, calls: float, seed: int, temperature: float | None) -> Trained:
    """The all-atom spline flow of the literature by reverse KL, at the target temperature."""
    began = time.process_time()
    training = Training(
        system,
        calls=calls,
        batch_size=256,
        rate=1e-3,
        drop_worst=0.02,
        tempering=NoTempering(),
        seed=seed,
    )
    if temperature is not None:
        training.target = BoltzmannTarget(system.energy, system.coordinates, temperature)
    while training.step < training.n_steps:
        training.advance()
    spent = time.process_time() - began
    return Trained(training.average, training.target, training.calls, spent)


def _of_fit(
    result: FitResult, began: float, *, seconds: float | None = None, **more: Any
) -> Trained:
    seconds = time.process_time() - began if seconds is None else seconds
    return Trained(result.model, result.target, result.energy_calls, seconds, **more)


METHODS: dict[str, Method] = {
    "gaussian decoder": gaussian,
    "linear bijection": linear,
    "gencg": two_stages,
    "temperature annealed": annealed,
    "spline flow": spline_flow,
}
"""Generators by their name in the table, cheap ones first; parallel tempering, which is none, is
in `run`."""
