"""Slow functions in parts of a basis, from moments that are computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gencg.objectives.dirichlet import SoftSamples, moved_population, solve_moments, sum_moments
from gencg.objectives.pair_basis import PairBasis

BLOCK = 2000
"""Samples at a time."""


@dataclass(frozen=True)
class Forms:
    """Covariance and Dirichlet form of all functions of a basis, and their values.

    Functions of some of the angles are a part of the basis, and their forms parts of these
    matrices: many sets of angles are compared at the price of one.

    Args:
        basis: The functions.
        weights: Normalised weights of the samples, ``(n,)``.
        values: Functions at the samples, ``(n, n_functions)``.
        moments: Sums over all samples; see `sum_moments`.
    """

    basis: PairBasis
    weights: Tensor
    values: Tensor
    moments: tuple[Tensor, Tensor, Tensor, Tensor]

    @classmethod
    def of(cls, samples: SoftSamples, basis: PairBasis) -> "Forms":
        """Of weighted samples."""
        weights = samples.weights.double()
        blocks = torch.arange(len(weights)).split(BLOCK)  # type: ignore[no-untyped-call]
        values = torch.cat([basis(samples.s[index])[0] for index in blocks])
        return cls(basis, weights, values, sum_moments(samples, weights, basis, blocks))

    def slowest(self, index: Sequence[int], n_modes: int) -> tuple[Tensor, Tensor, Tensor]:
        """The slowest functions of some of the angles.

        Args:
            index: The angles.
            n_modes: How many functions.

        Returns:
            Eigenvalues ``(m,)``, values at the samples ``(n, m)`` and populations ``(m,)``.
        """
        columns = self.basis.columns(index)
        mass, mean, second, stiff = self.moments
        eigenvalues, vectors, centre = solve_moments(
            mass, mean[columns], second[columns][:, columns], stiff[columns][:, columns]
        )
        f = (self.values[:, columns] - centre) @ vectors[:, :n_modes]
        return eigenvalues[:n_modes], f, moved_population((self.weights[:, None] * f**4).sum(0))
