"""Explaining a collective variable: the shortest formula in chemical words that says what it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gencg.analysis.descriptors import IntArray, Term
from gencg.analysis.histogram import Array, to_array
from gencg.analysis.sparse_bayes import (
    best_subset,
    coefficients,
    relevance_determination,
)
from gencg.analysis.terms import KINDS, Terms, candidate_terms

FEWEST = 200
"""Effective samples below which no formula is looked for."""
SHARES = (0.6, 0.2, 0.2)
"""Of the samples: to find formulas with, to choose among them with, and to tell R² with."""
SAME = 0.999
"""Correlation from which two terms are one under two names."""
AS_GOOD = 0.005
"""Loss of R² that a formula of simpler terms and the same length is worth."""
STANDS_IN = 0.9
"""Share of what a term adds that another must add in its place to stand in for it."""
CARRIED = 10.0
"""Effective samples that must carry the variance of a term, and should that of a CV."""
_FIRST, _FURTHER, _GROUPS = 40, 15, 100
"""Terms screened by correlation, further ones by what is left, groups that are resampled."""


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


@dataclass(frozen=True)
class Explanation:
    r"""A collective variable in chemical words, or the answer that there is no short formula.

    .. math:: \xi \approx c_0 + \sum_j c_j u_j, \qquad
              R^2 = 1 - \frac{E[(\xi - c_0 - \sum_j c_j u_j)^2]}{\mathrm{Var}[\xi]}

    Attributes:
        name: Of the collective variable.
        terms: The best formula with few terms, the most important first, even where it says too
            little.
        constant: :math:`c_0`.
        deviation: Standard deviation of the CV.
        r2: :math:`R^2` on samples that had no part in finding or choosing the formula.
        r2_error: Its standard error, by resampling.
        r2_of_all: The same of all screened terms together: what terms can say at all.
        r2_by_length: :math:`R^2` of the best formula of each length, on the samples it was chosen
            with.
        n_effective: Effective number of samples.
        n_carrying: Effective number of samples that carry the variance of the CV.
        n_candidates: Terms to choose from.
        n_screened: Terms left by the screening.
        max_terms: Terms allowed.
        tolerance: Loss of :math:`R^2` that a shorter formula is worth.
        min_r2: :math:`R^2` that a formula must reach.
    """

    name: str
    terms: tuple[ExplainedTerm, ...]
    constant: float
    deviation: float
    r2: float
    r2_error: float
    r2_of_all: float
    r2_by_length: tuple[float, ...]
    n_effective: float
    n_carrying: float
    n_candidates: int
    n_screened: int
    max_terms: int
    tolerance: float
    min_r2: float

    @property
    def found(self) -> bool:
        """Whether there is a short formula: R² high enough, and beyond doubt above zero."""
        return self.r2 >= self.min_r2 and self.r2 > 2 * self.r2_error

    @property
    def attempt(self) -> str:
        """The best short formula, whatever it is worth."""
        text = ""
        for item in self.terms:
            c = item.coefficient
            sign = ("-" if c < 0 else "") if not text else (" - " if c < 0 else " + ")
            unit = f"/{item.term.unit}" if item.term.unit else ""
            text += f"{sign}{_number(abs(c), item.error)}{unit} {item.term.name}"
        if abs(self.constant) < 0.005 * self.deviation:
            return text
        return f"{text} {'-' if self.constant < 0 else '+'} {_number(abs(self.constant))}"

    @property
    def formula(self) -> str:
        """The formula, or "no short formula"."""
        return self.attempt if self.found else "no short formula"

    @property
    def verdict(self) -> str:
        """What the formula is worth, in a sentence."""
        n = len(self.terms)
        one = n == 1
        held_out = f"R² {self.r2:.3f} ± {self.r2_error:.3f} on held-out samples"
        if self.found:
            text = f"{n} term{'' if one else 's'}, {held_out}"
        else:
            text = (
                f"the best formula of {n} term{'' if one else 's'} has {held_out}, below "
                f"{self.min_r2:g}; all {self.n_screened} screened terms together have "
                f"{self.r2_of_all:.3f}"
            )
        if self.n_carrying < CARRIED:
            text += f"; only {self.n_carrying:.0f} samples carry it, do not rely on it"
        return text

    def evaluate(self, terms: Terms) -> Array:
        """Values of the formula for the samples of `terms`, ``(n,)``."""
        number = {term.name: k for k, term in enumerate(terms.candidates)}
        index = [number[item.term.name] for item in self.terms]
        c = np.array([item.coefficient for item in self.terms])
        return to_array(self.constant + terms.values(index) @ c)

    def numbers(self) -> dict[str, Any]:
        """Everything as plain values."""
        own = {key: value for key, value in vars(self).items() if key != "terms"}
        rows = []
        for item in self.terms:
            row = {key: value for key, value in vars(item).items() if key != "term"}
            stand_ins = [vars(other) for other in item.stand_ins]
            rows.append({**vars(item.term), **row, "stand_ins": stand_ins})
        said = {"found": self.found, "formula": self.formula, "attempt": self.attempt}
        return {**own, **said, "verdict": self.verdict, "terms": rows}

    def __str__(self) -> str:
        known = f"{self.name} = {self.formula}" if self.found else f"{self.name}: {self.formula}"
        lines = [known, f"  {self.verdict}"]
        if not self.found:
            lines.append(f"  {self.attempt}")
        for item in self.terms:
            sure = f"in {item.inclusion:.0%} of resamplings"
            if item.stand_ins:
                others = ", ".join(other.name for other in item.stand_ins[:3])
                sure += f"; could be {others} as well (any: {item.inclusion_of_any:.0%})"
            lines.append(
                f"    {item.term.name}: {item.coefficient:.4g} ± {item.error:.2g}, adds "
                f"{item.added:.3f} to R², {sure}"
            )
        return "\n".join(lines)


def explain(
    samples: Any,
    values: Any,
    *,
    name: str = "CV",
    max_terms: int = 4,
    tolerance: float = 0.03,
    min_r2: float = 0.8,
    n_bootstraps: int = 100,
    seed: int = 0,
) -> Explanation:
    r"""Write a collective variable as a short sum of named terms, or say that this cannot be.

    The samples are split in three before anything is looked at. On 60 %:

    1. Thousands of terms (`candidate_terms`) are screened: those most correlated with the CV,
       then those most correlated with what the best short formulas leave.
    2. Terms that are the same (correlation above 0.999) are kept under the simplest name.
    3. The best formula of each length up to `max_terms` is found by sequential replacement, from
       nothing and from the terms that automatic relevance determination leaves (`best_subset`,
       `relevance_determination`).

    The next 20 % choose: the fewest terms within `tolerance` of the best R²; of this length, torsions
    and wells before products, these before distances and the rest, where that costs no more than
    0.005. The last 20 % tell R². Coefficients and their posterior errors are those of relevance determination
    with the chosen terms; the effective number of samples is what counts in them. The search for
    the best formula of the chosen length is repeated on resamplings of the first part, which
    gives the inclusion probabilities. A term that another one could replace (it adds nine tenths
    as much in its place) is told with the other's name.

    Args:
        samples: `Ensemble`, or `Terms` made of one, of positions or of trajectories.
        values: The collective variable, ``(n,)``, for all samples of the ensemble. For an angle
            see `explain_angle`.
        name: What to call it.
        max_terms: Terms at most; more than about four are no explanation.
        tolerance: Loss of R² that one term less is worth.
        min_r2: R² below which the answer is that there is no short formula.
        n_bootstraps: Resamplings.
        seed: Seed of the split and of the resamplings.

    Raises:
        ValueError: If the values have the wrong shape, are not finite, or do not vary, or there
            are too few effective samples, or an option is out of its range.
    """
    _check_options(max_terms, tolerance, min_r2, n_bootstraps)
    terms = samples if isinstance(samples, Terms) else candidate_terms(samples)
    target = _checked_target(values, terms)
    parts = _split(len(target), seed)
    fit = parts[0]
    w = terms.weights[fit] / terms.weights[fit].sum()
    centre = w @ target[fit]
    scale = np.sqrt(w @ (target[fit] - centre) ** 2)
    if not scale > 0:
        raise ValueError("`values` must vary among the samples a formula is fitted to; draw more")
    t = (target - centre) / scale
    pool = _screen(terms, fit, w, t[fit], max_terms)
    search = _Search.over(terms, pool, t, parts, seed)
    chosen, by_length = search.choose(max_terms, tolerance)
    r2, r2_error = search.tell(chosen, n_bootstraps)
    found = search.describe(chosen, n_bootstraps, to_cv=scale)
    constant = centre - sum(
        item.coefficient * pool.mean[k] for k, item in zip(chosen, found, strict=True)
    )
    order = sorted(found, key=lambda item: -abs(item.standardised))
    fourth = float(w @ t[fit] ** 4)
    return Explanation(
        name=name,
        terms=tuple(order),
        constant=float(constant),
        deviation=float(scale),
        r2=r2,
        r2_error=r2_error,
        r2_of_all=search.of_all(),
        r2_by_length=by_length,
        n_effective=terms.n_effective,
        n_carrying=terms.n_effective / fourth,
        n_candidates=len(terms),
        n_screened=len(pool.index),
        max_terms=max_terms,
        tolerance=tolerance,
        min_r2=min_r2,
    )


def explain_angle(
    samples: Any, angle: Any, *, name: str = "CV", **options: Any
) -> tuple[Explanation, Explanation]:
    """Explain a collective variable on the circle by its cos and its sin.

    Args:
        samples: As in `explain`.
        angle: Values in rad, ``(n,)``.
        name: What to call it.
        options: As in `explain`.
    """
    terms = samples if isinstance(samples, Terms) else candidate_terms(samples)
    angle = to_array(angle)
    cosine = explain(terms, np.cos(angle), name=f"cos {name}", **options)
    return cosine, explain(terms, np.sin(angle), name=f"sin {name}", **options)


@dataclass(frozen=True, eq=False)
class _Pool:
    """Screened terms: their numbers, mean and deviation, and other names of each."""

    index: IntArray
    mean: Array
    deviation: Array
    aliases: tuple[tuple[Term, ...], ...]


def _screen(terms: Terms, rows: IntArray, w: Array, t: Array, max_terms: int) -> _Pool:
    """Terms worth a search, found on the fitted samples alone."""
    mean, deviation, cross = np.zeros((3, len(terms)))
    usable = np.zeros(len(terms), dtype=bool)
    for part, u in terms.blocks(rows):
        mean[part] = w @ u
        squares = (u - mean[part]) ** 2
        variance = w @ squares
        deviation[part] = np.sqrt(variance)
        # Effective samples behind the variance: of a rare state, those in it
        carried = variance**2 / np.maximum(w @ squares**2, 1e-300) / (w @ w)
        usable[part] = (deviation[part] > 1e-6) & (carried >= CARRIED)
        cross[part] = (w * t) @ u
    if not usable.any():
        raise ValueError("`samples` must have a term that varies; all are the same in all samples")
    scale = np.where(usable, deviation, np.inf)

    def ranked(cross: Array) -> IntArray:
        order = np.argsort(-np.abs(cross) / scale, kind="stable")
        return order[: int(usable.sum())]

    limit = _FIRST + _FURTHER * max_terms
    few = usable.sum() <= limit
    chosen = ranked(cross)[: limit if few else _FIRST].tolist()
    for size in range(1, 1 if few else max_terms + 1):
        u = (terms.values(chosen)[rows] - mean[chosen]) / deviation[chosen]
        gram, with_target = u.T @ (w[:, None] * u), u.T @ (w * t)
        best = list(best_subset(gram, with_target, size))
        left = t - u[:, best] @ coefficients(gram, with_target, best)
        for part, values in terms.blocks(rows):
            cross[part] = (w * left) @ values - (w @ left) * mean[part]
        new = [k for k in ranked(cross).tolist() if k not in set(chosen)]
        chosen += new[:_FURTHER]
    return _named_once(terms, rows, w, np.array(chosen), mean, deviation)


def _named_once(
    terms: Terms, rows: IntArray, w: Array, index: IntArray, mean: Array, deviation: Array
) -> _Pool:
    """Of terms that are the same the simplest one, with the names of the others."""

    def complexity(k: int) -> tuple[int, float, int]:
        kind = terms.candidates[k].kind
        # Of two wells that make up the circle, the smaller
        return (KINDS.index(kind) if kind in KINDS else -1, mean[k] * (kind == "well"), k)

    index = np.array(sorted(index.tolist(), key=complexity))
    u = (terms.values(index)[rows] - mean[index]) / deviation[index]
    same = np.abs(u.T @ (w[:, None] * u)) > SAME
    names = [terms.candidates[k] for k in index]
    kept: list[int] = []
    aliases: dict[int, list[Term]] = {}
    for k in range(len(index)):
        first = next((j for j in kept if same[j, k]), None)
        if first is None:
            kept.append(k)
            aliases[k] = []
        else:
            aliases[first] += [names[k]] if not names[k].same_wells(names[first]) else []
    index = index[kept]
    return _Pool(
        index, mean[index], deviation[index], tuple(tuple(aliases[k]) for k in kept)
    )


@dataclass(frozen=True, eq=False)
class _Search:
    """Moments of the screened terms and the target on each part of the samples.

    Terms and target are standardised on the fitted part; a matrix of moments holds E[z z^T] of
    z = (1, terms, target), unnormalised.
    """

    candidates: tuple[Term, ...]
    pool: _Pool
    groups: Array
    choosing: Array
    telling: Array
    n_fitted: float
    seed: int

    @classmethod
    def over(
        cls, terms: Terms, pool: _Pool, t: Array, parts: list[IntArray], seed: int
    ) -> "_Search":
        """Moments of all parts, the fitted and the last one in groups."""
        u = (terms.values(pool.index) - pool.mean) / pool.deviation
        z = np.concatenate([np.ones((len(u), 1)), u, t[:, None]], axis=1)
        w = terms.weights

        def moments(rows: IntArray) -> Array:
            return to_array(z[rows].T @ (w[rows, None] * z[rows]))

        fit, choose, tell = parts
        return cls(
            tuple(terms.candidates[k] for k in pool.index),
            pool,
            np.stack([moments(rows) for rows in np.array_split(fit, _GROUPS)]),
            moments(choose),
            np.stack([moments(rows) for rows in np.array_split(tell, _GROUPS)]),
            float(w[fit].sum() ** 2 / (w[fit] ** 2).sum()),
            seed,
        )

    @cached_property
    def fitted(self) -> tuple[Array, Array]:
        """Correlations of the terms, and with the target."""
        return _correlations(self.groups.sum(0))

    def choose(self, max_terms: int, tolerance: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The shortest formula within `tolerance` of the best, and R² by length."""
        formulas = [self._best(range(len(self.candidates)), max_terms)]
        for kinds in (("given", "torsion", "well"), ("given", "torsion", "well", "product")):
            simple = [k for k, term in enumerate(self.candidates) if term.kind in kinds]
            formulas.append(self._best(simple, max_terms))
        scores = [[self._chosen_r2(formula) for formula in family] for family in formulas]
        best = max(scores[0])
        length = next(k for k, r2 in enumerate(scores[0]) if r2 >= best - tolerance)
        for family, r2 in zip(formulas[1:], scores[1:], strict=True):
            if length < len(r2) and r2[length] >= scores[0][length] - AS_GOOD:
                return family[length], tuple(scores[0])
        return formulas[0][length], tuple(scores[0])

    def _best(self, among: Sequence[int], max_terms: int) -> list[tuple[int, ...]]:
        """The best formula of each length that is made of these terms."""
        among = np.asarray(among, dtype=np.int64)
        gram, cross = self.fitted[0][np.ix_(among, among)], self.fitted[1][among]
        if not len(among):
            return []
        relevant = relevance_determination(gram, cross, self.n_fitted).index
        found = [
            best_subset(gram, cross, size, starts=[relevant])
            for size in range(1, min(max_terms, len(among)) + 1)
        ]
        return [tuple(among[list(formula)].tolist()) for formula in found]

    def tell(self, chosen: tuple[int, ...], n_bootstraps: int) -> tuple[float, float]:
        """R² on the last part and its standard error."""
        b = coefficients(*self.fitted, chosen)
        resampled = [_r2(m, chosen, b) for m in self._resampled(self.telling, n_bootstraps)]
        return _r2(self.telling.sum(0), chosen, b), float(np.std(resampled, ddof=1))

    def of_all(self) -> float:
        """R² on the last part of all screened terms, by relevance determination."""
        posterior = relevance_determination(*self.fitted, self.n_fitted)
        return _r2(self.telling.sum(0), posterior.index, posterior.mean)

    def describe(
        self, chosen: tuple[int, ...], n_bootstraps: int, *, to_cv: float
    ) -> list[ExplainedTerm]:
        """Coefficients, errors, inclusion and other names of the chosen terms."""
        gram, cross = self.fitted
        s = list(chosen)
        posterior = relevance_determination(
            gram[np.ix_(s, s)], cross[s], self.n_fitted, prune=False
        )
        resampled = [_correlations(m) for m in self._resampled(self.groups, n_bootstraps)]
        spread = np.std([coefficients(*pair, chosen) for pair in resampled], axis=0, ddof=1)
        picked = [set(best_subset(*pair, len(s), starts=[chosen])) for pair in resampled]
        factor = to_cv / self.pool.deviation[s]
        found = []
        for i, k in enumerate(s):
            added, others = self._stand_ins(chosen, k)
            any_of = {k, *(j for j, _ in others)}
            stand_ins = [StandIn(term.name, 1.0) for term in self.pool.aliases[k]]
            stand_ins += [
                StandIn(self.candidates[j].name, share)
                for j, share in others
                # The other wells of the same torsions say the same by their absence
                if not self.candidates[j].same_wells(self.candidates[k])
            ]
            found.append(
                ExplainedTerm(
                    term=self.candidates[k],
                    coefficient=float(posterior.mean[i] * factor[i]),
                    error=float(posterior.errors[i] * factor[i]),
                    bootstrap_error=float(spread[i] * factor[i]),
                    standardised=float(posterior.mean[i]),
                    added=added,
                    inclusion=float(np.mean([k in best for best in picked])),
                    inclusion_of_any=float(np.mean([bool(any_of & best) for best in picked])),
                    stand_ins=tuple(stand_ins),
                )
            )
        return found

    def _stand_ins(
        self, chosen: tuple[int, ...], k: int
    ) -> tuple[float, list[tuple[int, float]]]:
        """What a term adds to R², and the terms that add nearly as much in its place."""
        rest = tuple(j for j in chosen if j != k)
        without = self._chosen_r2(rest)
        added = self._chosen_r2(chosen) - without
        if added <= 0:
            return added, []
        others = [j for j in range(len(self.candidates)) if j not in chosen]
        shares = [(j, (self._chosen_r2((*rest, j)) - without) / added) for j in others]
        good = [(j, share) for j, share in shares if share >= STANDS_IN]
        return added, sorted(good, key=lambda item: -item[1])

    def _chosen_r2(self, formula: tuple[int, ...]) -> float:
        return _r2(self.choosing, formula, coefficients(*self.fitted, formula))

    def _resampled(self, groups: Array, n: int) -> Array:
        """Moments of `n` resamplings of the groups."""
        generator = np.random.default_rng(self.seed + 1)
        counts = generator.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=n)
        return to_array(np.tensordot(counts.astype(np.float64), groups, axes=1))


