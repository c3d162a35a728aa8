"""Explaining a collective variable: the shortest formula in chemical words that says what it is."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gencg import html
from gencg.analysis.formulas import ExplainedTerm, Search, split
from gencg.analysis.histogram import Array, to_array
from gencg.analysis.screening import CARRIED, screen
from gencg.analysis.terms import Terms, candidate_terms

FEWEST = 200
"""Effective samples below which no formula is looked for."""


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
            text += f"{sign}{_number(abs(c), item.uncertainty)}{unit} {item.term.name}"
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

    def _repr_html_(self) -> str:
        rows = [("formula", self.formula)]
        if not self.found:
            rows.append(("best attempt", self.attempt))
        rows += [
            (item.term.name, f"{item.coefficient:.4g} ± {item.uncertainty:.2g}, in "
             f"{item.inclusion_of_any:.0%} of resamplings")
            for item in self.terms
        ]  # fmt: skip
        level = "good" if self.found and self.n_carrying >= CARRIED else "fair"
        return html.card(self.name, rows, verdicts=[(level, self.verdict)])

    @property
    def is_itself(self) -> bool:
        """Whether the formula only says the name again: a torsion of the molecule is explained.

        Never where too few samples carry it, which the verdict has to tell.
        """
        if not self.found or self.n_carrying < CARRIED or len(self.terms) != 1:
            return False
        (item,), bare = self.terms, str.maketrans("", "", "()")
        named = item.term.name.translate(bare) == self.name.translate(bare)
        off = max(abs(item.coefficient - 1), abs(self.constant) / self.deviation)
        return named and off < 0.005

    def __str__(self) -> str:
        known = f"{self.name} = {self.formula}" if self.found else f"{self.name}: {self.formula}"
        lines = [known, f"  {self.verdict}"]
        if not self.found:
            lines.append(f"  {self.attempt}")
        for item in self.terms:
            line = f"    {item.term.name}: {item.coefficient:.4g} ± {item.uncertainty:.2g}, adds "
            line += f"{item.added:.3f} to R², in {item.inclusion:.0%} of resamplings"
            if item.stand_ins:
                near = ", ".join(f"{s.name} ({s.share:.0%})" for s in item.stand_ins[:3])
                line += f"; nearly the same: {near}; one of them in {item.inclusion_of_any:.0%}"
            lines.append(line)
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

    The samples are split in three before anything is looked at.

    On 60 % formulas are found. Of thousands of terms (`candidate_terms`) those are kept that
    explain the CV, or what short formulas leave of it (`screen`); terms that are the same stand
    under the simplest name. The best formula of each length is found by sequential replacement,
    from nothing and from what automatic relevance determination leaves (`best_subset`).

    On 20 % one is chosen: the fewest terms within `tolerance` of the best R², and among formulas
    of this length torsions and wells before products, these before distances and the rest, where
    that costs no more than 0.005.

    On the last 20 % its R² is told.

    Coefficients and their posterior errors are those of relevance determination on the first part
    (`relevance_determination`), where the effective number of samples counts. The search for the
    best formula of the chosen length is repeated on resamplings of that part: how often a term
    comes again is its inclusion probability. A term that another could replace, one that adds nine
    tenths as much in its place, is told with the other's name.

    Args:
        samples: `Ensemble`, or `Terms` made of one, of positions or of trajectories.
        values: The collective variable, ``(n,)``, for all samples. For an angle see
            `explain_angle`.
        name: What to call it.
        max_terms: Terms at most; more than about four explain nothing to anyone.
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
    parts = split(len(target), seed=seed)
    first = terms.select(parts[0])
    centre = float(first.weights @ target[parts[0]])
    t = target - centre
    deviation = float(np.sqrt(first.weights @ t[parts[0]] ** 2))
    if not deviation > 0:
        raise ValueError("`values` must vary among the samples with weight; draw more samples")
    t = t / deviation
    pool = screen(first, t[parts[0]], max_terms)
    search = Search.over(terms, pool, t, parts, seed=seed + 1)
    formula, by_length = search.choose(max_terms, tolerance)
    r2, r2_error = search.tell(formula, n_bootstraps)
    found = [_rescaled(item, deviation) for item in search.describe(formula, n_bootstraps)]
    means = [float(pool.mean[k]) for k in formula]
    constant = centre - sum(item.coefficient * m for item, m in zip(found, means, strict=True))
    return Explanation(
        name=name,
        terms=tuple(sorted(found, key=lambda item: -abs(item.standardised))),
        constant=constant,
        deviation=deviation,
        r2=r2,
        r2_error=r2_error,
        r2_of_all=search.tell_all(),
        r2_by_length=by_length,
        n_effective=terms.n_effective,
        n_carrying=terms.n_effective / float(first.weights @ t[parts[0]] ** 4),
        n_candidates=len(terms),
        n_screened=len(pool.terms),
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


def _rescaled(item: ExplainedTerm, factor: float) -> ExplainedTerm:
    """A term for a target that is `factor` times as large."""
    return replace(
        item,
        coefficient=item.coefficient * factor,
        error=item.error * factor,
        bootstrap_error=item.bootstrap_error * factor,
    )


def _checked_target(values: Any, terms: Terms) -> Array:
    given = to_array(values)
    if given.shape != (terms.n_given,):
        raise ValueError(
            f"`values` must have shape ({terms.n_given},), one number per sample, got "
            f"{given.shape}; explain several collective variables one by one"
        )
    target = given[terms.rows]
    bad = np.flatnonzero(~np.isfinite(target))
    if bad.size:
        raise ValueError(
            f"`values` must be finite for every sample with weight, got {target[bad[0]]} for "
            f"sample {terms.rows[bad[0]]} and {bad.size} such in all; give these a log weight of "
            "-inf"
        )
    if terms.n_effective < FEWEST:
        raise ValueError(
            f"`samples` must hold at least {FEWEST} effective samples, got "
            f"{terms.n_effective:.0f} of {terms.n_given:,}; draw more"
        )
    if np.ptp(target) <= 1e-9 * max(float(np.abs(target).max()), 1e-300):
        raise ValueError(
            f"`values` must vary, got {target[0]:.6g} for every sample: a constant needs no "
            "explanation"
        )
    return target


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
