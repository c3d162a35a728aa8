r"""Sparse linear regression on moments: relevance determination, and the best few terms.

Everything needs only the weighted correlations :math:`C_{jk} = E[u_j u_k]` of standardised terms
and :math:`c_j = E[u_j t]` with the standardised target t, and the effective number of samples
behind them. Resampling is then a matter of adding moments up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gencg.analysis.histogram import Array, to_array

IRRELEVANT = 1e6
"""Relevance above which a term is given up: its prior width is a thousandth of the target's."""
_FLOOR = 1e-12
_COLLINEAR = 1e-5


@dataclass(frozen=True)
class Relevance:
    r"""Posterior of the coefficients under automatic relevance determination.

    Attributes:
        index: The terms that are left, ``(m,)``.
        mean: Their coefficients, ``(m,)``.
        covariance: Of these, ``(m, m)``.
        noise: Variance of what is left of the target.
    """

    index: tuple[int, ...]
    mean: Array
    covariance: Array
    noise: float

    @property
    def errors(self) -> Array:
        """Posterior standard errors, ``(m,)``."""
        return np.asarray(np.sqrt(np.diag(self.covariance)), dtype=np.float64)


def relevance_determination(
    gram: Array,
    cross: Array,
    n: float,
    *,
    prune: bool = True,
    max_iterations: int = 300,
    tolerance: float = 1e-3,
) -> Relevance:
    r"""Bayesian regression with a prior width of its own for each coefficient.

    .. math:: t = u^T b + \epsilon, \qquad \epsilon \sim N(0, \sigma^2), \qquad
              b_j \sim N(0, 1/\alpha_j)

    With :math:`\Sigma = (\mathrm{diag}\,\alpha + n C / \sigma^2)^{-1}` and :math:`\mu = n \Sigma c
    / \sigma^2`, the evidence is raised by

    .. math:: \gamma_j = 1 - \alpha_j \Sigma_{jj}, \qquad \alpha_j = \gamma_j / \mu_j^2, \qquad
              \sigma^2 = n\, E[(t - u^T \mu)^2] \,/\, (n - \textstyle\sum_j \gamma_j)

    and a term whose :math:`\alpha_j` runs away is given up. n is the effective number of samples,
    so that weights count as much as they are worth.

    Args:
        gram: Correlations of the terms, ``(p, p)``.
        cross: Their correlations with the target, ``(p,)``.
        n: Effective number of samples.
        prune: Give up irrelevant terms.
        max_iterations: Rounds at most.
        tolerance: Largest change of a coefficient at which it ends.

    References:
        | Sparse Bayesian learning and the relevance vector machine (Tipping, 2001)
        | https://www.jmlr.org/papers/v1/tipping01a.html
    """
    kept = np.arange(len(cross))
    alpha = np.ones(len(cross))
    # Before anything is explained
    noise = 0.1
    mean = np.zeros(len(cross))
    for _ in range(max_iterations):
        c, g = cross[kept], gram[np.ix_(kept, kept)]
        covariance = np.linalg.inv(np.diag(alpha) + n / noise * g)
        new = n / noise * (covariance @ c)
        gamma = np.clip(1 - alpha * np.diag(covariance), _FLOOR, 1.0)
        left = max(float(1 - 2 * new @ c + new @ g @ new), _FLOOR)
        noise = n * left / max(n - gamma.sum(), 1.0)
        alpha = gamma / np.maximum(new**2, _FLOOR)
        change = np.abs(new - mean).max(initial=0.0)
        mean = new
        stays = alpha < IRRELEVANT
        if prune and not stays.all():
            kept, alpha, mean = kept[stays], alpha[stays], mean[stays]
        elif change < tolerance:
            break
    c, g = cross[kept], gram[np.ix_(kept, kept)]
    covariance = np.linalg.inv(np.diag(alpha) + n / noise * g)
    mean = n / noise * (covariance @ c)
    return Relevance(tuple(kept.tolist()), mean, to_array(covariance), noise)


