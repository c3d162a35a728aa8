"""Hotter soft blocks of a generator that comes without any."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gencg.fit import FitResult, fit
from gencg.models.decoders import SplineDecoder
from gencg.tempering import NoTempering
from gencg.training import SNAPSHOTS, Optimisation

FEWEST_STEPS = 20
"""Steps at a temperature below which nothing is reheated."""
REHEATING = tuple(f"reheating{k}.pt" for k in range(len(SNAPSHOTS)))
"""Names of the checkpoints of its trainings."""


@dataclass(frozen=True)
class Reheated:
    """Soft blocks at hotter temperatures, and their cost.

    Args:
        snapshots: Parameters with their beta, hot to cold.
        energy_calls: Energies computed.
        gradient_calls: Gradients computed.
    """

    snapshots: list[tuple[float, dict[str, Tensor]]]
    energy_calls: int
    gradient_calls: int


def reheat(
    result: FitResult,
    *,
    energy_calls: float = 1.5e5,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    seed: int = 0,
    folder: Path | None = None,
    checkpoint_seconds: float = 30.0,
    stop: Callable[[], bool] | None = None,
) -> Reheated:
    """Train copies of a generator at the temperatures at which training keeps its soft block.

    Training goes from hot to cold and leaves soft blocks behind that cross barriers
    (`CoveringModel`); of a generator whose file holds nothing but its parameters they are made
    here, upwards. They need not be good: weights of what is drawn from them are exact.

    Args:
        result: The trained generator, which stays as it is.
        energy_calls: For all temperatures together; with too few nothing is done.
        batch_size: Configurations per step.
        learning_rate: Of the optimiser.
        seed: Decides everything random.
        folder: Where to keep the trainings as `REHEATING`, so that the same call goes on.
        checkpoint_seconds: As in `fit`.
        stop: As in `fit`.

    Raises:
        TimeIsUp: If `stop` said so; without `folder` all begins again.
    """
    result = result.leading
    decoder = result.model.decoder
    each = int(energy_calls) // len(SNAPSHOTS)
    nothing = Reheated([], 0, 0)
    if not isinstance(decoder, SplineDecoder) or each < FEWEST_STEPS * batch_size:
        return nothing
    found, model = nothing, result.model
    for k, factor in enumerate(sorted(SNAPSHOTS)):
        hotter = fit(
            result.system,
            temperature=factor * result.target.temperature,
            model=copy.deepcopy(model),
            energy_calls=each,
            batch_size=batch_size,
            tempering=NoTempering(),
            optimisation=Optimisation(learning_rate=learning_rate, warm_up=10, averaging=0.1),
            seed=seed + k,
            checkpoint=None if folder is None else folder / REHEATING[k],
            checkpoint_seconds=checkpoint_seconds,
            stop=stop,
        )
        model = hotter.model
        assert isinstance(model.decoder, SplineDecoder)
        soft = {
            name: value.detach().cpu().clone()
            for name, value in model.decoder.flow.soft.state_dict().items()
        }
        found = Reheated(
            [(hotter.target.beta, soft), *found.snapshots],
            found.energy_calls + hotter.energy_calls,
            found.gradient_calls + hotter.gradient_calls,
        )
    return found
