"""Prior and soft decoder of a joint model, fitted to the soft block of the generator."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gencg import parallel
from gencg.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gencg.deadline import TimeIsUp
from gencg.importance import effective_sample_size
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import CollectiveDecoder
from gencg.models.decoders import TwoBlockDecoder
from gencg.optimisers import MuonAdam
from gencg.training import MAX_BROKEN, MAX_SKIPPED, TrainingError, step_seed

LARGEST = 3.0
"""Deviation of a log ratio in kT that is the largest to pull in the fit of the variance."""
MAX_GRADIENT_NORM = 10.0
"""Gradients are clipped to this norm."""


def refit_soft(
    model: CoarseGrainedModel,
    generator: CoarseGrainedModel,
    *,
    n_steps: int = 800,
    batch_size: int = 1024,
    learning_rate: float = 3e-3,
    optimiser: str = "muon",
    finish: float = 0.5,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    stop: Callable[[], bool] | None = None,
) -> float:
    r"""Forward KL of prior and soft decoder to the generator's soft coordinates.

    .. math:: \min\; -E_{s \sim q_0(s)}\, E_{z \sim r(z|s)}\left[\log q(z) + \log q(s|z)\right]

    The samples are drawn afresh in every step and cost no energy call. The gradient of a sample
    does not vanish where the fit is perfect, so that noise remains. In the last steps, a share
    `finish` of them, the loss is half the variance of the log ratio in its place,

    .. math:: \tfrac12 \mathrm{Var}\left[\log q_0(s) + \log r(z|s) - \log q(z) - \log q(s|z)\right],

    which equals the divergence near the optimum, and whose gradient vanishes there sample by
    sample. Deviations beyond `LARGEST` pull no stronger than that.

    Args:
        model: The joint model.
        generator: The generator it was made around.
        n_steps: Steps.
        batch_size: Samples in a step.
        learning_rate: Rate at the beginning; it falls to zero along a cosine.
        optimiser: "adam", or "muon" (`MuonAdam`).
        finish: Share of the steps, at the end, that fit the variance.
        seed: Decides everything random; step k draws from a stream of its own.
        checkpoint: File to write the fit to; if it exists, the fit goes on from it and ends with
            the same parameters as one that was not interrupted.
        checkpoint_seconds: Wall time between two checkpoints.
        stop: Asked before every step whether to stop.

    Raises:
        ValueError: If `finish` is outside [0, 1] or there is no such optimiser.
        TrainingError: If the loss or its gradient is not finite in `MAX_SKIPPED` steps in a row;
            fewer are skipped. Rows that are not finite are left out up to a share `MAX_BROKEN`.
        CheckpointError: If `checkpoint` is damaged or of a fit with other settings.
        TimeIsUp: If `stop` said so; the fit goes on from `checkpoint`, and begins again without.

    Returns:
        The mean log ratio of the last batch that was finite: the divergence left, in kT.

    References:
        | VarGrad: a low-variance gradient estimator for variational inference (Richter et al.,
          2020), https://arxiv.org/abs/2010.10436
    """
    if not 0 <= finish <= 1:
        raise ValueError(f"`finish` must lie in [0, 1], got {finish}")
    if optimiser not in ("adam", "muon"):
        raise ValueError(f"`optimiser` must be adam or muon, got {optimiser!r}")
    decoder = model.decoder
    assert isinstance(decoder, CollectiveDecoder)
    trained = nn.ModuleList([model.prior, decoder.flow.near, decoder.flow.rest])
    moving: torch.optim.Optimizer = (
        torch.optim.Adam(trained.parameters(), lr=learning_rate)
        if optimiser == "adam"
        else MuonAdam(trained, lr=learning_rate)
    )
    settings = {
        "n_steps": n_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "optimiser": optimiser,
        "finish": finish,
        "seed": seed,
        "resolution": float(decoder.flow.resolution),
        "around": _digest(decoder.flow.map, generator.decoder),
    }
    state = _State(trained, moving, settings)
    path = None if checkpoint is None else Path(checkpoint)
    # Process 0 alone writes the file, not before the others have read it
    if path is not None and parallel.agree(path.exists()):
        state.read(path)
        parallel.wait()
    saved, begun = time.monotonic(), state.step
    with torch.random.fork_rng():
        while state.step < n_steps:
            late = stop is not None and parallel.agree(stop())
            if late or time.monotonic() - saved > checkpoint_seconds:
                state.write(path)
                saved = time.monotonic()
            if late:
                goes_on = "begins again" if path is None else f"goes on from {path}"
                raise TimeIsUp(
                    f"time is up at step {state.step} of {n_steps} in the fit of prior and "
                    f"decoder, which {goes_on}"
                )
            for group in moving.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * state.step / n_steps))
            torch.manual_seed(step_seed(seed, state.step))
            ratio = log_ratio(model, generator, batch_size)
            finite = torch.isfinite(ratio.detach())
            if finite.double().mean() > 1 - MAX_BROKEN:
                ratio = ratio[finite]
            if state.step < (1 - finish) * n_steps:
                loss = ratio.mean()
            else:
                deviation = (ratio - ratio.mean()).detach().clamp(-LARGEST, LARGEST)
                loss = (deviation * ratio).mean()
            state.advance(loss, float(ratio.detach().mean()))
    if state.step > begun:
        state.write(path)
    return state.divergence


@dataclass
class _State:
    """What the next step of the fit needs; saved whole, it is the checkpoint.

    Args:
        trained: The modules that move.
        optimiser: Moves them.
        settings: Plain values that decide the course of the fit.
        step: Steps done, skipped ones too.
        n_skipped: Steps in a row that were skipped.
        divergence: Mean log ratio of the last batch that was finite.
    """

    trained: nn.Module
    optimiser: torch.optim.Optimizer
    settings: dict[str, Any]
    step: int = 0
    n_skipped: int = 0
    divergence: float = math.nan

    def advance(self, loss: Tensor, divergence: float) -> None:
        """One step down a loss; none where it or its gradient is not finite."""
        self.optimiser.zero_grad(set_to_none=True)
        norm = math.nan
        if torch.isfinite(loss):
            loss.backward()  # type: ignore[no-untyped-call]
            parameters = self.trained.parameters()
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM))
        self.step += 1
        if math.isfinite(norm):
            self.optimiser.step()
            self.n_skipped, self.divergence = 0, divergence
            return
        self.n_skipped += 1
        if self.n_skipped >= MAX_SKIPPED:
            raise TrainingError(
                "the fit of prior and decoder cannot go on: its loss or gradient was not finite "
                f"in {MAX_SKIPPED} steps in a row, up to step {self.step} of "
                f"{self.settings['n_steps']}; lower `learning_rate`, choose another `seed` or "
                "fewer CVs, or leave them out with --cvs 0"
            )

    def write(self, path: Path | None) -> None:
        """Save it; process 0 does."""
        if path is not None and parallel.rank() == 0:
            save_checkpoint(
                path,
                {
                    "settings": self.settings,
                    "step": self.step,
                    "n_skipped": self.n_skipped,
                    "divergence": self.divergence,
                    "model": self.trained.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                },
            )

    def read(self, path: Path) -> None:
        """Continue exactly where a file was written."""
        content = load_checkpoint(path)
        cure = "remove that file alone, and the fit of prior and decoder begins again"
        theirs = content.get("settings", {})
        if "around" in theirs and theirs["around"] != self.settings["around"]:
            raise CheckpointError(
                f"checkpoint {path} is of a fit around another CV map or generator; {cure}"
            )
        for name, value in self.settings.items():
            if theirs.get(name) != value:
                raise CheckpointError(
                    f"checkpoint {path} is of a fit with {name}={theirs.get(name)}, asked is "
                    f"{value}; {cure}"
                )
        try:
            self.trained.load_state_dict(content["model"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.step, self.n_skipped = content["step"], content["n_skipped"]
            self.divergence = content["divergence"]
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"checkpoint {path} does not fit this model ({reason}); {cure}"
            ) from None


def _digest(*around: nn.Module) -> str:
    """What the fit is around: another map or generator of the same shapes is another fit."""
    digest = hashlib.sha256()
    for module in around:
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def log_ratio(model: CoarseGrainedModel, generator: CoarseGrainedModel, n: int) -> Tensor:
    r""":math:`\log q_0(s) + \log r(z|s) - \log q(z) - \log q(s|z)` of samples of the generator.

    Args:
        model: The joint model; gradients go through its prior and decoder.
        generator: The generator :math:`q_0`, which stays as it is.
        n: Number of samples.
    """
    decoder, source = model.decoder, generator.decoder
    assert isinstance(decoder, CollectiveDecoder)
    assert isinstance(source, TwoBlockDecoder)
    soft, rows = source.flow.soft, generator.rows(n)
    with torch.no_grad():
        eps = source(rows).base.rsample()[:, : source.flow.stiff.space.n_soft]
        s, log_det = soft(eps, rows)
        log_q = soft.log_base(eps) - log_det
        encoder = model.encoder(_spread(s, source))
        z = encoder.rsample()
        log_r = encoder.log_prob(z)
    log_model = model.prior(rows).log_prob(z) + decoder.soft_log_prob(s, z)
    out: Tensor = log_q + log_r - log_model
    return out


def soft_ess(
    model: CoarseGrainedModel, generator: CoarseGrainedModel, n: int = 20_000, *, seed: int = 0
) -> float:
    r"""ESS of the joint model's own (z, s) with the generator as the target, a share of n.

    Of weights :math:`q_0(s)\, r(z|s) / q(z)\, q(s|z)`: about what the joint ESS is of the all-atom
    ESS while the stiff blocks are the same. It costs no energy call.
    """
    decoder, source = model.decoder, generator.decoder
    assert isinstance(decoder, CollectiveDecoder)
    assert isinstance(source, TwoBlockDecoder)
    weights = []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for part in torch.split(torch.arange(n), 2000):
            rows = generator.rows(len(part))
            prior = model.prior(rows)
            z = prior.rsample()
            eps = decoder(z).base.rsample()
            s, _ = decoder.flow.soft(eps[:, : source.flow.stiff.space.n_soft], z)
            log_joint = prior.log_prob(z) + decoder.soft_log_prob(s, z)
            log_r = model.encoder(_spread(s, source)).log_prob(z)
            weights.append(source.flow.soft.log_prob(s, rows) + log_r - log_joint)
    return float(effective_sample_size(torch.cat(weights).double()))


def _spread(s: Tensor, source: TwoBlockDecoder) -> Tensor:
    """Coordinates y with these soft ones; the stiff ones are zero."""
    space = source.flow.stiff.space
    y = s.new_zeros(len(s), len(space.order))
    y[:, space.soft_index] = s
    return y
