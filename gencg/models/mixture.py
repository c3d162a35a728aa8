"""A covering generator: cold stiff coordinates around soft coordinates from several flows."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.two_block import SoftBlock, log_normal


class CoveringModel(nn.Module):
    r"""Mixture over soft blocks, one stiff block.

    .. math:: q(y) = \Big[\sum_k a_k\, q_k(s)\Big]\, q(v|s)

    The soft flows :math:`q_k` are the model's own and those it had at hotter stages of the
    ladder, which cross barriers; the stiff block is the cold one. Samples of the hotter stages
    themselves are useless at the target temperature, because every stiff coordinate is too wide
    and the weights of 50 of them multiply; here only the soft coordinates are hot. The mixture
    density is exact, so that the samples carry ordinary importance weights.

    Args:
        model: A trained model with `TwoBlockDecoder` and without CVs.
        snapshots: Parameters of the soft block at earlier stages.
        share: Share of the samples from the model's own soft block.

    Raises:
        ValueError: If `share` is outside (0, 1] or the decoder has no soft block.

    References:
        | Optimally combining sampling techniques (Veach, Guibas, 1995): the balance heuristic
    """

    log_shares: Tensor

    def __init__(
        self,
        model: CoarseGrainedModel,
        snapshots: Sequence[Mapping[str, Tensor]],
        *,
        share: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"`share` must lie in (0, 1], got {share}")
        if not isinstance(model.decoder, TwoBlockDecoder) or model.n_cvs:
            raise ValueError("`model` must have a TwoBlockDecoder without CVs to be mixed with")
        self.model = model
        self.flow = model.decoder.flow
        self.soft = nn.ModuleList([self.flow.soft])
        for snapshot in snapshots:
            soft = copy.deepcopy(self.flow.soft)
            soft.load_state_dict(dict(snapshot))
            self.soft.append(soft)
        n = len(snapshots)
        shares = [share] + [(1 - share) / n] * n if n else [1.0]
        self.register_buffer("log_shares", torch.tensor(shares).log())

    @property
    def periodic(self) -> bool:
        """Whether the soft coordinates are angles."""
        return self.flow.stiff.space.periodic

    def sample(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Draw z (empty), y ``(n, dim)`` and :math:`\log q(y)` ``(n,)``."""
        s = self.sample_soft(n)
        y, log_v = self.complete(s)
        return self.rows(n), y, self.log_soft(s) + log_v

    def sample_soft(self, n: int) -> Tensor:
        """Soft coordinates ``(n, n_soft)`` of the mixture, stratified over its members."""
        rows, counts = self.rows(n), self._counts(n)
        starts = torch.split(self.model.decoder(rows).base.sample()[:, : self._n_soft], counts)
        parts = [f(e, rows[: len(e)])[0] for f, e in zip(self._blocks, starts, strict=True)]
        return torch.cat(parts)

    def complete(self, s: Tensor) -> tuple[Tensor, Tensor]:
        r"""Draw y ``(n, dim)`` around soft coordinates; :math:`\log q(v|s)` ``(n,)`` beside it."""
        rows = self.rows(len(s))
        eps = self.model.decoder(rows).base.sample()[:, self._n_soft :]
        y, log_det = self.flow.stiff(eps, s, rows)
        return y, log_normal(eps) - log_det

    def log_soft(self, s: Tensor) -> Tensor:
        """Log-density of the mixture of soft blocks, ``(n,)``."""
        rows = self.rows(len(s))
        terms = [
            share + soft.log_prob(s, rows)
            for share, soft in zip(self.log_shares, self._blocks, strict=True)
        ]
        return torch.logsumexp(torch.stack(terms), 0)

    def log_cold(self, s: Tensor) -> Tensor:
        """Log-density of the model's own soft block, ``(n,)``."""
        return self._blocks[0].log_prob(s, self.rows(len(s)))

    def rows(self, n: int) -> Tensor:
        """Empty context of `n` rows."""
        return self.model.rows(n)

    def log_encoder(self, z: Tensor, y: Tensor) -> Tensor:
        """Zero: there are no CVs."""
        return y.new_zeros(len(y))

    @property
    def _n_soft(self) -> int:
        return self.flow.stiff.space.n_soft

    @property
    def _blocks(self) -> list[SoftBlock]:
        return [block for block in self.soft if isinstance(block, SoftBlock)]

    def _counts(self, n: int) -> list[int]:
        """Stratified: how many samples each soft block draws."""
        edges = torch.cumsum(self.log_shares.exp(), 0).mul(n).round().long().tolist()
        edges[-1] = n
        return [b - a for a, b in zip([0, *edges[:-1]], edges, strict=True)]