def best_subset(
    gram: Array, cross: Array, size: int, *, starts: Iterable[Sequence[int]] = ()
) -> tuple[int, ...]:
    """The terms, `size` of them, that leave least of the target: sequential replacement.

    Terms are added one at a time, and after each the others are exchanged one at a time, as long
    as that helps; so are those of `starts`, thinned to the size first. The best is returned. It is
    the exhaustive answer in most cases, at the price of a few products.

    Args:
        gram: Correlations of the terms, ``(p, p)``.
        cross: Their correlations with the target, ``(p,)``.
        size: How many.
        starts: Sets to start from as well.

    Returns:
        Their numbers, sorted; fewer where the terms are collinear.

    References:
        | Subset Selection in Regression (Miller, 2002), ch. 3
    """
    candidates = [_exchanged(gram, cross, _thinned(gram, cross, start, size)) for start in starts]
    chosen: list[int] = []
    while len(chosen) < size:
        gains = _gains(gram, cross, chosen)
        if gains.max(initial=-np.inf) <= 0:
            break
        chosen = _exchanged(gram, cross, [*chosen, int(gains.argmax())])
    candidates.append(chosen)
    best = max(candidates, key=lambda s: explained(gram, cross, s))
    return tuple(sorted(best))


def explained(gram: Array, cross: Array, chosen: Sequence[int]) -> float:
    """Share of the target's variance that least squares on these terms explains."""
    s = list(chosen)
    return float(cross[s] @ coefficients(gram, cross, s)) if s else 0.0


def coefficients(gram: Array, cross: Array, chosen: Sequence[int]) -> Array:
    """Coefficients of least squares on these terms."""
    s = list(chosen)
    return np.asarray(np.linalg.solve(gram[np.ix_(s, s)] + _FLOOR * np.eye(len(s)), cross[s]))


def gains(cross: Array, spread: Array, shared: Array, gram: Array, target: Array) -> Array:
    r"""What each term would explain beside those chosen, ``(p,)``; -1 for none.

    .. math:: \frac{(c_j - g_j^T G^{-1} c_S)^2}{C_{jj} - g_j^T G^{-1} g_j}

    Args:
        cross: Correlations :math:`c_j` of the terms with the target, ``(p,)``.
        spread: Their variances :math:`C_{jj}`, ``(p,)``.
        shared: Their correlations :math:`g_j` with the chosen terms, ``(p, m)``.
        gram: Correlations G of the chosen terms, ``(m, m)``.
        target: Those of these with the target, ``(m,)``.
    """
    if len(gram):
        beside = shared @ np.linalg.inv(gram + _FLOOR * np.eye(len(gram)))
        cross = cross - beside @ target
        spread = spread - (beside * shared).sum(1)
    found = np.where(spread > _COLLINEAR, cross**2 / np.maximum(spread, _COLLINEAR), -1.0)
    return np.asarray(found, dtype=np.float64)


def _gains(gram: Array, cross: Array, chosen: Sequence[int]) -> Array:
    s = list(chosen)
    found = gains(cross, np.diag(gram), gram[:, s], gram[np.ix_(s, s)], cross[s])
    found[s] = -1.0
    return found


def _exchanged(gram: Array, cross: Array, chosen: Sequence[int]) -> list[int]:
    """Exchange one term at a time for a better one until there is none."""
    s = list(chosen)
    best, improved = explained(gram, cross, s), True
    while improved:
        improved = False
        for k in list(s):
            rest = [j for j in s if j != k]
            candidate = [*rest, int(_gains(gram, cross, rest).argmax())]
            value = explained(gram, cross, candidate)
            if value > best + 1e-10:
                s, best, improved = candidate, value, True
    return s


def _thinned(gram: Array, cross: Array, chosen: Sequence[int], size: int) -> list[int]:
    """Leave out one term at a time, the one that costs least."""
    s = list(chosen)
    while len(s) > size:
        inverse = np.linalg.inv(gram[np.ix_(s, s)] + _FLOOR * np.eye(len(s)))
        b = inverse @ cross[s]
        s.pop(int((b**2 / np.diag(inverse)).argmin()))
    return s
