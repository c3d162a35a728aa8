"""The search for a short formula: found on one part of the samples, chosen and told on others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gencg.analysis.descriptors import IntArray, Term
from gencg.analysis.histogram import Array, to_array
from gencg.analysis.screening import Pool
from gencg.analysis.sparse_bayes import Relevance, best_subset, coefficients
from gencg.analysis.sparse_bayes import relevance_determination as determine
from gencg.analysis.terms import Terms

SHARES = (0.6, 0.2, 0.2)
"""Of the samples: to find formulas with, to choose among them with, and to tell R² with."""
AS_GOOD = 0.005
"""Loss of R² that simpler terms are worth."""
STANDS_IN = 0.9
"""Share of what a term adds that another must add in its place to stand in for it."""
SIMPLE = (("given", "torsion", "well"), ("given", "torsion", "well", "product"))
"""Kinds of terms that are preferred, the simplest first."""
GROUPS = 100
"""Groups that the samples of a part are resampled in."""
Formula = tuple[int, ...]


@dataclass(frozen=True)
class StandIn:
    """Another name for a term.

    Attributes:
        name: The other term.
        share: How much of what the term adds to R² it adds in its place.
    """

    name: str
    share: float


@dataclass(frozen=True)
class ExplainedTerm:
    """A term of a formula.

    Attributes:
        term: What it is.
        coefficient: Its factor, per unit of the term.
        error: Posterior standard error of it.
        bootstrap_error: Standard error by resampling, which trusts no model of what is left.
        standardised: Factor of the standardised term for the standardised CV.
        added: What it adds to R², beside the other terms.
        inclusion: Share of resamplings whose best formula of this length has it.
        inclusion_of_any: The same for the term or one that stands in for it.
        stand_ins: Terms that say the same here, the best first.
    """

    term: Term
    coefficient: float
    error: float
    bootstrap_error: float
    standardised: float
    added: float
    inclusion: float
    inclusion_of_any: float
    stand_ins: tuple[StandIn, ...]

    @property
    def uncertainty(self) -> float:
        """The larger of both errors: what a formula leaves is rarely noise."""
        return max(self.error, self.bootstrap_error)


@dataclass(frozen=True, eq=False)
class Search:
    r"""Moments :math:`E[z z^T]` of z = (1, terms, target) on the parts of the samples.

    Terms and target are standardised on the part that formulas are found with.

    Attributes:
        pool: The terms.
        finding: Moments of each group of the first part, ``(groups, p + 2, p + 2)``.
        choosing: Moments of the second part, ``(p + 2, p + 2)``.
        telling: Moments of each group of the last part.
        n_finding: Effective number of samples in the first part.
        seed: Of the resamplings.
    """

    pool: Pool
    finding: Array
    choosing: Array
    telling: Array
    n_finding: float
    seed: int

    @classmethod
    def over(
        cls, terms: Terms, pool: Pool, t: Array, parts: Sequence[IntArray], *, seed: int
    ) -> "Search":
        """Moments of the parts."""
        u = (terms.values(pool.index) - pool.mean) / pool.deviation
        z = np.concatenate([np.ones((len(u), 1)), u, t[:, None]], axis=1)
        w = terms.weights

        def moments(rows: IntArray) -> Array:
            return to_array(z[rows].T @ (w[rows, None] * z[rows]))

        find, choose, tell = parts
        return cls(
            pool,
            np.stack([moments(rows) for rows in np.array_split(find, GROUPS)]),
            moments(choose),
            np.stack([moments(rows) for rows in np.array_split(tell, GROUPS)]),
            float(w[find].sum() ** 2 / (w[find] ** 2).sum()),
            seed,
        )

    def choose(self, max_terms: int, tolerance: float) -> tuple[Formula, tuple[float, ...]]:
        """The shortest and simplest formula nearly as good as the best, and R² by length."""
        everything = self._best(range(len(self.pool.terms)), max_terms)
        scores = [self._chosen_r2(formula) for formula in everything]
        length = next(k for k, r2 in enumerate(scores) if r2 >= max(scores) - tolerance)
        for kinds in SIMPLE:
            simple = [k for k, term in enumerate(self.pool.terms) if term.kind in kinds]
            formulas = self._best(simple, length + 1)
            if len(formulas) > length and (
                self._chosen_r2(formulas[length]) >= scores[length] - AS_GOOD
            ):
                return formulas[length], tuple(scores)
        return everything[length], tuple(scores)

    def tell(self, formula: Formula, n_bootstraps: int) -> tuple[float, float]:
        """R² on the last part and its standard error."""
        b = coefficients(*self._correlations, formula)
        resampled = [_r2(m, formula, b) for m in self._resampled(self.telling, n_bootstraps)]
        return _r2(self.telling.sum(0), formula, b), float(np.std(resampled, ddof=1))

    def tell_all(self) -> float:
        """R² on the last part of all terms, by relevance determination."""
        posterior = determine(*self._correlations, self.n_finding)
        return _r2(self.telling.sum(0), posterior.index, posterior.mean)

    def describe(self, formula: Formula, n_bootstraps: int) -> tuple[ExplainedTerm, ...]:
        """Each term of a formula for the standardised target, the terms in their own units."""
        s = list(formula)
        resampled = [_correlations(m) for m in self._resampled(self.finding, n_bootstraps)]
        spread = np.std([coefficients(*pair, s) for pair in resampled], axis=0, ddof=1)
        picked = [set(best_subset(*pair, len(s), starts=[s])) for pair in resampled]
        posterior = self._posterior(s)
        found = []
        for i, k in enumerate(s):
            added, others = self._stand_ins(formula, k)
            any_of = {k, *(j for j, _ in others)}
            scale = self.pool.deviation[k]
            found.append(
                ExplainedTerm(
                    term=self.pool.terms[k],
                    coefficient=float(posterior.mean[i] / scale),
                    error=float(posterior.errors[i] / scale),
                    bootstrap_error=float(spread[i] / scale),
                    standardised=float(posterior.mean[i]),
                    added=added,
                    inclusion=float(np.mean([k in best for best in picked])),
                    inclusion_of_any=float(np.mean([bool(any_of & best) for best in picked])),
                    stand_ins=self._named(k, others),
                )
            )
        return tuple(found)

    @cached_property
    def _correlations(self) -> tuple[Array, Array]:
        return _correlations(self.finding.sum(0))

    def _posterior(self, formula: Sequence[int]) -> Relevance:
        gram, cross = self._correlations
        s = list(formula)
        return determine(gram[np.ix_(s, s)], cross[s], self.n_finding, prune=False)

    def _best(self, among: Sequence[int], max_terms: int) -> list[Formula]:
        """The best formula of each length that is made of these terms."""
        if not len(among):
            return []
        index = np.asarray(among, dtype=np.int64)
        gram, cross = self._correlations[0][np.ix_(index, index)], self._correlations[1][index]
        relevant = determine(gram, cross, self.n_finding).index
        sizes = range(1, min(max_terms, len(index)) + 1)
        found = [best_subset(gram, cross, size, starts=[relevant]) for size in sizes]
        return [tuple(index[list(formula)].tolist()) for formula in found]

    def _stand_ins(self, formula: Formula, k: int) -> tuple[float, list[tuple[int, float]]]:
        """What a term adds to R², and the terms that add nearly as much in its place."""
        rest = tuple(j for j in formula if j != k)
        without = self._chosen_r2(rest)
        added = self._chosen_r2(formula) - without
        if added <= 0:
            return added, []
        others = [j for j in range(len(self.pool.terms)) if j not in formula]
        shares = [(j, (self._chosen_r2((*rest, j)) - without) / added) for j in others]
        good = [(j, share) for j, share in shares if share >= STANDS_IN]
        return added, sorted(good, key=lambda item: -item[1])

    def _named(self, k: int, others: Sequence[tuple[int, float]]) -> tuple[StandIn, ...]:
        """Names that stand in, without the other wells of a well: they tell by their absence."""
        terms = self.pool.terms
        named = [(term, 1.0) for term in self.pool.aliases[k]]
        named += [(terms[j], share) for j, share in others]
        return tuple(
            StandIn(term.name, share) for term, share in named if not term.same_wells(terms[k])
        )

    def _chosen_r2(self, formula: Formula) -> float:
        return _r2(self.choosing, formula, coefficients(*self._correlations, formula))

    def _resampled(self, groups: Array, n: int) -> Array:
        """Moments of `n` resamplings of the groups."""
        generator = np.random.default_rng(self.seed)
        counts = generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=n)
        return to_array(np.tensordot(counts.astype(np.float64), groups, axes=1))


def split(n: int, *, seed: int) -> list[IntArray]:
    """Rows to find formulas with, to choose with, and to tell R² with."""
    order = np.random.default_rng(seed).permutation(n)
    return np.split(order, np.round(np.cumsum(SHARES[:-1]) * n).astype(int))


def _correlations(moments: Array) -> tuple[Array, Array]:
    """Covariances of the terms, and with the target, of unnormalised moments."""
    normalised = moments / moments[0, 0]
    mean = normalised[0, 1:]
    covariance = normalised[1:, 1:] - np.outer(mean, mean)
    return covariance[:-1, :-1], covariance[:-1, -1]


def _r2(moments: Array, formula: Formula, b: Array) -> float:
    """Share of the target's variance that a formula explains, on a part of the samples."""
    normalised = moments / moments[0, 0]
    at = [k + 1 for k in formula]
    left = normalised[-1, -1] - 2 * normalised[-1, at] @ b + b @ normalised[np.ix_(at, at)] @ b
    variance = normalised[-1, -1] - normalised[0, -1] ** 2
    return float(1 - left / variance) if variance > 0 else 0.0
