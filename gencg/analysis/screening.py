"""Screening: of thousands of candidate terms those that a search for a formula needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gencg.analysis.descriptors import IntArray, Term
from gencg.analysis.histogram import Array, to_array
from gencg.analysis.sparse_bayes import best_subset, gains
from gencg.analysis.terms import KINDS, Terms

SAME = 0.999
"""Correlation from which two terms are one under two names."""
CARRIED = 10.0
"""Effective samples that must carry the variance of a term, and should that of a CV."""
FIRST, FURTHER, INSTEAD = 40, 15, 5
"""Terms taken at first, then beside each formula, and in place of each of its terms."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Screened terms.

    Attributes:
        index: Their numbers among all, ``(p,)``.
        terms: What they are.
        mean: Mean of each on the samples screened with, ``(p,)``.
        deviation: Its standard deviation there, ``(p,)``.
        aliases: Other names of each.
    """

    index: IntArray
    terms: tuple[Term, ...]
    mean: Array
    deviation: Array
    aliases: tuple[tuple[Term, ...], ...]


def screen(terms: Terms, t: Array, max_terms: int) -> Pool:
    r"""The terms that short formulas of a target may need.

    First those most correlated with it. Then, for formulas of one term up to `max_terms`, the best
    one of those at hand is found, and joined by the terms that would explain most beside it, and
    in place of each of its terms: the step that sequential replacement takes, over all candidates.
    A term whose variance few samples carry, effectively

    .. math:: n\, \frac{\mathrm{Var}[u]^2}{E[(u - E u)^4]},

    which for a rare state is their number in it, is left out. Terms that are the same under two
    names stay under the simpler one.

    Args:
        terms: The candidates, on the samples that may be looked at.
        t: Target of mean 0 and variance 1 under their weights, ``(n,)``.
        max_terms: Length of the longest formula.

    Raises:
        ValueError: If no term varies.
    """
    columns = _Columns.of(terms, t)
    n_usable = int(columns.usable.sum())
    if not n_usable:
        raise ValueError(
            "`samples` must vary: no term has a variance that ten effective samples carry"
        )
    if n_usable <= FIRST + FURTHER * max_terms:
        chosen = np.flatnonzero(columns.usable).tolist()
    else:
        chosen = np.argsort(-np.abs(columns.cross), kind="stable")[:FIRST].tolist()
        for size in range(1, max_terms + 1):
            chosen += _joining(columns, chosen, size)
    return _named_once(columns, np.array(chosen))


@dataclass(frozen=True, eq=False)
class _Columns:
    """All candidates on some samples, standardised, with their correlations with the target."""

    terms: Terms
    t: Array
    mean: Array
    deviation: Array
    cross: Array
    usable: Array

    @classmethod
    def of(cls, terms: Terms, t: Array) -> "_Columns":
        w = terms.weights
        mean, deviation, cross, usable = np.zeros((4, len(terms)))
        for part, u in terms.blocks():
            mean[part] = w @ u
            squares = (u - mean[part]) ** 2
            variance = w @ squares
            carried = variance**2 / np.maximum(w @ squares**2, 1e-300) / (w @ w)
            usable[part] = (variance > 1e-12) & (carried >= CARRIED)
            deviation[part] = np.where(usable[part] > 0, np.sqrt(variance), 1.0)
            # The target has no mean, so that of the term does not matter
            cross[part] = (w * t) @ u / deviation[part] * usable[part]
        return cls(terms, t, mean, deviation, cross, usable)

    @property
    def weighted(self) -> Array:
        return self.terms.weights[:, None]

    def at(self, index: Sequence[int] | IntArray) -> Array:
        """Values of some terms, ``(n, len(index))``."""
        index = np.asarray(index, dtype=np.int64)
        return to_array((self.terms.values(index) - self.mean[index]) / self.deviation[index])

    def shared(self, u: Array) -> Array:
        """Correlations of all terms with given ones ``(n, m)``, ``(n_terms, m)``."""
        found = np.zeros((len(self.terms), u.shape[1]))
        for part, values in self.terms.blocks():
            found[part] = values.T @ (self.weighted * u) / self.deviation[part, None]
        return found


def _joining(columns: _Columns, chosen: Sequence[int], size: int) -> list[int]:
    """Terms that belong beside the best formula of some terms, or in place of one of its own."""
    u = columns.at(chosen)
    weighted = columns.weighted * u
    gram, target = u.T @ weighted, weighted.T @ columns.t
    best = list(best_subset(gram, target, size))
    shared = columns.shared(u[:, best])
    found: list[int] = []
    for left_out in (-1, *range(len(best))):
        kept = [j for j in range(len(best)) if j != left_out]
        s = [best[j] for j in kept]
        gained = gains(
            columns.cross, columns.usable, shared[:, kept], gram[np.ix_(s, s)], target[s]
        )
        here = {*chosen, *found}
        order = np.argsort(-gained, kind="stable")[: len(here) + FURTHER].tolist()
        new = [k for k in order if k not in here and columns.usable[k] > 0]
        found += new[: FURTHER if left_out < 0 else INSTEAD]
    return found


def _named_once(columns: _Columns, index: IntArray) -> Pool:
    """Of terms that are the same the simplest one, with the names of the others."""

    candidates = columns.terms.candidates

    def complexity(k: int) -> tuple[int, float, int]:
        kind = candidates[k].kind
        # Of two wells that make up the circle, the smaller
        return (KINDS.index(kind) if kind in KINDS else -1, columns.mean[k] * (kind == "well"), k)

    index = np.array(sorted(index.tolist(), key=complexity))
    u = columns.at(index)
    same = np.abs(u.T @ (columns.weighted * u)) > SAME
    named = [candidates[k] for k in index]
    kept: list[int] = []
    aliases: dict[int, list[Term]] = {}
    for k in range(len(index)):
        first = next((j for j in kept if same[j, k]), None)
        if first is None:
            kept.append(k)
            aliases[k] = []
        else:
            aliases[first] += [named[k]] if not named[k].same_wells(named[first]) else []
    index = index[kept]
    return Pool(
        index,
        tuple(candidates[k] for k in index),
        columns.mean[index],
        columns.deviation[index],
        tuple(tuple(aliases[k]) for k in kept),
    )
