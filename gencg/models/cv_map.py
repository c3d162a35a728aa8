"""An invertible map of the soft coordinates whose first outputs are the collective variables."""

from collections.abc import Sequence

import torch
from normflows.flows import Flow
from torch import Tensor

from gencg.distributions.networks import MLP, harmonics
from gencg.geometry import wrap

BENT = "bent "
"""What stands before the name of a CV that networks bend: it is named after the straight one."""


class CollectiveMap(Flow):  # type: ignore[misc]
    r"""Map of constant volume of the soft coordinates s onto :math:`(\xi, v)`.

    .. math:: (\xi_0, v_0) = M s, \qquad \xi \mathrel{+}= h_1(v), \quad v \mathrel{+}= h_2(\xi),
              \quad \xi \mathrel{+}= h_3(v), \dots

    On the torus M is an integer matrix of determinant :math:`\pm 1` and every step is taken
    modulo :math:`2\pi`, so that the map sends the torus onto itself one to one; on the line M is
    orthogonal. The steps :math:`h` are networks that start at zero. Every :math:`\xi` is thus
    smooth, periodic where the molecule is, and injective together with v: what a generative
    model can condition on without loss. The sharp slow functions are functions of it.

    Args:
        matrix: M, shape ``(k, k)``; its first `n_cvs` rows give :math:`\xi_0`.
        n_cvs: Number of collective variables.
        periodic: Whether s are angles.
        centre: Subtracted from s on the line, ``(k,)``.
        scale: Divides s on the line, ``(k,)``.
        n_steps: Number of steps h.
        hidden: Hidden widths of each h.

    Raises:
        ValueError: If `n_cvs` is not between 1 and k, or M does not have determinant ±1, or is
            not integer on the torus, or `centre` or `scale` are given there.

    References:
        | NICE (Dinh et al., 2015), https://arxiv.org/abs/1410.8516
    """

    matrix: Tensor
    inverse_matrix: Tensor
    centre: Tensor
    scale: Tensor
    shift: Tensor
    spread: Tensor

    def __init__(
        self,
        matrix: Tensor,
        *,
        n_cvs: int,
        periodic: bool,
        centre: Tensor | None = None,
        scale: Tensor | None = None,
        n_steps: int = 3,
        hidden: Sequence[int] = (32, 32),
    ) -> None:
        super().__init__()
        k = len(matrix)
        if not 1 <= n_cvs <= k:
            raise ValueError(f"`n_cvs` must lie between 1 and {k} soft coordinates, got {n_cvs}")
        matrix = matrix.double()
        determinant = float(torch.linalg.det(matrix))
        whole = torch.equal(matrix, matrix.round())
        if abs(abs(determinant) - 1) > 1e-6 or (periodic and not whole):
            kind = "an integer" if periodic else "a"
            raise ValueError(f"`matrix` must be {kind} matrix of determinant ±1, got {determinant}")
        if periodic and not (centre is None and scale is None):
            raise ValueError("`centre` and `scale` are for the line; leave them out for angles")
        self.n_cvs, self.periodic, self.n_soft = n_cvs, periodic, k
        inverse = torch.linalg.inv(matrix)
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("inverse_matrix", (inverse.round() if periodic else inverse).float())
        zero = torch.zeros(k, dtype=torch.float64)
        self.register_buffer("centre", (zero if centre is None else centre).float())
        self.register_buffer("scale", (zero + 1 if scale is None else scale).float())
        self.register_buffer("shift", zero.float())
        self.register_buffer("spread", (zero + 1).float())
        sizes = (n_cvs, k - n_cvs)
        self.steps = torch.nn.ModuleList(
            MLP(self._n_features(sizes[1 - i % 2]), sizes[i % 2], hidden=hidden)
            for i in range(n_steps if k > n_cvs else 0)
        )

    @property
    def log_scale(self) -> Tensor:
        r""":math:`\log|\det \partial s / \partial(\xi, v)|`, a constant."""
        return self.scale.log().sum() + self.spread.log().sum()

    def standardise(self, s: Tensor, *, reach: float = 3.0) -> None:
        r"""Shift and scale the outputs so that samples s lie within `reach` of zero, on the line.

        Splines model a fixed interval; angles need nothing.
        """
        if self.periodic:
            return
        self.shift.zero_()
        self.spread.fill_(1.0)
        with torch.no_grad():
            outputs = torch.cat(self(s.to(self.matrix)), dim=-1)
            edges = torch.tensor([1e-3, 1 - 1e-3]).to(outputs)
            low, high = torch.quantile(outputs, edges, dim=0)
            self.shift.copy_(0.5 * (low + high))
            self.spread.copy_(0.5 * (high - low).clamp_min(1e-6) / reach)

    def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
        r""":math:`(\xi, v)`, ``(n, n_cvs)`` and ``(n, k - n_cvs)``, of s ``(n, k)``."""
        parts = ((s - self.centre) / self.scale) @ self.matrix.T
        xi, v = self._wrap(parts[:, : self.n_cvs]), self._wrap(parts[:, self.n_cvs :])
        for i, step in enumerate(self.steps):
            if i % 2 == 0:
                xi = self._wrap(xi + step(self.features(v)))
            else:
                v = self._wrap(v + step(self.features(xi)))
        d = self.n_cvs
        return (xi - self.shift[:d]) / self.spread[:d], (v - self.shift[d:]) / self.spread[d:]

    def inverse(self, xi: Tensor, v: Tensor) -> Tensor:
        """Soft coordinates ``(n, k)``."""
        d = self.n_cvs
        xi, v = xi * self.spread[:d] + self.shift[:d], v * self.spread[d:] + self.shift[d:]
        for i, step in reversed(list(enumerate(self.steps))):
            if i % 2 == 0:
                xi = xi - step(self.features(v))
            else:
                v = v - step(self.features(xi))
        parts = torch.cat([xi, v], dim=-1)
        if self.periodic:
            return self._wrap(parts @ self.inverse_matrix.T)
        # Solved in the present dtype: a rounded inverse would be exact to 1e-7 alone
        s: Tensor = torch.linalg.solve(self.matrix, parts.T).T
        return s * self.scale + self.centre

    def features(self, u: Tensor) -> Tensor:
        """What a network may see of outputs of the map: harmonics of angles."""
        return harmonics(u) if self.periodic else u

    def _n_features(self, d: int) -> int:
        return 4 * d if self.periodic else d

    def _wrap(self, u: Tensor) -> Tensor:
        return wrap(u) if self.periodic else u
