"""Theorems of importance weights.

Cannot detect: a target mode in which the proposal never put a sample; no statistic of the weights
can. Statistical tests state their standard error and rate of failure; their seed is fixed.
"""

import math

import pytest
import torch
from torch.testing import assert_close

from gencg.importance import (
    clip_largest,
    effective_sample_size,
    forward_effective_sample_size,
    log_partition,
    log_partition_ratio,
    pareto_smooth,
    pareto_verdict,
    resample_indices,
    thinned,
    truncated,
    weighted_average,
    weighted_bootstrap_error,
)


def gaussian_weights(n: int, width: float, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of N(0, width^2) and log weights for exp(-x^2/2), whose Z is sqrt(2 pi)."""
    generator = torch.Generator().manual_seed(seed)
    x = width * torch.randn(n, generator=generator)
    log_q = -0.5 * (x / width) ** 2 - math.log(width * math.sqrt(2 * math.pi))
    return x, -0.5 * x**2 - log_q


def exact_ess(width: float) -> float:
    """1 / E_p[p/q] for p = N(0, 1) and q = N(0, width^2)."""
    return math.sqrt(2 * width**2 - 1) / width**2


def test_equal_weights_have_ess_one_and_a_single_weight_one_over_n() -> None:
    assert_close(effective_sample_size(torch.full((50,), -700.0)), torch.tensor(1.0))
    alone = torch.full((50,), -math.inf)
    alone[7] = 900.0
    assert_close(effective_sample_size(alone), torch.tensor(1 / 50))
    assert effective_sample_size(torch.full((5,), -math.inf)) == 0


def test_ess_and_log_z_of_gaussians() -> None:
    width, n = 1.4, 200_000
    x, log_w = gaussian_weights(n, width)
    value, error = log_partition(log_w)

    # Var[log Z] = (1/ESS - 1)/n in closed form; 4 standard errors: fails for 1 seed in 16,000
    exact_error = math.sqrt((1 / exact_ess(width) - 1) / n)
    assert_close(error, torch.tensor(exact_error), rtol=0.02, atol=0)
    assert abs(value - 0.5 * math.log(2 * math.pi)) < 4 * exact_error
    assert_close(effective_sample_size(log_w), torch.tensor(exact_ess(width)), rtol=0.01, atol=0)

    # Second moment of the target
    mean, error = weighted_average(x**2, log_w)
    assert abs(mean - 1) < 4 * error


def test_forward_ess_agrees_with_reverse_ess_and_sees_a_missing_mode() -> None:
    x = torch.randn(200_000)  # samples of the target
    width = 1.4
    log_q = -0.5 * (x / width) ** 2 - math.log(width)
    forward = forward_effective_sample_size(-0.5 * x**2 - log_q)
    assert_close(forward, torch.tensor(exact_ess(width)), rtol=0.01, atol=0)

    # One of 1000 reference samples lies where q has no density
    log_w = torch.zeros(1000)
    log_w[3] = math.inf
    assert forward_effective_sample_size(log_w) == 0


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_everything_but_log_z_is_blind_to_a_constant(shift: float) -> None:
    x, log_w = gaussian_weights(1000, 1.3)
    assert_close(effective_sample_size(log_w + shift), effective_sample_size(log_w))
    assert_close(weighted_average(x, log_w + shift), weighted_average(x, log_w))
    assert_close(log_partition(log_w + shift)[0], log_partition(log_w)[0] + shift)
    assert_close(pareto_smooth(log_w + shift)[1], pareto_smooth(log_w)[1])


def test_standard_errors_are_the_spread_over_repetitions() -> None:
    width, n, repeats = 1.4, 2000, 400
    log_z, average, boot = [], [], []
    for seed in range(repeats):
        x, log_w = gaussian_weights(n, width, seed=seed)
        log_z.append(torch.stack(log_partition(log_w)))
        average.append(torch.stack(weighted_average(x**2, log_w)))
        if seed < 40:
            boot.append(
                weighted_bootstrap_error(
                    lambda i, lw, x=x: weighted_average(x[i] ** 2, lw)[0], log_w, n_resamples=50
                )
            )
    # A spread over 400 repetitions is known to 1/sqrt(800) = 3.5 %; 15 % is 4 standard errors:
    # each comparison fails for 1 seed in 16,000
    for estimates in (torch.stack(log_z), torch.stack(average)):
        assert_close(estimates[:, 1].mean(), estimates[:, 0].std(), rtol=0.15, atol=0)
    assert_close(torch.stack(boot).mean(), torch.stack(average)[:, 0].std(), rtol=0.2, atol=0)

    # Exact value within two errors in 95 % of the cases: 0.95 +- 0.011, 5 standard errors
    exact = 0.5 * math.log(2 * math.pi)
    within = [abs(value - exact) < 2 * error for value, error in log_z]
    assert sum(within) / repeats > 0.90


def test_a_sample_of_zero_weight_counts_in_n_and_nowhere_else() -> None:
    x, log_w = gaussian_weights(1000, 1.3)
    broken = torch.cat([log_w, torch.full((1000,), -math.inf)])
    values = torch.cat([x, torch.full((1000,), math.nan)])

    assert_close(effective_sample_size(broken), effective_sample_size(log_w) / 2)
    assert_close(log_partition(broken)[0], log_partition(log_w)[0] - math.log(2))
    assert_close(weighted_average(values, broken)[0], weighted_average(x, log_w)[0])
    assert weighted_average(values, broken)[1].isfinite()

    smoothed, k_hat = pareto_smooth(broken)
    assert smoothed[1000:].isneginf().all()
    assert_close(k_hat, pareto_smooth(log_w)[1])
    assert (resample_indices(broken, 3000) < 1000).all()


def test_averages_take_any_shape_and_masks() -> None:
    x, log_w = gaussian_weights(500, 1.3)
    values = torch.stack([x, x**2, x**3, x**4, x**5, x**6], 1).reshape(500, 2, 3)
    mean, error = weighted_average(values, log_w)
    assert mean.shape == error.shape == (2, 3)
    assert_close(mean[0, 1], weighted_average(x**2, log_w)[0])

    # A population and its complement share one error, equal weights give the binomial one
    inside = x > 0.5
    assert_close(weighted_average(inside, log_w)[1], weighted_average(~inside, log_w)[1])
    assert weighted_average(values[:1], log_w[:1])[1].isposinf().all()
    p, error = weighted_average(inside, torch.zeros(500))
    assert_close(error, torch.sqrt(p * (1 - p) / 499))


def test_no_weight_at_all() -> None:
    nothing = torch.full((4,), -math.inf)
    value, error = log_partition(nothing)
    assert value == -math.inf
    assert error == math.inf
    assert pareto_smooth(nothing)[1] == math.inf
    with pytest.raises(ValueError, match="no sample counts"):
        weighted_average(torch.ones(4), nothing)
    with pytest.raises(ValueError, match="no sample to draw"):
        resample_indices(nothing, 2)


@pytest.mark.parametrize("shape", [0.2, 0.6, 0.9, 1.3])
def test_pareto_shape_of_pareto_weights(shape: float) -> None:
    # w = u^-k has exactly the tail index k; the fit on 3 sqrt(1e5) = 949 weights has a standard
    # error of (1 + k)/sqrt(949) < 0.075; 0.2 fails for less than 1 seed in 100 at worst
    u = torch.rand(100_000)
    log_w = -shape * u.log()
    smoothed, k_hat = pareto_smooth(log_w)
    assert abs(k_hat - shape) < 0.2
    assert smoothed.shape == log_w.shape
    assert smoothed.dtype == log_w.dtype
    assert_close(torch.logsumexp(smoothed, 0), torch.logsumexp(log_w, 0))
    # Only the tail is touched, up to the common factor
    body = log_w.argsort()[:90_000]
    assert (smoothed - log_w)[body].std() < 1e-9


def test_pareto_shape_without_a_tail_to_fit_is_hills() -> None:
    assert pareto_smooth(torch.zeros(1000))[1] == 0
    log_w = torch.tensor([0.0, 0.0, 0.0, 3.0])
    smoothed, k_hat = pareto_smooth(log_w)
    assert k_hat == 3
    assert_close(smoothed, log_w)
    assert pareto_smooth(torch.zeros(1))[1] == math.inf


@pytest.mark.parametrize(
    "k_hat, words",
    [
        (-0.3, "good"),
        (0.49, "good"),
        (0.5, "usable"),
        (0.7, "unreliable"),
        (1.0, "unreliable"),
        (1.01, "do not trust"),
        (math.inf, "too few samples"),
    ],
)
def test_verdicts(k_hat: float, words: str) -> None:
    assert pareto_verdict(k_hat).startswith(words)


def test_clipping_cuts_the_largest_down_to_the_next() -> None:
    log_w = torch.tensor([3.0, 9.0, 1.0, 5.0, -math.inf])
    assert clip_largest(log_w, 0).tolist() == log_w.tolist()
    assert clip_largest(log_w, 1).tolist() == [3.0, 5.0, 1.0, 5.0, -math.inf]
    assert clip_largest(log_w, 2).tolist() == [3.0, 3.0, 1.0, 3.0, -math.inf]
    with pytest.raises(ValueError, match=r"`n` must lie in \[0, 5\), got 5"):
        clip_largest(log_w, 5)


def test_resampling_draws_each_sample_its_share_rounded() -> None:
    _, log_w = gaussian_weights(100, 1.3)
    expected = 1000 * torch.softmax(log_w, 0)
    counts = torch.bincount(resample_indices(log_w, 1000, seed=3), minlength=100)
    assert ((counts - expected).abs() < 1).all()
    assert_close(resample_indices(log_w, 9, seed=3), resample_indices(log_w, 9, seed=3))
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        resample_indices(log_w, 0)


@pytest.mark.parametrize(
    "function",
    [
        effective_sample_size,
        log_partition,
        pareto_smooth,
        lambda log_w: weighted_average(log_w, log_w),
        lambda log_w: resample_indices(log_w, 1),
        lambda log_w: clip_largest(log_w, 0),
        lambda log_w: weighted_bootstrap_error(lambda i, lw: lw, log_w),
    ],
)
def test_refusals(function) -> None:
    with pytest.raises(ValueError, match=r"`log_weights` must have shape \(n,\).*got \(2, 3\)"):
        function(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"`log_weights` must have shape \(n,\).*got \(0,\)"):
        function(torch.zeros(0))
    with pytest.raises(ValueError, match=r"finite or -inf, got 2 of nan or \+inf"):
        function(torch.tensor([0.0, math.nan, math.inf]))


def test_more_refusals() -> None:
    with pytest.raises(ValueError, match=r"`values` must have shape \(3, \.\.\.\), got \(4,\)"):
        weighted_average(torch.zeros(4), torch.zeros(3))
    with pytest.raises(ValueError, match=r"must have shape \(n,\).*got \(\)"):
        forward_effective_sample_size(torch.tensor(0.0))
    with pytest.raises(ValueError, match="nan or -inf"):
        forward_effective_sample_size(torch.tensor([0.0, -math.inf]))
    with pytest.raises(ValueError, match="`n_resamples` must be at least 2, got 1"):
        weighted_bootstrap_error(lambda i, lw: lw, torch.zeros(3), n_resamples=1)
    with pytest.raises(ValueError, match="got nan"):
        pareto_verdict(math.nan)


def test_ratio_of_partition_functions_has_the_error_of_its_spread() -> None:
    # From exp(-x^2/2) to exp(-(x - 0.5)^2) on samples of another Gaussian
    exact, results = -0.5 * math.log(2), []
    for seed in range(300):
        x, log_w = gaussian_weights(1000, 1.4, seed=seed)
        results.append(log_partition_ratio(log_w + 0.5 * x**2 - (x - 0.5) ** 2, log_w))
    values, errors = torch.tensor(results).unbind(1)
    # 4 standard errors: each fails for 1 seed in 16,000
    assert abs(values.mean() - exact) < 4 * values.std() / math.sqrt(300)
    assert_close(errors.mean(), values.std(), rtol=0.17, atol=0)


def test_ratio_of_equal_weights_is_certain_and_a_shift_is_itself() -> None:
    _, log_w = gaussian_weights(100, 1.4)
    value, error = log_partition_ratio(log_w - 5.0, log_w)
    assert_close(value, torch.tensor(-5.0))
    assert error < 1e-12
    assert log_partition_ratio(torch.full((3,), -math.inf), torch.zeros(3)) == (-math.inf, math.inf)
    assert log_partition_ratio(torch.ones(1), torch.zeros(1)) == (1, math.inf)


@pytest.mark.parametrize("n", [1, 2, 30, 397, 398])
@pytest.mark.parametrize("spread", [0.0, 0.3, 5.0])
def test_thinning_keeps_each_sample_once_and_the_sum_of_weights(n, spread) -> None:
    log_w = spread * torch.randn(400) - 800.0
    log_w[[3, 77]] = -math.inf
    index, kept = thinned(log_w, n, seed=1)
    assert index.shape == kept.shape == (n,)
    assert len(index.unique()) == n
    assert (index == index.sort().values).all()
    assert not torch.isinf(log_w[index]).any()
    assert_close(log_partition(kept)[0], log_partition(log_w)[0])

    # Weights above the cut stay, the others become it
    scale = math.log(n / 400)
    cut = kept.min() - scale
    assert_close(kept - scale, log_w[index].clamp(min=cut))
    assert (log_w <= cut + 1e-9)[~torch.isin(torch.arange(400), index)].all()


def test_thinning_keeps_all_where_there_are_no_more() -> None:
    log_w = torch.tensor([0.5, -math.inf, 2.0])
    index, kept = thinned(log_w, 5)
    assert index.tolist() == [0, 2]
    assert_close(kept, log_w[index] + math.log(2 / 3))


def test_thinned_weights_are_right_on_average() -> None:
    log_w = 1.5 * torch.randn(60)
    total = torch.zeros(60)
    for seed in range(4000):
        index, kept = thinned(log_w, 12, seed)
        total[index] += (kept - math.log(12 / 60)).exp() / 4000
    w = log_w.exp()
    # Kept with probability w/c and weight c: 5 standard errors of 60 means, 1 seed in 30,000
    cut = (kept - math.log(12 / 60)).min().exp()
    error = (w * (cut - w).clamp(min=0) / 4000).sqrt()
    assert ((total - w).abs() < 5 * error + 1e-9).all()


def test_errors_of_thinned_averages_are_their_spread() -> None:
    results = []
    for seed in range(300):
        x, log_w = gaussian_weights(1500, 1.4, seed=seed)
        index, kept = thinned(log_w, 500, seed)
        results.append(weighted_average(x[index] ** 2, kept))
    values, errors = torch.tensor(results).unbind(1)
    # The spread of 300 is known to 4.1 %: 4 standard errors, fails for 1 seed in 16,000
    assert_close(errors.mean(), values.std(), rtol=0.17, atol=0)
    assert abs(values.mean() - 1) < 4 * values.std() / math.sqrt(300)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: thinned(torch.zeros(3), 0), "`n` must be at least 1, got 0"),
        (lambda: thinned(torch.full((3,), -math.inf), 1), "no sample to keep"),
        (lambda: log_partition_ratio(torch.zeros(3), torch.zeros(2)), r"`reference` must .*\(3,\)"),
        (lambda: log_partition_ratio(torch.zeros(1), torch.full((1,), -math.inf)), "no ratio"),
    ],
)
def test_refusals_of_thinning_and_ratio(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_no_weight_is_above_the_cut() -> None:
    weights = truncated(torch.tensor([0.0] * 99 + [100.0]))
    assert_close(weights.sum(), torch.tensor(1.0))
    assert_close(weights[-1], torch.tensor(1.0))
    weights = truncated(torch.tensor([0.0, 1.0, -math.inf, math.nan]), largest=10.0)
    assert_close(weights, torch.tensor([1.0, math.e, 0.0, 0.0]) / (1 + math.e))
