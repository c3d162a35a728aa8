"""Layers whose size grows linearly along a chain: each entry moves by what is near it."""

import math
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from torch import Tensor

from gencg.distributions.couplings import Move, Transform
from gencg.distributions.windows import WindowMLP


class LocalCoupling(Flow):  # type: ignore[misc]
    r"""Coupling layer in which a window w of the chain moves by what is near it.

    .. math:: y_A = x_A, \qquad y_{B_w} = T(x_{B_w};\, h_w(x_{A \cap N_w}, c_{N_w}))

    The entries to be moved, sorted along the chain, fall into `n_windows` runs B_w of equal
    length. The neighbourhood N_w are the kept entries and the context features nearest to the
    middle of the run: the share ``reach / n_windows`` of each. So the size of each network h_w
    does not depend on the length of the chain. With ``n_summary > 0`` the networks share a few
    sums over all windows (`WindowMLP`); without, an output depends on its neighbourhood alone.

    Args:
        transform: The monotone map T.
        moved: Which entries are in B, ``(dim,)`` bool; all of them may be.
        position: Where each entry sits along the chain, ``(dim,)``.
        context_position: The same of each context feature, ``(n_context,)``; features at NaN are
            seen by every window.
        n_windows: Number of windows, at most one for each moved entry.
        reach: How many windows' worth of kept entries and context a window sees.
        hidden: Hidden widths of the network of one window.
        n_summary: Entries of the summary.

    Raises:
        ValueError: If nothing is moved.
    """

    kept: Tensor
    sees: Tensor
    slots: Tensor

    def __init__(
        self,
        transform: Transform,
        moved: Tensor,
        *,
        position: Tensor,
        context_position: Tensor,
        n_windows: int,
        reach: float,
        hidden: Sequence[int],
        n_summary: int = 0,
    ) -> None:
        super().__init__()
        if not moved.any():
            raise ValueError("`moved` must mark at least one entry, got none")
        self.transform = transform
        kept, index = (~moved).nonzero()[:, 0], moved.nonzero()[:, 0]
        n_windows = min(n_windows, len(index))
        place = torch.argsort(torch.argsort(position[index], stable=True))
        window = place * n_windows // len(index)
        middle = torch.stack([position[index[window == w]].mean() for w in range(n_windows)])
        seen = _nearest(middle, position[kept], reach)
        n_each = transform.n_features(len(kept)) // max(len(kept), 1)
        self.n_features = n_each * len(kept)
        self.n_rows = self.n_features + len(context_position)
        sees = [seen + k * len(kept) for k in range(n_each)]
        sees.append(_nearest(middle, context_position, reach) + self.n_features)
        # What has no inputs is a learned constant: it sees a column of ones, the last
        self.constant = sum(indices.shape[1] for indices in sees) == 0
        if self.constant:
            sees = [torch.full((n_windows, 1), self.n_rows)]
        size = math.ceil(len(index) / n_windows)
        begin = torch.searchsorted(window.sort().values, torch.arange(n_windows))
        self.register_buffer("kept", kept)
        self.register_buffer("sees", torch.cat(sees, dim=1))
        # Where the networks' outputs hold the parameters of each moved entry
        self.register_buffer("slots", window * size + place - begin[window])
        self.move = Move(transform, index, dim=len(moved))
        self.net = WindowMLP(
            n_windows,
            self.sees.shape[1],
            size * transform.n_parameters,
            hidden=hidden,
            n_summary=n_summary,
        )

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_transform(x, context, inverse=False)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_transform(y, context, inverse=True)

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        features = self.transform.features(x.index_select(1, self.kept))
        columns = self._columns(features, context)
        out, pull = self.net.with_pullback(self._seen(columns))
        parameters = self._parameters_of(out)
        y, log_det = self.move(x, parameters, inverse=False)
        with torch.no_grad():
            score, of_parameters = self.move.push_score(x, parameters, score)
            pulled = pull(self._outputs_of(of_parameters)).flatten(0, 1)
            added = torch.zeros_like(columns).index_add_(0, self.sees.flatten(), pulled)
            of_features, of_context = added[: self.n_rows].tensor_split([self.n_features])
            of_kept = self.transform.pull_features(features, of_features.T.contiguous())
            score.index_add_(1, self.kept, of_kept)
        return y, log_det, score, of_context.T.contiguous()

    def _apply_transform(
        self, x: Tensor, context: Tensor, *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        features = self.transform.features(x.index_select(1, self.kept))
        out = self.net(self._seen(self._columns(features, context)))
        return self.move(x, self._parameters_of(out), inverse=inverse)  # type: ignore[no-any-return]

    def _columns(self, features: Tensor, context: Tensor) -> Tensor:
        """All that windows may see, ``(n_columns, n)``."""
        columns = [features, context]
        if self.constant:
            columns.append(context.new_ones(len(context), 1))
        return torch.cat(columns, dim=1).T.contiguous()

    def _seen(self, columns: Tensor) -> Tensor:
        """What each window sees, ``(n_windows, n_in, n)``."""
        return columns.index_select(0, self.sees.flatten()).view(*self.sees.shape, -1)

    def _parameters_of(self, out: Tensor) -> Tensor:
        """Parameters of the moved entries, ``(n, n_moved * n_parameters)``."""
        slots = out.view(-1, self.transform.n_parameters, out.shape[-1])
        return slots.index_select(0, self.slots).flatten(0, 1).T.contiguous()

    def _outputs_of(self, parameters: Tensor) -> Tensor:
        """The transpose of `_parameters_of`, ``(n_windows, n_out, n)``."""
        n_windows, n_out = self.net.biases[-1].shape[:2]
        n, each = len(parameters), self.transform.n_parameters
        slots = parameters.new_zeros(n_windows * n_out // each, each, n)
        slots.index_copy_(0, self.slots, parameters.T.reshape(-1, each, n))
        return slots.view(n_windows, n_out, n)


class BlockTriangular(Flow):  # type: ignore[misc]
    r"""Linear map by unit lower-triangular blocks along the chain: correlations of neighbours.

    .. math:: y_w = L_w x_w, \qquad \log|\det L| = 0

    Parameters, memory and time are dim x `block`; the blocks are solved side by side. Two of them,
    shifted by half a block, also join what falls into different blocks of the first.

    Args:
        position: Where each entry sits along the chain, ``(dim,)``.
        block: Entries in a block.
        shift: How many entries of the first block are left out.
    """

    order: Tensor
    slots: Tensor

    def __init__(self, position: Tensor, *, block: int, shift: int = 0) -> None:
        super().__init__()
        order = torch.argsort(position, stable=True)
        n_blocks = math.ceil((len(order) + shift) / block)
        self.shift = shift
        self.register_buffer("order", order)
        self.register_buffer("slots", torch.argsort(order) + shift)
        self.entries = torch.nn.Parameter(torch.zeros(n_blocks, block, block))

    @property
    def matrices(self) -> Tensor:
        """The blocks L_w, shape ``(n_blocks, block, block)``."""
        block = self.entries.shape[-1]
        eye = torch.eye(block, dtype=self.entries.dtype, device=self.entries.device)
        return self.entries.tril(-1) + eye

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._joined(torch.bmm(self.matrices, self._blocks(x))), x.new_zeros(len(x))

    def forward_with_score(
        self, x: Tensor, context: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As forward, with the gradients of the log-density; see `Scored`."""
        with torch.no_grad():
            solved = torch.linalg.solve_triangular(
                self.matrices.mT, self._blocks(score), upper=True, unitriangular=True
            )
            of_y = self._joined(solved)
        return *self(x, context), of_y, torch.zeros_like(context)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.linalg.solve_triangular(
            self.matrices, self._blocks(y), upper=False, unitriangular=True
        )
        return self._joined(x), y.new_zeros(len(y))

    def _blocks(self, x: Tensor) -> Tensor:
        """Entries by block, ``(n_blocks, block, n)``, zeros in front and behind."""
        n_blocks, block, _ = self.entries.shape
        rows = x.T.index_select(0, self.order)
        # Zeros stay apart from the entries: in front they add nothing, behind nobody reads them
        padding = (0, 0, self.shift, n_blocks * block - self.shift - len(rows))
        return torch.nn.functional.pad(rows, padding).view(n_blocks, block, -1)

    def _joined(self, blocks: Tensor) -> Tensor:
        """The transpose of `_blocks`."""
        return blocks.reshape(-1, blocks.shape[-1]).index_select(0, self.slots).T


def _nearest(middle: Tensor, position: Tensor, reach: float) -> Tensor:
    """Indices of the positions nearest to each middle, and of those at NaN, ``(W, n_seen)``."""
    local = (~position.isnan()).nonzero()[:, 0]
    everywhere = position.isnan().nonzero()[:, 0].expand(len(middle), -1)
    n_seen = min(math.ceil(reach * len(local) / len(middle)), len(local))
    distance = (position[local] - middle[:, None]).abs()
    nearest = torch.argsort(distance, dim=1, stable=True)[:, :n_seen].sort(dim=1).values
    return torch.cat([local[nearest], everywhere], dim=1)
