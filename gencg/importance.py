r"""Importance weights: effective sample size, log partition function, weighted averages.

Samples :math:`x_i \sim q` carry :math:`\log w_i = \log \tilde p(x_i) - \log q(x_i)`, with
:math:`\tilde p = Z p` unnormalised. A weight of zero, :math:`\log w_i = -\infty`, is a sample that
was drawn and does not count: it stays in n. Every average comes with its standard error, here by
the delta method, which trusts the largest weight seen: read it beside the Pareto shape
:math:`\hat k`, which asks how much larger the unseen ones may be.

References:
    | Simulating normalizing constants (Meng, Wong, 1996) and Monte Carlo theory (Owen, 2013), ch. 9
    | Pareto smoothed importance sampling (Vehtari, Simpson, Gelman, Yao, Gabry, 2024)
    | https://jmlr.org/papers/v25/19-556.html
"""

import math
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

GOOD_K, USABLE_K, UNRELIABLE_K = 0.5, 0.7, 1.0
"""Pareto shapes up to which weighted averages are good, usable and unreliable."""


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""Effective sample size as a fraction of the sample (Kish).

    .. math:: \mathrm{ESS} = \frac{(\sum_i w_i)^2}{n \sum_i w_i^2} \in [1/n, 1]

    It says how even the weights of the samples at hand are. A mode without a sample has no weight
    in it: the reverse ESS cannot see what is missing.

    Args:
        log_weights: Unnormalised :math:`\log w_i`, shape ``(n,)``.

    Returns:
        Scalar tensor; 0 if no sample has weight.

    A sample with all the weight of ten is worth one of them:

    >>> effective_sample_size(torch.tensor([0.0] + 9 * [-torch.inf]))
    tensor(0.1000)
    """
    _check(log_weights)
    if _all_zero(log_weights):
        return log_weights.new_zeros(())
    log_ess = 2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)
    return torch.exp(log_ess) / log_weights.shape[0]


def forward_effective_sample_size(log_weights_on_reference: Tensor) -> Tensor:
    r"""Effective sample size estimated with samples of the target (forward ESS).

    .. math:: \mathrm{ESS} = \frac{1}{E_p[w]\, E_p[1/w]}, \qquad w = \tilde p / q

    It equals the ESS of `effective_sample_size` for many samples, and it sees a missing mode.

    Args:
        log_weights_on_reference: :math:`\log \tilde p(x_i) - \log q(x_i)` at reference samples
            :math:`x_i \sim p`, shape ``(n,)``; infinite where q has no density, which gives 0.

    Returns:
        Scalar tensor in [0, 1].
    """
    log_w = log_weights_on_reference
    if log_w.ndim != 1 or log_w.shape[0] == 0:
        raise ValueError(
            f"`log_weights_on_reference` must have shape (n,) with n >= 1, got {tuple(log_w.shape)}"
        )
    if bool((log_w.isnan() | log_w.isneginf()).any()):
        raise ValueError("`log_weights_on_reference` must not hold nan or -inf: p(x) > 0 there")
    log_mean_product = torch.logsumexp(log_w, 0) + torch.logsumexp(-log_w, 0)
    return torch.exp(2 * math.log(log_w.shape[0]) - log_mean_product)


def truncated(log_weights: Tensor, *, largest: float | None = None) -> Tensor:
    r"""Weights that sum to one, none above `largest` times their mean before the cut.

    Args:
        log_weights: ``(n,)``; nan and -inf are no weight.
        largest: The cut; :math:`\sqrt n` by default.

    References:
        | Truncated importance sampling (Ionides, 2008), https://doi.org/10.1198/106186008X320456
    """
    n = len(log_weights)
    weights = torch.softmax(torch.where(log_weights.isnan(), -torch.inf, log_weights).double(), 0)
    weights = weights.clamp(max=(math.sqrt(n) if largest is None else largest) / n)
    return (weights / weights.sum()).to(log_weights.dtype)


def log_partition(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log partition function :math:`\log Z = \log \frac1n \sum_i w_i` and its standard error.

    .. math:: \mathrm{se}(\log \hat Z) = \sqrt{\frac{1/\mathrm{ESS} - 1}{n - 1}}

    Args:
        log_weights: :math:`\log w_i` with :math:`E[w] = Z`, shape ``(n,)``.

    Returns:
        Value and standard error, scalar tensors; ``(-inf, inf)`` if no sample has weight, and an
        infinite error for a single sample.

    Equal weights of 2 leave no doubt about Z = 2:

    >>> log_z, error = log_partition(torch.full((100,), 2.0).log())
    >>> round(float(log_z.exp()), 4), round(float(error), 4)
    (2.0, 0.0)
    """
    _check(log_weights)
    n = log_weights.shape[0]
    value = torch.logsumexp(log_weights, 0) - math.log(n)
    if n == 1 or _all_zero(log_weights):
        return value, log_weights.new_tensor(math.inf)
    relative_variance = (1 / effective_sample_size(log_weights) - 1).clamp(min=0)
    return value, torch.sqrt(relative_variance / (n - 1))