def _correlations(moments: Array) -> tuple[Array, Array]:
    """Covariances of the terms, and with the target, of unnormalised moments."""
    normalised = moments / moments[0, 0]
    mean = normalised[0, 1:]
    covariance = normalised[1:, 1:] - np.outer(mean, mean)
    return covariance[:-1, :-1], covariance[:-1, -1]


def _r2(moments: Array, formula: tuple[int, ...], b: Array) -> float:
    """Share of the target's variance that a formula explains, on a part of the samples."""
    normalised = moments / moments[0, 0]
    at = [k + 1 for k in formula]
    left = normalised[-1, -1] - 2 * normalised[-1, at] @ b + b @ normalised[np.ix_(at, at)] @ b
    variance = normalised[-1, -1] - normalised[0, -1] ** 2
    return float(1 - left / variance) if variance > 0 else 0.0


def _split(n: int, seed: int) -> list[IntArray]:
    """Rows to fit with, to choose with, and to tell with."""
    order = np.random.default_rng(seed).permutation(n)
    ends = np.cumsum(np.round(np.array(SHARES[:-1]) * n)).astype(int)
    return np.split(order, ends)


def _checked_target(values: Any, terms: Terms) -> Array:
    values = to_array(values)
    if values.shape != (terms.n_given,):
        raise ValueError(
            f"`values` must have shape ({terms.n_given},), one number per sample, got "
            f"{values.shape}; explain several collective variables one by one"
        )
    values = values[terms.rows]
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(
            f"`values` must be finite for every sample with weight, got {values[bad[0]]} for "
            f"sample {terms.rows[bad[0]]} and {bad.size} in all; give these a log weight of -inf"
        )
    if terms.n_effective < FEWEST:
        raise ValueError(
            f"`samples` must hold at least {FEWEST} effective samples, got "
            f"{terms.n_effective:.0f} of {terms.n_given:,}; draw more"
        )
    if np.ptp(values) <= 1e-9 * max(np.abs(values).max(), 1e-300):
        raise ValueError(
            f"`values` must vary, got {values[0]:.6g} for every sample: there is nothing to "
            "explain"
        )
    return values


def _check_options(max_terms: int, tolerance: float, min_r2: float, n_bootstraps: int) -> None:
    if max_terms < 1:
        raise ValueError(f"`max_terms` must be at least 1, got {max_terms}")
    for name, value in (("tolerance", tolerance), ("min_r2", min_r2)):
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` must lie in [0, 1), got {value}")
    if n_bootstraps < 2:
        raise ValueError(f"`n_bootstraps` must be at least 2, got {n_bootstraps}")


def _number(value: float, error: float = 0.0) -> str:
    """A positive number to three digits, or to two where its error is above half a percent."""
    digits = 2 if error > 0.005 * value else 3
    text = f"{value:#.{digits}g}"
    return text.rstrip(".") if "e" not in text else f"{value:.{digits}g}"
