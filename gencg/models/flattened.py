"""A covering generator flattened along collective variables, so that barriers are well sampled."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencg import parallel
from gencg.models.mixture import CoveringModel

HIGHEST = 15.0
"""Free energy in kT above the lowest cell up to which cells are filled."""
LEAST_ACCEPTANCE = 0.1
"""Share of the candidates that is kept at least; fuller cells are thinned no further."""


class Candidates:
    """Draws of a covering generator's soft blocks, by which cells are filled and thinned.

    Args:
        covering: The covering generator.
        n: Number of draws; no energy calls.
    """

    def __init__(self, covering: CoveringModel, n: int = 100_000) -> None:
        soft, share = [], []
        with torch.no_grad():
            for _ in range(math.ceil(n / 20_000)):
                s = covering.sample_soft(20_000)
                soft.append(s)
                share.append((covering.log_cold(s) - covering.log_soft(s)).exp().double().cpu())
        self.s, self.cold_share = soft, share


class FlattenedModel(nn.Module):
    r"""Covering samples thinned where they are many, as in umbrella sampling.

    .. math:: q(s) = q_c(s)\, \frac{a(\xi(s))}{A}, \qquad
              a = \min\big(1, \ell / h(\xi)\big) \;\text{where}\; F(\xi) < F_{\max}

    with h the mass of the cell of :math:`\xi(s)` under the covering density :math:`q_c` and F its
    free energy by the model's own (cold) soft block. Candidates cost a pass of the soft flows and
    no energy call; the level :math:`\ell` is as low as `LEAST_ACCEPTANCE` allows. Cells and their
    masses come from the candidates, which A is known as well as: one or two per cent.

    Args:
        covering: The covering generator.
        rows: Combine the soft coordinates into the :math:`\xi` to be flat in, ``(d, k)``.
        n_bins: Cells along each; on the line between the extremes of the candidates, the outermost
            cells reaching to infinity.
        n_candidates: Draws for h and F.
        candidates: Those draws, where several models share them.

    References:
        | Nonphysical sampling distributions in Monte Carlo free-energy estimation: umbrella
          sampling (Torrie, Valleau, 1977)
        | Optimally combining sampling techniques (Veach, Guibas, 1995): the balance heuristic
    """

    rows: Tensor
    low: Tensor
    width: Tensor
    keep: Tensor

    def __init__(
        self,
        covering: CoveringModel,
        rows: Tensor,
        *,
        n_bins: int = 24,
        n_candidates: int = 100_000,
        candidates: Candidates | None = None,
    ) -> None:
        super().__init__()
        self.covering, self.n_bins = covering, n_bins
        rows = rows.to(covering.rows(0))
        self.register_buffer("rows", rows)
        self.register_buffer("low", rows.new_zeros(len(rows)))
        self.register_buffer("width", rows.new_full((len(rows),), 2 * math.pi))
        drawn = candidates or Candidates(covering, n_candidates)
        if not covering.periodic:
            xi = torch.cat(drawn.s).to(rows) @ rows.T
            self.low.copy_(xi.amin(0))
            self.width.copy_(xi.amax(0) - xi.amin(0))
        mass, cold = torch.zeros(2, n_bins ** len(rows), dtype=torch.float64)
        for s, share in zip(drawn.s, drawn.cold_share, strict=True):
            cell = self._cells(s).cpu()
            mass.index_add_(0, cell, torch.ones(len(s), dtype=torch.float64))
            cold.index_add_(0, cell, share)
        mass = mass / mass.sum()
        free = -(cold / cold.sum()).log()
        filled = (mass > 0) & (free < free.min() + HIGHEST)
        keep = _thinned(mass, filled)
        self.register_buffer("keep", keep.to(rows))
        self.log_acceptance = math.log(float((mass * keep).sum()))

    def sample(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Draw z (empty), y ``(n, dim)`` and :math:`\log q(y)` ``(n,)``."""
        s = self._sample_soft(n)
        y, log_stiff = self.covering.complete(s)
        return self.covering.rows(n), y, self.covering.log_soft(s) + self.log_ratio(s) + log_stiff

    def _sample_soft(self, n: int) -> Tensor:
        """Soft coordinates ``(n, n_soft)``, other ones in every process."""
        seed = int(torch.randint(2**62, (1,)))
        parts: list[Tensor] = []
        with torch.random.fork_rng():
            torch.manual_seed(seed + parallel.rank())
            while sum(map(len, parts)) < n:
                s = self.covering.sample_soft(4 * n)
                keep = self.keep[self._cells(s)]
                kept = s[torch.rand_like(keep) < keep]
                # The mixture comes member by member: cut off at random, not at the last
                parts.append(kept[torch.randperm(len(kept), device=kept.device)])
        return torch.cat(parts)[:n]

    def log_ratio(self, s: Tensor) -> Tensor:
        r"""How much denser than the covering generator, :math:`\log a(\xi(s))/A`, ``(n,)``."""
        return self.keep[self._cells(s)].log() - self.log_acceptance

    def log_encoder(self, z: Tensor, y: Tensor) -> Tensor:
        """Zero: there are no CVs."""
        return y.new_zeros(len(y))

    def _cells(self, s: Tensor) -> Tensor:
        position = (s.to(self.rows) @ self.rows.T - self.low) / self.width
        if self.covering.periodic:
            position = torch.remainder(position, 1.0)
        bins = (position * self.n_bins).floor().long().clamp(0, self.n_bins - 1)
        cell = bins[:, 0]
        for j in range(1, bins.shape[1]):
            cell = cell * self.n_bins + bins[:, j]
        return cell


def balanced(log_weights: Tensor, log_ratios: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    r"""Log weights relative to the covering density, made relative to a mixture with flat ones.

    .. math:: \log w' = \log w - \log\Big[1 - \sum_j b_j + \sum_j b_j\, \frac{a_j(s)}{A_j}\Big]

    Args:
        log_weights: Log weights for the covering density :math:`q_c`, ``(n,)``.
        log_ratios: :math:`\log a_j/A_j` of the same samples for each flattened model, ``(n,)``
            each; see `FlattenedModel.log_ratio`.
        shares: Share :math:`b_j` of the samples that came from each.
    """
    terms = [torch.full_like(log_weights, math.log1p(-sum(shares)))]
    terms += [math.log(b) + r.to(log_weights) for b, r in zip(shares, log_ratios, strict=True)]
    return log_weights - torch.logsumexp(torch.stack(terms), 0)


def _thinned(mass: Tensor, filled: Tensor) -> Tensor:
    """Acceptance of each cell, as flat as `LEAST_ACCEPTANCE` allows."""
    low, high = 0.0, 1.0
    for _ in range(60):
        level = 0.5 * (low + high)
        keep = torch.where(filled, (level / mass.clamp_min(1e-300)).clamp(max=1.0), 0.0)
        if float((mass * keep).sum()) < LEAST_ACCEPTANCE:
            low = level
        else:
            high = level
    return torch.where(filled, (high / mass.clamp_min(1e-300)).clamp(max=1.0), 0.0)
