r"""Toy energies whose exact answers are known.

The papers write them without units. Here energies are in kJ/mol, so that the papers' :math:`\beta
= 1` is 1 mol/kJ, a temperature of 120.27 K, and coordinates are plain numbers (rad for a torsion).
Each toy carries its exact answers at any inverse temperature as methods, from Gauss-Legendre
quadrature on panels that end at the borders of the states.
"""

import math
from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gencg.energies.base import Energy

Array = NDArray[np.float64]


class Toy(Energy):
    """An energy with exact answers, given by quadrature over a box of `event_shape` dimensions."""

    @abstractmethod
    def states(self, x: Tensor) -> dict[str, Tensor]:
        """Which configurations, ``(*batch, dim)``, lie in which state: name to ``(*batch,)``."""

    @abstractmethod
    def nodes(self) -> tuple[Array, Array]:
        """Quadrature nodes ``(n, dim)`` and weights ``(n,)`` for integrals over x."""

    def log_partition(self, beta: float) -> float:
        r""":math:`\log Z = \log \int e^{-\beta U(x)} dx` at `beta` in mol/kJ."""
        return self._integrate(beta)[2]

    def populations(self, beta: float) -> dict[str, float]:
        """Probability of each state at `beta` in mol/kJ."""
        x, p, _ = self._integrate(beta)
        masks = self.states(torch.from_numpy(x))
        return {name: float(p[mask.numpy()].sum()) for name, mask in masks.items()}

    def mean(self, beta: float) -> Array:
        """Mean configuration, ``(dim,)``."""
        x, p, _ = self._integrate(beta)
        return np.asarray(p @ x)

    def variance(self, beta: float) -> Array:
        """Variance of each coordinate, ``(dim,)``."""
        x, p, _ = self._integrate(beta)
        return np.asarray(p @ (x - p @ x) ** 2)

    def mean_energy(self, beta: float) -> float:
        """Mean energy in kJ/mol."""
        x, p, _ = self._integrate(beta)
        return float(p @ self.energy(torch.from_numpy(x)).numpy())

    def _integrate(self, beta: float) -> tuple[Array, Array, float]:
        if not (math.isfinite(beta) and beta > 0):
            raise ValueError(f"`beta` must be positive and finite, in mol/kJ, got {beta}")
        x, weights = self.nodes()
        log_p = -beta * self.energy(torch.from_numpy(x)).numpy() + np.log(weights)
        shift = log_p.max()
        p = np.exp(log_p - shift)
        return x, p / p.sum(), float(shift + np.log(p.sum()))


class DoubleWell(Toy):
    r"""Two wells along :math:`x_1`, harmonic along :math:`x_2`.

    .. math:: U(x) = \tfrac{1}{4} x_1^4 - 3 x_1^2 + x_1 + \tfrac{1}{2} x_2^2

    The left well is 4.9 kJ/mol deeper, so that at :math:`\beta = 1` the right one holds 0.8 % of
    the mass: an approximation which drops it still has a high effective sample size.

    References:
        | Embedded-physics machine learning for coarse-graining and collective variable
          discovery without data (Schöberl, Zabaras, Koutsourelakis, 2020)
        | https://arxiv.org/abs/2002.10148
    """

    def __init__(self) -> None:
        super().__init__((2,))
        # dU/dx1 = 0: left minimum, barrier, right minimum
        self.barrier = float(np.sort(np.roots([1.0, 0.0, -6.0, 1.0]).real)[1])

    def energy(self, x: Tensor) -> Tensor:
        x1, x2 = x.unbind(-1)
        return x1**4 / 4 - 3 * x1**2 + x1 + x2**2 / 2

    def states(self, x: Tensor) -> dict[str, Tensor]:
        """Left and right of the barrier."""
        return {"left": x[..., 0] < self.barrier, "right": x[..., 0] >= self.barrier}

    def nodes(self) -> tuple[Array, Array]:
        """Box that holds everything above :math:`e^{-30}` down to ``beta = 0.05``."""
        first = _panels([-8.0, -5.0, -2.5, self.barrier, 2.5, 5.0, 8.0])
        return _product(first, _panels([-36.0, -12.0, -4.0, 4.0, 12.0, 36.0]))


