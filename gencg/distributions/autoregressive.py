"""A layer in which one entry moves after the other, each by those before it."""

from collections.abc import Iterator, Sequence

import torch
from normflows.flows import Flow
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from gencg.distributions.couplings import Move, Transform
from gencg.distributions.networks import rounds, with_pullback
from gencg.distributions.windows import WindowMLP, rounded_windows

ROWS = 512
"""Rows whose densities are computed at once without a gradient, so that they stay in a cache."""


class Autoregressive(Flow):  # type: ignore[misc]
    r"""One entry after the other along a chain, each by those before it.

    .. math:: y_k = T(x_k;\, h_k(\phi(y_1), \dots, \phi(y_{k-1}), c)), \qquad
              \log|\det J| = \sum_k \log T'(x_k;\, h_k)

    counted along the chain, with the features :math:`\phi` of the transform. To draw takes one
    network after the other; the density of given y takes all at once, a batched product for each
    of their layers, because every network's input is known. For that all have the same number of
    inputs; weights of what a network does not see are there, zero, and do nothing.

    Args:
        transform: The monotone map T.
        position: Place of each entry along the chain, ``(dim,)``; equal ones keep their order.
        n_context: Number of context features c that all networks see.
        hidden: Hidden widths of each network, at least one.

    Raises:
        ValueError: If there are less than two entries, or `hidden` is empty; on loading, if the
            parameters are those of other entries, or of another order.

    References:
        | Masked autoregressive flow for density estimation (Papamakarios et al., 2017),
          https://arxiv.org/abs/1705.07057
        | Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
          https://arxiv.org/abs/1606.04934
    """

    order: Tensor
    place: Tensor
    sees: Tensor

    def __init__(
        self,
        transform: Transform,
        position: Tensor,
        *,
        n_context: int,
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        dim, n_each = len(position), transform.n_features(1)
        if dim < 2:
            raise ValueError(f"`position` must be of two entries or more, got {dim}")
        self.transform, self.n_context = transform, n_context
        order = torch.argsort(position, stable=True)
        self.register_buffer("order", order)
        self.register_buffer("place", torch.argsort(order), persistent=False)
        # The context first, then what is seen of each entry but the last
        self.n_seen = [n_context + n_each * k for k in range(dim)]
        n_in = self.n_seen[-1]
        self.net = WindowMLP(dim, n_in, transform.n_parameters, hidden=hidden)
        n_seen = torch.tensor(self.n_seen)[:, None, None]
        sees = (torch.arange(n_in) < n_seen).float()
        self.register_buffer("sees", sees, persistent=False)
        with torch.no_grad():
            # As if each network had the inputs it sees alone
            wider = (max(n_in, 1) / n_seen.clamp_min(1)).sqrt()
            self.net.weights[0] *= sees * wider
            self.net.biases[0] *= wider
        self._activations = [nn.SiLU()] * len(hidden)
        self.one = Move(transform, torch.zeros(1, dtype=torch.int64), dim=1)
        self.every = Move(transform, torch.arange(dim), dim=dim)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        """Refuse the parameters of a layer that goes another way along the chain, in words."""
        given = state_dict.get(f"{prefix}order")
        if given is not None and not torch.equal(given.to(self.order), self.order):
            raise ValueError(
                f"the parameters are those of entries in the order {given.tolist()}, this layer "
                f"has {self.order.tolist()}"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        seen, moved, log_det = [context], [], x.new_zeros(len(x))
        for x_k, (weights, biases) in zip(self._entries(x), self._networks(), strict=True):
            h = torch.cat(seen, dim=-1)
            if rounds():
                h, _ = with_pullback(h, self._activations, weights, biases)
            else:
                for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                    h = linear(silu(h) if k else h, weight, bias)
            y_k, log_slope = self.one(x_k, h, inverse=False)
            moved.append(y_k)
            seen.append(self.transform.features(y_k))
            log_det = log_det + log_slope
        return torch.cat(moved, dim=-1).index_select(1, self.place), log_det

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        seen, moved, pushed, log_det = [context], [], [], x.new_zeros(len(x))
        added = x.new_zeros(len(x), self.n_seen[-1])
        for x_k, score_k, (weights, biases) in zip(
            self._entries(x), self._entries(score), self._networks(), strict=True
        ):
            columns = torch.cat(seen, dim=-1)
            h, pull = with_pullback(columns, self._activations, weights, biases)
            y_k, log_slope = self.one(x_k, h, inverse=False)
            score_k, of_parameters = self.one.push_score(x_k, h, score_k)
            added[:, : columns.shape[1]] += pull(of_parameters)
            moved.append(y_k)
            pushed.append(score_k)
            seen.append(self.transform.features(y_k))
            log_det = log_det + log_slope
        y = torch.cat(moved, dim=-1).index_select(1, self.place)
        with torch.no_grad():
            of_context, of_features = added.tensor_split([self.n_context], dim=1)
            n_each = self.transform.n_features(1)
            features = torch.cat(seen[1:-1], dim=-1).reshape(-1, n_each)
            pulled = self.transform.pull_features(features, of_features.reshape(-1, n_each))
            score = torch.cat(pushed, dim=-1)
            score[:, :-1] += pulled.view(len(x), len(moved) - 1)
        return y, log_det, score.index_select(1, self.place), of_context

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        if len(y) > ROWS and not torch.is_grad_enabled():
            parts = zip(torch.split(y, ROWS), torch.split(context, ROWS), strict=True)
            xs, log_dets = zip(*(self.inverse(*part) for part in parts), strict=True)
            return torch.cat(xs), torch.cat(log_dets)
        y = y.index_select(1, self.order)
        x, log_det = self.every(y, self._of_density(y, context), inverse=True)
        return x.index_select(1, self.place), log_det

    def _of_density(self, y: Tensor, context: Tensor) -> Tensor:
        """Parameters of all maps ``(n, dim * n_parameters)`` from entries along the chain."""
        n, dim = y.shape
        features = self.transform.features(y[:, :-1].reshape(-1, 1))
        features = features.reshape(n, (dim - 1) * features.shape[-1])
        columns = torch.cat([context, features], dim=-1)
        first, *others = self.net.weights
        weights = [first * self.sees, *others]
        inputs = columns.T.contiguous().expand(dim, -1, n)
        h = rounded_windows(inputs, weights, list(self.net.biases))
        return h.permute(2, 0, 1).reshape(n, dim * self.transform.n_parameters)

    def _entries(self, x: Tensor) -> tuple[Tensor, ...]:
        """Columns ``(n, 1)`` along the chain."""
        return torch.split(x.index_select(1, self.order), 1, dim=1)

    def _networks(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Weights and biases of one network after the other, for what it sees alone."""
        weights = [weight.unbind() for weight in self.net.weights]
        biases = [bias.squeeze(-1).unbind() for bias in self.net.biases]
        for k, n_seen in enumerate(self.n_seen):
            of_k = [each[k] for each in weights]
            yield [of_k[0][:, :n_seen], *of_k[1:]], [each[k] for each in biases]
