"""Generators that are trained already, to draw from in seconds.

Each file holds the parameters of a model of `build_model`, of a ready-made system, and how it was
made.
Matrices are stored as 16-bit fractions of their largest entry, each of a stack of its own, or where
that is too much as fractions of fewer bits of the largest entry of their row: the density is exact
all the same, since it is that of the parameters as they are read.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gencg import systems
from gencg.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gencg.fit import FitResult, as_result
from gencg.models.build import model_of
from gencg.target import BoltzmannTarget

FOLDER = Path(__file__).parent
LARGEST_FILE = 5_000_000
"""Bytes of a file at most."""
BITS = (16, 12, 11, 10, 9, 8)
"""Of an entry of a matrix: the first with which the file is small enough."""
_STEPS = 2**15 - 1


def names() -> list[str]:
    """Systems that have a trained generator."""
    return sorted(path.stem for path in FOLDER.glob("*.pt"))


def about(name: str) -> dict[str, Any]:
    """How a generator was made and what it reached, as plain values.

    Raises:
        ValueError: If there is none of that name.
    """
    found: dict[str, Any] = _read(name)["about"]
    return found


def load(name: str) -> FitResult:
    """A trained generator, as `gencg.fit` would give it.

    Args:
        name: One of `names`.

    Raises:
        ValueError: If there is none of that name.
        CheckpointError: If its file is damaged.
    """
    content = _read(name)
    system = systems.load(name)
    if content["coordinates"] != list(system.coordinates.names):
        raise CheckpointError(
            f"the trained generator of {name} was made for other coordinates; train it again with "
            f"{content['about']['command']}"
        )
    parameters = {key: _unpacked(*value) for key, value in content["model"].items()}
    model = model_of(system.coordinates, parameters)
    model.load_state_dict(parameters)
    target = BoltzmannTarget(system.energy, system.coordinates, content["temperature"])
    return as_result(system, model, target=target, seed=content["about"]["seed"])


def write(result: FitResult, path: str | Path, *, about: dict[str, Any]) -> None:
    """Write the file of a generator without collective variables, of the recommended model.

    Args:
        result: A training of a ready-made system.
        path: File to write.
        about: How it was made, as plain values; the ``command`` and the ``seed`` at least. The
            ``bits`` of an entry are noted beside.

    Raises:
        ValueError: If the model has collective variables, `about` lacks something, or the file
            would be larger than `LARGEST_FILE`.
    """
    if result.model.n_cvs:
        raise ValueError(f"`result` must have no collective variables, got {result.model.n_cvs}")
    if missing := {"command", "seed"} - about.keys():
        raise ValueError(f"`about` must hold command and seed, lacks {', '.join(sorted(missing))}")
    parameters = result.model.state_dict()
    for bits in BITS:
        content = {
            "coordinates": list(result.system.coordinates.names),
            "temperature": result.target.temperature,
            "model": {key: _packed(value, bits) for key, value in parameters.items()},
            "about": about | {"bits": bits},
        }
        with TemporaryDirectory() as folder:
            trial = Path(folder) / "trial.pt"
            save_checkpoint(trial, content)
            size = trial.stat().st_size
        if size <= LARGEST_FILE:
            save_checkpoint(path, content)
            return
    raise ValueError(
        f"`result` must fit into {LARGEST_FILE:,} bytes, got {size:,} at {BITS[-1]} bits an entry"
    )


def _read(name: str) -> dict[str, Any]:
    if name not in names():
        raise ValueError(
            f"`name` must be one of {', '.join(names())}, got {name!r}; train others with gencg.fit"
        )
    return load_checkpoint(FOLDER / f"{name}.pt")


def _packed(value: Tensor, bits: int) -> tuple[Any, ...]:
    """Matrices as fractions of so many bits and their largest entries; anything else, and zero."""
    value = value.detach().cpu()
    is_matrix = value.is_floating_point() and value.ndim >= 2 and min(value.shape[-2:]) > 1
    if not is_matrix or not value.any():
        return value, 0.0
    if bits < 16:
        return _in_bits(value, bits)
    largest = value.double().abs().amax((-2, -1), keepdim=True)
    fractions = torch.round(value.double() / largest.clamp_min(1e-300) * _STEPS)
    return fractions.to(torch.int16), largest if value.ndim > 2 else float(largest)


def _unpacked(value: Tensor, largest: Tensor | float, *bits_and_shape: int) -> Tensor:
    if bits_and_shape:
        assert isinstance(largest, Tensor)
        return _from_bits(value, largest, *bits_and_shape)
    if value.dtype != torch.int16:
        return value
    return (value.double() * (largest / _STEPS)).float()


def _in_bits(value: Tensor, bits: int) -> tuple[Any, ...]:
    """Bits of all entries one after the other, the largest of each row, `bits` and the shape."""
    steps = 2 ** (bits - 1) - 1
    largest = value.double().abs().amax(-1, keepdim=True).float()
    fractions = value.double() / largest.double().clamp_min(1e-300)
    codes = torch.round(fractions * steps).numpy().astype(np.int64) + steps
    each = (codes.reshape(-1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return torch.from_numpy(np.packbits(each.astype(np.uint8))), largest, bits, *value.shape


def _from_bits(packed: Tensor, largest: Tensor, bits: int, *shape: int) -> Tensor:
    n = int(np.prod(shape)) * bits
    each = np.unpackbits(packed.numpy(), count=n).reshape(-1, bits).astype(np.int64)
    codes = torch.from_numpy(each @ (1 << np.arange(bits - 1, -1, -1))).reshape(shape)
    steps = 2 ** (bits - 1) - 1
    value: Tensor = ((codes - steps).double() * (largest.double() / steps)).float()
    return value