class MuellerBrown(Toy):
    r"""The Müller-Brown surface, scaled to a molecule's energies: three basins in a bent valley.

    .. math:: U(x) = s \sum_k A_k \exp\!\big(a_k \Delta_{1k}^2 + b_k \Delta_{1k} \Delta_{2k}
              + c_k \Delta_{2k}^2\big), \qquad \Delta_{ik} = x_i - x_{ik}

    Basins along the valley: *reactant* at (-0.558, 1.442), *intermediate* at (-0.050, 0.467) and
    *product* at (0.623, 0.028), divided by lines of constant :math:`x_2 - x_1` through the two
    saddles between them.

    Args:
        scale: The factor s in kJ/mol; 0.15 puts the barriers at 6 and 2 :math:`k_B T` at 300 K.

    References:
        | Location of saddle points and minimum energy paths by a constrained simplex optimization
          procedure (Müller, Brown, 1979)
        | https://doi.org/10.1007/BF00547608
    """

    AMPLITUDES = (-200.0, -100.0, -170.0, 15.0)
    A = (-1.0, -1.0, -6.5, 0.7)
    B = (0.0, 0.0, 11.0, 0.6)
    C = (-10.0, -10.0, -6.5, 0.7)
    CENTRES_1 = (1.0, 0.0, -0.5, -1.0)
    CENTRES_2 = (0.0, 0.5, 1.5, 1.0)
    SADDLES = ((-0.82200156, 0.62431280), (0.21248658, 0.29298833))

    def __init__(self, *, scale: float = 0.15) -> None:
        super().__init__((2,))
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"`scale` must be positive and finite, in kJ/mol, got {scale}")
        self.scale = scale
        self.borders = tuple(x2 - x1 for x1, x2 in self.SADDLES)

    def energy(self, x: Tensor) -> Tensor:
        d1 = x[..., :1] - x.new_tensor(self.CENTRES_1)
        d2 = x[..., 1:] - x.new_tensor(self.CENTRES_2)
        exponent = x.new_tensor(self.A) * d1**2 + x.new_tensor(self.C) * d2**2
        exponent = exponent + x.new_tensor(self.B) * d1 * d2
        # Far out the confining term would overflow; e^60 is a wall already
        return self.scale * (x.new_tensor(self.AMPLITUDES) * exponent.clamp(max=60).exp()).sum(-1)

    def states(self, x: Tensor) -> dict[str, Tensor]:
        """Strips along the valley: reactant, intermediate, product."""
        along = x[..., 1] - x[..., 0]
        first, second = self.borders
        return {
            "reactant": along > first,
            "intermediate": (along <= first) & (along > second),
            "product": along <= second,
        }

    def nodes(self) -> tuple[Array, Array]:
        """Rotated box: :math:`x_2 - x_1` with the borders as panel ends, and :math:`x_1 + x_2`."""
        first, second = self.borders
        along = _panels([-6.0, -3.0, -1.5, -0.6, second, 0.7, first, 2.0, 2.7, 4.0, 7.0])
        across = _panels([-5.0, -2.5, -1.0, -0.2, 0.5, 1.2, 2.5, 5.0])
        st, weights = _product(along, across)
        x = np.stack([st[:, 1] - st[:, 0], st[:, 1] + st[:, 0]], 1) / 2
        return x, weights / 2  # |det d(x1, x2)/d(s, t)| = 1/2


class CurvedWells(Toy):
    r"""Two equal wells along a bent coordinate.

    .. math:: U(x) = 3 (u^2 - 1)^2 + 2 x_2^2, \qquad u = x_1 - x_2^2

    The barrier at u = 0 is 3 kJ/mol high. No linear function of x separates the wells well: the
    slow function has parabolas for level sets.
    """

    def __init__(self) -> None:
        super().__init__((2,))

    def energy(self, x: Tensor) -> Tensor:
        u = x[..., 0] - x[..., 1] ** 2
        return 3 * (u**2 - 1) ** 2 + 2 * x[..., 1] ** 2

    def states(self, x: Tensor) -> dict[str, Tensor]:
        """Left and right of the parabola u = 0."""
        right = x[..., 0] >= x[..., 1] ** 2
        return {"left": ~right, "right": right}

    def nodes(self) -> tuple[Array, Array]:
        """Box in (u, x2), whose map to x keeps the area."""
        first = _panels([-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0])
        uv, weights = _product(first, _panels([-18.0, -6.0, -2.0, 2.0, 6.0, 18.0]))
        return np.stack([uv[:, 0] + uv[:, 1] ** 2, uv[:, 1]], 1), weights