def log_partition_ratio(log_weights: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log ratio of two partition functions on the same samples, and its standard error.

    .. math:: \log \frac{Z'}{Z} = \log \frac{\sum_i w'_i}{\sum_i w_i}, \qquad
              \mathrm{se}^2 = \tfrac{n}{n-1} \sum_i (\tilde w'_i - \tilde w_i)^2

    with normalised weights :math:`\tilde w`: the weighted average of :math:`w'/w`, as exponential
    averaging has it, with the error of the delta method, in which what both weights share cancels.

    Args:
        log_weights: :math:`\log w'_i`, shape ``(n,)``.
        reference: :math:`\log w_i`, shape ``(n,)``.

    Returns:
        Value and standard error, scalar tensors; ``(-inf, inf)`` if no sample has weight
        :math:`w'`, and an infinite error for a single sample.

    Raises:
        ValueError: If the shapes differ, or no sample has weight :math:`w`.

    References:
        | High-temperature equation of state by a perturbation method (Zwanzig, 1954),
          https://doi.org/10.1063/1.1740409
    """
    _check(log_weights)
    _check(reference)
    n = log_weights.shape[0]
    if reference.shape[0] != n:
        raise ValueError(f"`reference` must have shape ({n},), got {tuple(reference.shape)}")
    if _all_zero(reference):
        raise ValueError("`reference` is all -inf: no sample counts, so there is no ratio")
    value = torch.logsumexp(log_weights, 0) - torch.logsumexp(reference, 0)
    if n == 1 or _all_zero(log_weights):
        return value, log_weights.new_tensor(math.inf)
    influence = torch.softmax(log_weights, 0) - torch.softmax(reference, 0)
    return value, torch.sqrt(n / (n - 1) * (influence**2).sum())


def weighted_average(values: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Self-normalised average over the target, with its standard error by the delta method.

    .. math:: \bar f = \sum_i \tilde w_i f_i, \quad
              \mathrm{se}^2 = \tfrac{n}{n-1} \sum_i \tilde w_i^2 (f_i - \bar f)^2, \quad
              \tilde w_i = w_i / \textstyle\sum_j w_j

    Args:
        values: :math:`f_i`, shape ``(n, *shape)``; bool counts as 0 and 1. Values of samples
            without weight are not read, they may be nan.
        log_weights: Unnormalised :math:`\log w_i`, shape ``(n,)``.

    Returns:
        Mean and standard error, each of shape ``(*shape,)``; the error is infinite for n = 1.

    Raises:
        ValueError: If the shapes differ or no sample has weight.
    """
    _check(log_weights)
    n = log_weights.shape[0]
    if values.ndim == 0 or values.shape[0] != n:
        raise ValueError(f"`values` must have shape ({n}, ...), got {tuple(values.shape)}")
    if _all_zero(log_weights):
        raise ValueError("`log_weights` are all -inf: no sample counts, so there is no average")
    w = torch.softmax(log_weights, 0).reshape(n, *[1] * (values.ndim - 1))
    values = values if values.is_floating_point() else values.to(w.dtype)
    values = torch.where(w > 0, values, torch.zeros_like(values))
    mean = (w * values).sum(0)
    variance = (w**2 * (values - mean) ** 2).sum(0)
    if n == 1:
        return mean, torch.full_like(mean, math.inf)
    return mean, torch.sqrt(variance * n / (n - 1))


def weighted_bootstrap_error(
    statistic: Callable[[Tensor, Tensor], Tensor],
    log_weights: Tensor,
    *,
    n_resamples: int = 200,
    seed: int = 0,
) -> Tensor:
    r"""Standard error of any statistic of weighted samples, by resampling them with replacement.

    Args:
        statistic: ``statistic(indices, log_weights[indices])`` evaluates the quantity on the
            samples at `indices`, shape ``(n,)``.
        log_weights: :math:`\log w_i`, shape ``(n,)``.
        n_resamples: Bootstrap samples; the error itself is known to 1 part in sqrt(2 n_resamples).
        seed: Seed of the resampling.

    Returns:
        Standard deviation over the resamples, of the statistic's shape.
    """
    _check(log_weights)
    if n_resamples < 2:
        raise ValueError(f"`n_resamples` must be at least 2, got {n_resamples}")
    generator = torch.Generator().manual_seed(seed)
    n = log_weights.shape[0]
    draws = []
    for _ in range(n_resamples):
        indices = torch.randint(n, (n,), generator=generator).to(log_weights.device)
        draws.append(statistic(indices, log_weights[indices]))
    return torch.stack(draws).std(0)


def pareto_smooth(log_weights: Tensor) -> tuple[Tensor, float]:
    r"""Pareto-smoothed log weights and the fitted shape :math:`\hat k` of their tail.

    The :math:`\min(n/5, 3\sqrt n)` largest weights are replaced by the quantiles of a generalised
    Pareto distribution fitted to them; :math:`1/\hat k` is the number of moments the weights have.
    Fewer than five distinct weights in that tail cannot be fitted: the weights then stay as they
    are and the shape is Hill's, the mean of :math:`\log w_i - \log w_{(m+1)}` over the m largest.

    Args:
        log_weights: :math:`\log w_i`, shape ``(n,)``; those of -inf are left out of the fit.

    Returns:
        Smoothed log weights ``(n,)``, with the same sum of weights, and :math:`\hat k` (infinite
        for fewer than two samples with weight).
    """
    _check(log_weights)
    finite = ~log_weights.isneginf()
    counted = log_weights[finite].detach()
    if counted.shape[0] < 2:
        return log_weights, math.inf
    with warnings.catch_warnings():
        # ArviZ announces its next version at import; its fit takes logarithms of zero weights
        warnings.simplefilter("ignore")
        from arviz import psislw

        # A copy: ArviZ 0.18 normalises what it is given in place
        smoothed, k_hat = psislw(counted.double().cpu().numpy().copy())
    k_hat = float(k_hat)
    if not math.isfinite(k_hat):
        return log_weights, _hill_shape(counted)
    result = torch.full_like(log_weights, -math.inf)
    total = torch.logsumexp(counted, 0)
    result[finite] = torch.as_tensor(smoothed).to(log_weights) + total
    return result, k_hat


def pareto_verdict(k_hat: float) -> str:
    r"""Return what the Pareto shape :math:`\hat k` says about weighted averages, in words."""
    if math.isnan(k_hat):
        raise ValueError("`k_hat` must be a number, got nan")
    if k_hat == math.inf:
        return "too few samples with weight to judge"
    if k_hat < GOOD_K:
        return f"good (Pareto k {k_hat:.2f} < {GOOD_K})"
    if k_hat < USABLE_K:
        return f"usable (Pareto k {k_hat:.2f} < {USABLE_K}): errors shrink slowly with more samples"
    if k_hat <= UNRELIABLE_K:
        return f"unreliable (Pareto k {k_hat:.2f} > {USABLE_K}): error bars are too small"
    return f"do not trust (Pareto k {k_hat:.2f} > {UNRELIABLE_K}): the mean weight may not exist"


def pareto_level(k_hat: float) -> str:
    r"""Level of a Pareto shape: "good", "fair" from 0.5, "poor" from 0.7, "open" if not told."""
    if not math.isfinite(k_hat):
        return "open"
    return "good" if k_hat < GOOD_K else "fair" if k_hat < USABLE_K else "poor"


def sample_size_verdict(ess: float, n_samples: int) -> tuple[Literal["good", "fair", "poor"], str]:
    """Level ("good", "fair", "poor") of an effective sample size, and what it says in words.

    Args:
        ess: Effective sample size as a fraction.
        n_samples: Number of samples.
    """
    number = ess * n_samples
    text = f"ESS {ess:.1%}: {n_samples:,} samples are worth {number:,.0f} independent ones"
    if number < 100:
        return "poor", f"{text}. A handful of samples carries every average; train longer."
    if ess < 0.1 or number < 1000:
        return "fair", (
            f"{text}. Averages are usable, rare states are not; train longer or draw more."
        )
    return "good", f"{text}."


def clip_largest(log_weights: Tensor, n: int) -> Tensor:
    """Log weights ``(n_samples,)`` with the `n` largest cut down to the next largest one.

    It trades a little bias for a lot of variance; report it as what it is.
    """
    _check(log_weights)
    if not 0 <= n < log_weights.shape[0]:
        raise ValueError(f"`n` must lie in [0, {log_weights.shape[0]}), got {n}")
    return log_weights.clamp(max=torch.topk(log_weights, n + 1).values[n])


def resample_indices(log_weights: Tensor, n: int, seed: int = 0) -> Tensor:
    r"""Draw `n` indices with probability proportional to the weights (systematic resampling).

    Sample i appears :math:`n \tilde w_i` times, rounded up or down, in random order.

    Args:
        log_weights: :math:`\log w_i`, shape ``(n_samples,)``.
        n: Number of indices.
        seed: Seed of the draw.

    Returns:
        Indices, shape ``(n,)``, int64.
    """
    _check(log_weights)
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    if _all_zero(log_weights):
        raise ValueError("`log_weights` are all -inf: there is no sample to draw")
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    points = (torch.arange(n, dtype=torch.float64) + start) / n
    cumulative = torch.softmax(log_weights.detach().double().cpu(), 0).cumsum(0)
    # The last point must find the last sample that has weight, whatever the rounding
    indices = torch.searchsorted(cumulative / cumulative[-1], points, right=True)
    last = int(torch.nonzero(~log_weights.isneginf()).max())
    order = torch.randperm(n, generator=generator)
    return indices.clamp(max=last)[order].to(log_weights.device)


def thinned(log_weights: Tensor, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    r"""Choose `n` of many weighted samples, each once, to stand for all of them.

    Sample i is kept with probability :math:`\pi_i`, and its weight grows to :math:`w_i / \pi_i`,

    .. math:: \pi_i = \min(1, w_i / c), \quad \textstyle\sum_i \pi_i = n,
              \qquad \frac{w_i}{\pi_i} = \max(w_i, c)

    so that sums over the kept ones have the sums over all as their means, and the sum of the
    weights stays as it is. Of all such choices this one changes the weights least. The kept are
    drawn systematically, in random order; samples without weight never are.

    Args:
        log_weights: :math:`\log w_i`, shape ``(n_samples,)``.
        n: How many to keep; all that have weight, as they are, if there are no more.
        seed: Seed of the choice.

    Returns:
        Indices in ascending order, shape ``(n,)``, int64, and log weights ``(n,)``, which have
        the mean weight of all samples as their mean.

    References:
        | On-line inference for hidden Markov models via particle filters (Fearnhead, Clifford,
          2003), section 3, https://doi.org/10.1111/1467-9868.00421
    """
    _check(log_weights)
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    counted = torch.nonzero(~log_weights.isneginf())[:, 0]
    if not len(counted):
        raise ValueError("`log_weights` are all -inf: there is no sample to keep")
    w = torch.softmax(log_weights[counted].detach().double().cpu(), 0)
    kept, log_cut = torch.arange(len(counted)), -math.inf
    if n < len(counted):
        cut = _cut(w, n)
        kept = _systematic((w / cut).clamp(max=1.0), n, seed)
        log_cut = math.log(cut) + float(torch.logsumexp(log_weights[counted], 0))
    index = counted[kept.to(counted.device)]
    # The mean is over the kept now, and was over all
    scale = math.log(len(index) / log_weights.shape[0])
    return index, log_weights[index].clamp(min=log_cut) + scale


def _cut(w: Tensor, n: int) -> float:
    r"""The weight c with :math:`\sum_i \min(1, w_i/c) = n`, for n below the number of weights."""
    w = w.sort(descending=True).values
    # With the m largest kept for certain, c is the rest over the places left
    rest = w.flip(0).cumsum(0).flip(0)[:n]
    candidates = rest / (n - torch.arange(n))
    return float(candidates[torch.nonzero(w[:n] <= candidates)[0, 0]])


def _systematic(probabilities: Tensor, n: int, seed: int) -> Tensor:
    """Indices kept with given probabilities, which sum to `n`, in ascending order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(probabilities), generator=generator)
    start = torch.rand((), generator=generator, dtype=torch.float64)
    cumulative = probabilities[order].cumsum(0)
    points = (torch.arange(n, dtype=torch.float64) + start) * (cumulative[-1] / n)
    at = torch.searchsorted(cumulative, points, right=True).clamp(max=len(order) - 1)
    return order[at].sort().values


def _check(log_weights: Tensor) -> None:
    if log_weights.ndim != 1 or log_weights.shape[0] == 0:
        raise ValueError(
            f"`log_weights` must have shape (n,) with n >= 1, got {tuple(log_weights.shape)}"
        )
    bad = log_weights.isnan() | log_weights.isposinf()
    if bool(bad.any()):
        raise ValueError(
            f"`log_weights` must be finite or -inf, got {int(bad.sum())} of nan or +inf; "
            "give a broken sample -inf"
        )


def _all_zero(log_weights: Tensor) -> bool:
    return bool(log_weights.isneginf().all())


def _hill_shape(log_weights: Tensor) -> float:
    """Hill's estimate of the tail shape from the largest fifth of the weights, at least one."""
    m = max(1, log_weights.shape[0] // 5)
    largest = torch.topk(log_weights, m + 1).values
    return float((largest[:m] - largest[m]).mean())
