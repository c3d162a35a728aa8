"""Own samples kept for later steps: no energy call is asked for twice."""

from abc import abstractmethod

import torch
from torch import Tensor

from gencg.importance import truncated
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.objectives.base import Evaluation, Objective
from gencg.objectives.own_samples import OwnSamples, Path, ask_energy, draw_path, joined, tame
from gencg.target import BoltzmannTarget


class ReplayBuffer:
    r"""The last samples of training, drawn again by their weight at the present temperature.

    Sample i counts as drawn from :math:`m_i`, the generator at its time, and is drawn again with
    probability :math:`\pi_i \propto \min(w_i, \sqrt n\, \bar w)`,
    :math:`w_i = \tilde p_\beta(y_i) / m_i(y_i)`, from stored numbers alone.

    It is no part of a checkpoint: after a resume it is empty and fills again.

    Args:
        capacity: Samples kept; the oldest go first.

    Raises:
        ValueError: If `capacity` is below 1.

    References:
        | Truncated importance sampling (Ionides, 2008), https://doi.org/10.1198/106186008X320456
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"`capacity` must be at least 1, got {capacity}")
        self.capacity = capacity
        self._parts: list[OwnSamples] = []

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def samples(self) -> OwnSamples:
        """All that is kept, oldest first."""
        return joined(self._parts)

    def add(self, samples: OwnSamples) -> None:
        """Keep finite samples and let the oldest go."""
        self._parts.append(samples[samples.finite][-self.capacity :])
        excess = len(self) - self.capacity
        while excess > 0:
            oldest = self._parts.pop(0)
            if len(oldest) > excess:
                self._parts.insert(0, oldest[slice(excess, None)])
            excess -= len(oldest)

    def draw(self, n: int, beta: float) -> tuple[OwnSamples, Tensor]:
        r"""Samples by weight, with replacement, and :math:`\log \pi` of each, ``(n,)``.

        Args:
            n: How many.
            beta: Inverse temperature in mol/kJ.
        """
        everything = self.samples
        share = truncated(everything.log_weights(beta))
        index = torch.multinomial(share, n, replacement=True)
        return everything[index], share[index].log()


class Replaying(Objective):
    r"""Reverse KL on fresh samples, mixed with a loss on samples of which some are old.

    .. math:: L = (1 - a)\, \mathrm{KL}(q \| p) + a\, L_\mathrm{other}

    The first part is the path-gradient estimator of `ReverseKL`, with the same rules for clashes.
    The value of the loss is always the bound :math:`-E_q[\log w]`, so that objectives can be
    compared while they train; its gradient is that of L.

    Energies already asked for are asked for again by no step. The samples kept are no part of a
    checkpoint: after a resume the buffer is empty and fills again, so that a resumed run is as
    good as one without a stop, but not bit for bit the same.

    For generators without collective variables whose decoder is a flow that carries its score
    (`SplineDecoder`); in one process.

    Args:
        target: The Boltzmann density.
        n_samples: Fresh configurations per evaluation.
        mix: Share a of the other loss.
        n_replayed: Kept configurations per evaluation, no energy calls.
        capacity: Configurations kept; twenty batches by default.
        compress_above: Reduced energy above the lowest of a batch from which on its pull weakens.
        drop_worst: Share of each batch with the highest loss that the first part leaves out.

    Raises:
        ValueError: If `n_samples` is below 2, `mix` outside [0, 1], `n_replayed` negative,
            `capacity` below 1, `compress_above` not positive or `drop_worst` outside [0, 1).
    """

    def __init__(
        self,
        target: BoltzmannTarget,
        *,
        n_samples: int = 512,
        mix: float = 0.5,
        n_replayed: int = 512,
        capacity: int | None = None,
        compress_above: float = 1e3,
        drop_worst: float = 0.02,
    ) -> None:
        if n_samples < 2:
            raise ValueError(f"`n_samples` must be at least 2, got {n_samples}")
        if not 0 <= mix <= 1:
            raise ValueError(f"`mix` must lie in [0, 1], got {mix}")
        if n_replayed < 0:
            raise ValueError(f"`n_replayed` must not be negative, got {n_replayed}")
        if not compress_above > 0:
            raise ValueError(f"`compress_above` must be positive, got {compress_above}")
        if not 0 <= drop_worst < 1:
            raise ValueError(f"`drop_worst` must lie in [0, 1), got {drop_worst}")
        self.target, self.n_samples = target, n_samples
        self.mix, self.n_replayed = mix, n_replayed
        self.compress_above, self.drop_worst = compress_above, drop_worst
        self.buffer = ReplayBuffer(20 * n_samples if capacity is None else capacity)

    @abstractmethod
    def other(
        self, model: CoarseGrainedModel, path: Path, fresh: OwnSamples, beta: float
    ) -> Tensor:
        """The loss mixed in, shape ``()``; only its gradient counts.

        Args:
            model: The generator.
            path: The fresh samples as they were drawn.
            fresh: The same with their energies, already in the buffer.
            beta: Inverse temperature in mol/kJ.
        """

    def evaluate(self, model: CoarseGrainedModel, beta: float) -> Evaluation:
        path = draw_path(model, self.n_samples)
        asked = ask_energy(self.target, path.y, path.log_q)
        fresh, touched = tame(asked, beta, above=self.compress_above)
        self.keep(model, fresh, beta)
        kept, n_dropped = _without_worst(fresh, beta, self.drop_worst)
        share = kept.to(fresh.energy) / kept.sum()
        bound = -fresh.log_weights(beta)[kept].mean()
        gradient = (1 - self.mix) * path.pull(fresh.log_target_slope(beta), share)
        if self.mix > 0:
            other = self.other(model, path, fresh, beta)
            gradient = gradient + self.mix * (other - other.detach())
        return Evaluation(
            loss=bound + gradient,
            y=fresh.y,
            energy=fresh.energy,
            log_det=fresh.log_det,
            log_weights=fresh.log_weights(beta),
            n_compressed=int(touched.sum()),
            n_dropped=n_dropped,
            n_invalid=int((~fresh.finite).sum()),
        )

    def keep(self, model: CoarseGrainedModel, fresh: OwnSamples, beta: float) -> None:
        """Put samples into the buffer: here the fresh ones."""
        self.buffer.add(fresh)


def _without_worst(samples: OwnSamples, beta: float, share: float) -> tuple[Tensor, int]:
    """Finite samples but for the given share of lowest weight, and how many those are."""
    kept = samples.finite
    n_dropped = max(int(share * len(samples)) - int((~kept).sum()), 0)
    if n_dropped:
        losses = torch.where(kept, -samples.log_weights(beta), -torch.inf)
        kept[losses.topk(n_dropped).indices] = False
    return kept, n_dropped
