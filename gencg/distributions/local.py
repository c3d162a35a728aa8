"""Layers whose size grows linearly along a chain: each entry moves by what is near it."""

import math
from collections.abc import Sequence

import torch
from normflows.flows import Flow
from torch import Tensor

from gencg.distributions.couplings import Transform
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
    moved: Tensor
    order: Tensor
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
        kept_index, moved_index = (~moved).nonzero()[:, 0], moved.nonzero()[:, 0]
        moved_index = moved_index[torch.argsort(position[moved_index], stable=True)]
        n_windows = min(n_windows, len(moved_index))
        window = torch.arange(len(moved_index)) * n_windows // len(moved_index)
        size = math.ceil(len(moved_index) / n_windows)
        middle = torch.stack([position[moved_index[window == w]].mean() for w in range(n_windows)])
        seen = _nearest(middle, position[kept_index], reach)
        n_each = transform.n_features(len(kept_index)) // max(len(kept_index), 1)
        features = [seen + k * len(kept_index) for k in range(n_each)]
        context = _nearest(middle, context_position, reach) + n_each * len(kept_index)
        # A network without inputs is a learned constant: it sees a row of ones, the last column
        ones = torch.full((n_windows, 1), n_each * len(kept_index) + len(context_position))
        self.n_features = n_each * len(kept_index)
        sees = torch.cat([*features, context], dim=1)
        self.constant = sees.shape[1] == 0
        self.register_buffer("kept", kept_index)
        self.register_buffer("moved", moved_index)
        self.register_buffer("order", torch.argsort(torch.cat([kept_index, moved_index])))
        self.register_buffer("sees", ones if self.constant else sees)
        first = torch.searchsorted(window, window)
        self.register_buffer("slots", window * size + torch.arange(len(window)) - first)
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
        rows, of_rows = x.T, score.T  # [dim, n]
        kept, moved = rows.index_select(0, self.kept), rows.index_select(0, self.moved)
        columns = self._columns(kept, context)
        out, pull = self.net.with_pullback(self._seen(columns))
        parameters = self._by_entry(out)
        y, log_slope = self.transform(moved, parameters, inverse=False)
        with torch.no_grad():
            of_moved, of_parameters = self.transform.push_score(
                moved, parameters, of_rows.index_select(0, self.moved)
            )
            added = torch.zeros_like(columns).index_add_(
                0, self.sees.flatten(), pull(self._by_window(of_parameters)).flatten(0, 1)
            )
            of_features, of_context = added[: self.n_features].T, added[self.n_features :].T
            of_kept = self.transform.pull_features(kept.T, of_features).T
            of_kept = of_kept + of_rows.index_select(0, self.kept)
            of_rows = torch.cat([of_kept, of_moved]).index_select(0, self.order)
        rows = torch.cat([kept, y]).index_select(0, self.order)
        return rows.T, log_slope.sum(0), of_rows.T, of_context[:, : context.shape[1]]

    def _apply_transform(
        self, x: Tensor, context: Tensor, *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        rows = x.T
        kept, moved = rows.index_select(0, self.kept), rows.index_select(0, self.moved)
        out = self.net(self._seen(self._columns(kept, context)))
        moved, log_slope = self.transform(moved, self._by_entry(out), inverse=inverse)
        return torch.cat([kept, moved]).index_select(0, self.order).T, log_slope.sum(0)

    def _columns(self, kept: Tensor, context: Tensor) -> Tensor:
        """All that windows may see, ``(n_columns, n)``."""
        columns = [self.transform.features(kept.T).T, context.T]
        if self.constant:
            columns.append(context.new_ones(1, len(context)))
        return torch.cat(columns)

    def _seen(self, columns: Tensor) -> Tensor:
        """What each window sees, ``(n_windows, n_in, n)``."""
        return columns.index_select(0, self.sees.flatten()).view(*self.sees.shape, -1)

    def _by_entry(self, out: Tensor) -> Tensor:
        """Parameters of the map, ``(n_moved, n, n_parameters)``, from outputs of the windows."""
        slots = out.view(-1, self.transform.n_parameters, out.shape[-1])
        if len(slots) != len(self.slots):
            slots = slots.index_select(0, self.slots)
        return slots.movedim(1, -1)

    def _by_window(self, of_parameters: Tensor) -> Tensor:
        """The transpose of `_by_entry`."""
        n_windows, n_out = self.net.biases[-1].shape[:2]
        given = of_parameters.movedim(-1, 1)
        n = given.shape[-1]
        slots = n_windows * n_out // self.transform.n_parameters
        if slots != len(given):
            empty = given.new_zeros(slots, self.transform.n_parameters, n)
            given = empty.index_copy_(0, self.slots, given)
        return given.reshape(n_windows, n_out, n)


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
