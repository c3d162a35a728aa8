"""Prior and soft decoder of a joint model, fitted to the soft block of the generator."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gencg import parallel
from gencg.deadline import TimeIsUp
from gencg.importance import effective_sample_size
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import CollectiveDecoder
from gencg.models.decoders import TwoBlockDecoder
from gencg.optimisers import MuonAdam

LARGEST = 3.0
"""Deviation of a log ratio in kT that is the largest to pull in the fit of the variance."""


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
        seed: Decides everything random.
        stop: Asked before every step whether to stop.

    Raises:
        ValueError: If `finish` is outside [0, 1] or there is no such optimiser.
        TimeIsUp: If `stop` said so; the fit then begins again.

    Returns:
        The mean log ratio of the last batch: the divergence left, in kT.

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
    parameters = list(trained.parameters())
    moving: torch.optim.Optimizer = (
        torch.optim.Adam(parameters, lr=learning_rate)
        if optimiser == "adam"
        else MuonAdam(trained, lr=learning_rate)
    )
    last = math.nan
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(n_steps):
            if stop is not None and parallel.agree(stop()):
                raise TimeIsUp("time is up in the fit of prior and decoder, which begins again")
            for group in moving.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
            ratio = log_ratio(model, generator, batch_size)
            loss = ratio.mean()
            last = float(loss.detach())
            if step >= (1 - finish) * n_steps:
                deviation = (ratio - ratio.mean()).detach().clamp(-LARGEST, LARGEST)
                loss = (deviation * ratio).mean()
            moving.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 10.0)
            moving.step()
    return last


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
