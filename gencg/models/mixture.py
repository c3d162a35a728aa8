"""Mixtures of generators: of several that were trained, and of one with its hotter soft blocks."""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from gencg.distributions.mixture import FlowMixture
from gencg.distributions.torus import TorusNormal
from gencg.models.base import ConditionalDistribution
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.two_block import SoftBlock, log_normal


class MixtureDecoder(ConditionalDistribution):
    r"""Several decoders, each with its share of the samples.

    .. math:: q(y|z) = \sum_k a_k\, q_k(y|z), \qquad \sum_k a_k = 1

    Where one of them has too little density, another may have more, and errors of any kind that
    they do not share are averaged: the forward effective sample size
    :math:`1 / E_p[p/q]` is, since 1/q is convex, no less than the harmonic mean of theirs by these
    shares. Each sample costs one energy call as before, and its density the inverses of all others.

    Args:
        members: Decoders in two blocks of the same coordinates.
        shares: Share of each, in any unit; equal by default.

    Raises:
        ValueError: If there are less than two members, they have other numbers of coordinates, or
            shares are not positive and finite or of another number.

    References:
        | Optimally combining sampling techniques for Monte Carlo rendering (Veach, Guibas, 1995):
          the balance heuristic, https://doi.org/10.1145/218380.218498
    """

    log_shares: Tensor

    def __init__(
        self, members: Sequence[TwoBlockDecoder], *, shares: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if len(members) < 2:
            raise ValueError(f"`members` must be two or more, got {len(members)}")
        sizes = {(m.flow.n_angles, m.flow.n_normal) for m in members}
        if len(sizes) > 1:
            raise ValueError(
                "`members` must have the same numbers of angles and other coordinates, got "
                f"{', '.join(map(str, sorted(sizes)))}"
            )
        shares = [1.0] * len(members) if shares is None else list(shares)
        if len(shares) != len(members) or not all(0 < a < math.inf for a in shares):
            raise ValueError(
                f"`shares` must be {len(members)} positive finite numbers, one for each member, "
                f"got {shares}"
            )
        self.members = nn.ModuleList(members)
        total = sum(shares)
        self.register_buffer("log_shares", torch.tensor([math.log(a / total) for a in shares]))

    def forward(self, context: Tensor) -> TorchDistribution:
        flows = [m.flow for m in self.members if isinstance(m, TwoBlockDecoder)]
        base = TorusNormal(flows[0].n_angles, flows[0].n_normal, like=context)
        return FlowMixture(base, flows, self.log_shares, context)


def members_of(model: CoarseGrainedModel) -> list[TwoBlockDecoder]:
    """The decoders that a model draws from: those of a mixture, or its own if it has two blocks."""
    decoder = model.decoder
    if isinstance(decoder, MixtureDecoder):
        return [member for member in decoder.members if isinstance(member, TwoBlockDecoder)]
    return [decoder] if isinstance(decoder, TwoBlockDecoder) else []


def leading(model: CoarseGrainedModel) -> CoarseGrainedModel:
    """The first member of a mixture as a model of its own; any other model is given back itself.

    For what needs one soft and one stiff block. The parameters are shared.
    """
    if not isinstance(model.decoder, MixtureDecoder):
        return model
    first = CoarseGrainedModel(members_of(model)[0])
    first.to(model.rows(0))
    first.train(model.training)
    return first


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
