"""What flow matching matches to: the generator's last samples, drawn again by their weights."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gencg import parallel
from gencg.importance import truncated
from gencg.objectives.own_samples import OwnSamples, joined
from gencg.objectives.reverse_kl import order_that_is_borne


@dataclass(frozen=True)
class Drawn:
    r"""Samples of a generator with a soft and a stiff block, as they were drawn.

    Args:
        samples: Coordinates, energies, and their slopes by the stiff coordinates alone,
            ``(n, n_stiff)``.
        score: :math:`\nabla_v \log q(v|s)` of the stiff coordinates, ``(n, n_stiff)``.
        log_soft: :math:`\log q(s)`, ``(n,)``.
    """

    samples: OwnSamples
    score: Tensor
    log_soft: Tensor

    def __getitem__(self, index: Tensor | slice) -> "Drawn":
        return Drawn(self.samples[index], self.score[index], self.log_soft[index])

    def gathered(self, n: int) -> "Drawn":
        """The `n` rows of all processes, of which each has its own."""
        samples = OwnSamples(*(parallel.gather(t, n) for t in self.samples.tensors()))
        return Drawn(samples, parallel.gather(self.score, n), parallel.gather(self.log_soft, n))


@dataclass(frozen=True)
class Aim:
    r"""What matching aims at: :math:`p_\beta^\alpha\, m^{1-\alpha}`, a share of it flattened.

    Args:
        y: Samples, drawn by the generator m, ``(n, dim)``.
        slopes: :math:`\nabla_v` of its log-density at stiff coordinates v, ``(n, n_stiff)``.
        share: Weights of the samples, ``(n,)``, with sum one.
    """

    y: Tensor
    slopes: Tensor
    share: Tensor


class MatchingMemory:
    r"""The last samples, and what they stand for at any temperature, at no energy call.

    By weights :math:`\pi_i \propto \min(w_i^\alpha, \sqrt n\, \overline{w^\alpha})` they are
    samples of :math:`p^\alpha m^{1-\alpha}`, where m drew them: of p itself with
    :math:`\alpha = 1`, or, where the weights are uneven, with the highest power that leaves an
    effective sample size of `LEAST_ESS`: a step from the generator towards the target, no longer
    than its samples know.

    A share of `flattened` is of its square root in the soft coordinates, with weights
    :math:`\propto \pi_i\, q(s_i)^{-1/2}`: the free energy of s at twice the temperature, and
    p(v|s) as it is. A generator that has learned the mixture has density at the rims of states, so
    that no sample there holds much weight (defensive importance sampling); it costs an effective
    sample size of `flattened` at most. What is cut off of the largest weights is missing in the
    aim, and the slopes do not know of it.

    Args:
        capacity: Samples kept; the oldest go first.
        flattened: Share in [0, 1) of the flattened density.

    References:
        | Weighted average importance sampling and defensive mixture distributions (Hesterberg,
          1995), https://doi.org/10.1080/00401706.1995.10484303
    """

    def __init__(self, capacity: int, *, flattened: float = 0.0) -> None:
        self.capacity, self.flattened = capacity, flattened
        self._kept: Drawn | None = None

    def __len__(self) -> int:
        return 0 if self._kept is None else len(self._kept.samples)

    def add(self, drawn: Drawn) -> None:
        """Keep finite samples and let the oldest go."""
        known = torch.isfinite(drawn.score).all(1) & torch.isfinite(drawn.log_soft)
        drawn = drawn[drawn.samples.finite & known]
        if self._kept is not None:
            old = self._kept
            drawn = Drawn(
                joined([old.samples, drawn.samples]),
                torch.cat([old.score, drawn.score]),
                torch.cat([old.log_soft, drawn.log_soft]),
            )
        # Copies: a view would be saved with all that it is a view of
        last = torch.arange(max(len(drawn.samples) - self.capacity, 0), len(drawn.samples))
        self._kept = drawn[last.to(drawn.log_soft.device)]

    def aim(self, beta: float) -> Aim:
        """What the last samples stand for at inverse temperature `beta` in mol/kJ."""
        assert self._kept is not None
        samples, score = self._kept.samples, self._kept.score
        log_weights = samples.log_weights(beta)
        power = order_that_is_borne(1.0, log_weights)
        share = truncated(power * log_weights)
        if self.flattened > 0:
            flat = truncated(share.log() - 0.5 * self._kept.log_soft)
            share = (1 - self.flattened) * share + self.flattened * flat
        slopes = power * samples.log_target_slope(beta) + (1 - power) * score
        return Aim(samples.y, slopes, share)

    def clear(self) -> None:
        """Forget all samples."""
        self._kept = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors; empty while nothing is kept."""
        if self._kept is None:
            return {}
        samples = {name: getattr(self._kept.samples, name) for name in _NAMES}
        return samples | {"score": self._kept.score, "log_soft": self._kept.log_soft}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        self._kept = None
        if content:
            samples = OwnSamples(*(content[name] for name in _NAMES))
            self._kept = Drawn(samples, content["score"], content["log_soft"])


_NAMES = tuple(field.name for field in fields(OwnSamples))
