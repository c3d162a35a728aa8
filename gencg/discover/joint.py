"""The joint model of prior, decoder and encoder, around a generator and its slow CVs."""

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gencg import parallel
from gencg.checkpoint import load_checkpoint
from gencg.discover.refit import refit_soft
from gencg.discover.slow_cvs import SlowCVs
from gencg.fit import FitResult, as_result, fit
from gencg.models.collective import collective_model
from gencg.tempering import NoTempering
from gencg.training import Optimisation, Reporter

REFIT = "refit.pt"
"""Name of the checkpoint of the forward fit, beside that of the joint training."""


def fit_joint(
    result: FitResult,
    slow: SlowCVs,
    *,
    resolution: float = 0.1,
    width: int | None = None,
    n_refit_steps: int | None = None,
    refit: Callable[..., Any] = refit_soft,
    energy_calls: float = 3e5,
    batch_size: int = 512,
    optimisation: Optimisation | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    reporters: Sequence[Reporter] = (),
    stop: Callable[[], bool] | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> FitResult:
    r"""Train prior, decoder and encoder together, around a generator and its slow CVs.

    Prior and soft decoder are first fitted to fresh samples of the generator's soft block
    (forward KL, no energy calls); then the joint reverse KL bound moves everything but the
    encoder, with path gradients at a low rate. It runs on the device of the generator.

    Args:
        result: The trained generator.
        slow: Its slow CVs.
        resolution: Width of the encoder, in rad for angles and in CV units on the line; of a
            model that is in `checkpoint`, its own counts.
        width: Of the hidden layers of prior and soft decoder; see `collective_model`.
        n_refit_steps: Steps of the forward fit; by default 800 up to four soft coordinates, 200
            more for each further one, 500 for each of nine and more.
        refit: The forward fit, `refit_soft` with other options for instance.
        energy_calls: Budget of the joint training; 0 leaves it out.
        batch_size: Configurations per step.
        optimisation: Learning rate and averaging of the joint training.
        seed: Decides everything random.
        checkpoint: As in `fit`; beside it the forward fit keeps itself as `REFIT`, which goes
            when the joint training is done.
        checkpoint_seconds: As in `fit`, and of the forward fit.
        reporters: As in `fit`.
        stop: As in `fit`.
        announce: Called with a line of text where a stage begins.
    """
    result = result.leading
    fitted = None if checkpoint is None else Path(checkpoint).with_name(REFIT)
    there = checkpoint is not None and Path(checkpoint).exists()
    if checkpoint is not None and there:
        # Of a model that is there it is not to be chosen; its decoder is of that width
        kept = float(load_checkpoint(checkpoint)["average"]["encoder.resolution"])
        if not math.isclose(kept, resolution, rel_tol=1e-6):  # it is kept in single precision
            resolution = kept
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = collective_model(result.model, slow.map, resolution=resolution, width=width)
    device = result.model.rows(0).device
    model.to(device)
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    if not there:
        announce("fitting prior and decoder to the generator's soft coordinates")
        k = slow.map.n_soft
        n_steps = n_refit_steps or refit_steps(k)
        refit(
            model,
            result.model,
            n_steps=n_steps,
            seed=seed + 2,
            checkpoint=fitted,
            checkpoint_seconds=checkpoint_seconds,
            stop=stop,
        )
    if energy_calls == 0:
        joint = as_result(
            result.system, model, target=result.target, seed=seed + 1, checkpoint=checkpoint
        )
        _forget(fitted)
        return joint
    announce("training the joint model")
    joint = fit(
        result.system,
        temperature=result.target.temperature,
        energy_calls=energy_calls,
        batch_size=batch_size,
        tempering=NoTempering(),
        optimisation=optimisation
        or Optimisation(learning_rate=2e-4, warm_up=50, averaging=0.2, optimiser="adam"),
        model=model,
        seed=seed + 1,
        device=str(device),
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        reporters=reporters,
        stop=stop,
    )
    _forget(fitted)
    return joint


def refit_steps(n_soft: int) -> int:
    """Steps of the forward fit for so many soft coordinates; see `fit_joint`."""
    return 200 * max(4, n_soft) if n_soft <= 8 else 500 * n_soft


def _forget(fitted: Path | None) -> None:
    """Remove the forward fit, which the checkpoint of the joint model has taken up."""
    if fitted is not None and parallel.rank() == 0 and fitted.exists():
        # A finished run may be one to read only
        with contextlib.suppress(OSError):
            fitted.unlink()