class GaussianMixture(Toy):
    r"""Normal modes of unequal weight on a square lattice, exactly normalised.

    .. math:: U(x) = -\epsilon \log \sum_k p_k\, \mathcal N(x; \mu_k, \sigma^2 I),
              \qquad \epsilon = 1\ \mathrm{kJ/mol}

    At :math:`\beta = 1` mol/kJ, :math:`\log Z = 0`. Weights grow linearly along the lattice, so
    that with 16 modes the rarest holds 0.7 % and the commonest 12 %. States are the lattice cells.

    Args:
        n_per_side: Modes along each of the two sides.
        spacing: Distance between neighbours.
        width: Standard deviation of a mode.
    """

    def __init__(self, *, n_per_side: int = 4, spacing: float = 2.0, width: float = 0.35) -> None:
        super().__init__((2,))
        if n_per_side < 1:
            raise ValueError(f"`n_per_side` must be at least 1, got {n_per_side}")
        if not (spacing > 0 and width > 0):
            raise ValueError(f"`spacing` and `width` must be positive, got {spacing} and {width}")
        self.n_per_side, self.spacing, self.width = n_per_side, spacing, width
        self.axis = spacing * (np.arange(n_per_side) - (n_per_side - 1) / 2)
        self.means = np.stack(np.meshgrid(self.axis, self.axis, indexing="ij"), -1).reshape(-1, 2)
        raw = np.arange(1, n_per_side**2 + 1, dtype=np.float64)
        self.weights = raw / raw.sum()

    def energy(self, x: Tensor) -> Tensor:
        means = torch.as_tensor(self.means, dtype=x.dtype, device=x.device)
        log_p = torch.as_tensor(np.log(self.weights), dtype=x.dtype, device=x.device)
        square = ((x[..., None, :] - means) ** 2).sum(-1) / (2 * self.width**2)
        return math.log(2 * math.pi * self.width**2) - torch.logsumexp(log_p - square, -1)

    def states(self, x: Tensor) -> dict[str, Tensor]:
        """Lattice cells, by the nearest mean: mode 1, mode 2, ..."""
        n = self.n_per_side
        cell = torch.round(x / self.spacing + (n - 1) / 2).clamp(0, n - 1).long()
        index = cell[..., 0] * n + cell[..., 1]
        return {f"mode {k + 1}": index == k for k in range(n * n)}

    def nodes(self) -> tuple[Array, Array]:
        """Lattice cells, each cut in two, with two more panels outside."""
        half = np.arange(self.n_per_side * 2 + 1) * self.spacing / 2
        half = half + self.axis[0] - self.spacing / 2
        reach = self.spacing / 2 + 10 * self.width
        edges = [
            half[0] - 4 * reach,
            half[0] - reach,
            *half,
            half[-1] + reach,
            half[-1] + 4 * reach,
        ]
        return _product(_panels(edges), _panels(edges))


class ButaneTorsion(Toy):
    r"""n-Butane as one torsion (Ryckaert-Bellemans).

    .. math:: U(\varphi) = \sum_{n=0}^{5} C_n \cos^n(\varphi - \pi)

    in rad with *trans* at :math:`\varphi = \pm\pi` (IUPAC); *gauche* at about
    :math:`\pm 65^\circ`, divided at :math:`\pm 2\pi/3` and 0.

    References:
        | Molecular dynamics of liquid n-butane near its boiling point
          (Ryckaert, Bellemans, 1975)
        | https://doi.org/10.1016/0009-2614(75)85513-8
    """

    COEFFICIENTS = (9.28, 12.16, -13.12, -3.06, 26.24, -31.5)
    """In kJ/mol; they sum to zero at trans."""

    def __init__(self) -> None:
        super().__init__((1,))

    def energy(self, x: Tensor) -> Tensor:
        cosine = -torch.cos(x[..., 0])
        value = torch.zeros_like(cosine)
        for coefficient in reversed(self.COEFFICIENTS):
            value = value * cosine + coefficient
        return value

    def states(self, x: Tensor) -> dict[str, Tensor]:
        """trans, gauche+ and gauche-; any angle, wrapped to [-pi, pi) here."""
        phi = torch.remainder(x[..., 0] + math.pi, 2 * math.pi) - math.pi
        trans = phi.abs() > 2 * math.pi / 3
        return {"trans": trans, "gauche+": ~trans & (phi >= 0), "gauche-": ~trans & (phi < 0)}

    def nodes(self) -> tuple[Array, Array]:
        """The circle, cut at the borders of the states."""
        nodes, weights = _panels([k * math.pi / 3 for k in range(-3, 4)])
        return nodes[:, None], weights


def _panels(edges: list[float], n: int = 24) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and weights, `n` on each interval between consecutive edges."""
    t, w = np.polynomial.legendre.leggauss(n)
    low, high = np.array(edges[:-1])[:, None], np.array(edges[1:])[:, None]
    return ((high + low) / 2 + (high - low) / 2 * t).ravel(), ((high - low) / 2 * w).ravel()


def _product(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Tensor product of two one-dimensional rules: nodes ``(n, 2)``, weights ``(n,)``."""
    x = np.stack(np.meshgrid(first[0], second[0], indexing="ij"), -1).reshape(-1, 2)
    return x, np.outer(first[1], second[1]).ravel()
