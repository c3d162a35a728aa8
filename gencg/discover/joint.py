"""The joint model of prior, decoder and encoder, around a generator and its slow CVs."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gencg import parallel
from gencg.deadline import TimeIsUp
from gencg.discover.slow_cvs import SlowCVs
from gencg.fit import FitResult, as_result, fit
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import CollectiveDecoder, collective_model
from gencg.models.decoders import TwoBlockDecoder
from gencg.tempering import NoTempering
from gencg.training import Optimisation, Reporter


def fit_joint(
    result: FitResult,
    slow: SlowCVs,
    *,
    resolution: float = 0.1,
    n_refit_steps: int | None = None,
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
        resolution: Width of the encoder, in rad for angles and in CV units on the line.
        n_refit_steps: Steps of the forward fit; by default 800 up to four soft coordinates, 200
            more for each further one, 500 for each of nine and more.
        energy_calls: Budget of the joint training; 0 leaves it out.
        batch_size: Configurations per step.
        optimisation: Learning rate and averaging of the joint training.
        seed: Decides everything random.
        checkpoint: As in `fit`.
        checkpoint_seconds: As in `fit`.
        reporters: As in `fit`.
        stop: As in `fit`.
        announce: Called with a line of text where a stage begins.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = collective_model(result.model, slow.map, resolution=resolution)
    device = result.model.rows(0).device
    model.to(device)
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(False)
    if checkpoint is None or not Path(checkpoint).exists():
        announce("fitting prior and decoder to the generator's soft coordinates")
        k = slow.map.n_soft
        n_steps = n_refit_steps or (200 * max(4, k) if k <= 8 else 500 * k)
        refit_soft(model, result.model, n_steps=n_steps, seed=seed, stop=stop)
    if energy_calls == 0:
        return as_result(
            result.system, model, target=result.target, seed=seed + 1, checkpoint=checkpoint
        )
    announce("training the joint model")
    return fit(
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


def refit_soft(
    model: CoarseGrainedModel,
    generator: CoarseGrainedModel,
    *,
    n_steps: int = 800,
    batch_size: int = 1024,
    learning_rate: float = 3e-3,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
) -> float:
    r"""Forward KL of prior and soft decoder to the generator's soft coordinates.

    .. math:: \min\; -E_{s \sim q_0(s)}\, E_{z \sim r(z|s)}\left[\log q(z) + \log q(s|z)\right]

    The samples are drawn afresh in every step and cost no energy call.

    Raises:
        TimeIsUp: If `stop`, asked before every step, said so; the fit then begins again.

    Returns:
        The last loss minus the generator's own entropy estimate: the divergence left, in kT.
    """
    decoder, source = model.decoder, generator.decoder
    assert isinstance(decoder, CollectiveDecoder)
    assert isinstance(source, TwoBlockDecoder)
    soft, space = source.flow.soft, source.flow.stiff.space
    trained = [
        *model.prior.parameters(),
        *decoder.flow.near.parameters(),
        *decoder.flow.rest.parameters(),
    ]
    optimiser = torch.optim.Adam(trained, lr=learning_rate)
    rows = generator.rows(batch_size)
    last = math.nan
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(n_steps):
            if stop is not None and parallel.agree(stop()):
                raise TimeIsUp("time is up in the fit of prior and decoder, which begins again")
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
            with torch.no_grad():
                eps = source(rows).base.rsample()[:, : space.n_soft]
                s, log_det = soft(eps, rows)
                log_q = soft.log_base(eps) - log_det
                y = s.new_zeros(batch_size, len(space.order))
                y[:, space.soft_index] = s
                encoder = model.encoder(y)
                z = encoder.rsample()
                log_r = encoder.log_prob(z)
            log_model = model.prior(rows).log_prob(z) + decoder.soft_log_prob(s, z)
            loss = (log_q + log_r - log_model).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 10.0)
            optimiser.step()
            last = float(loss.detach())
    return last
