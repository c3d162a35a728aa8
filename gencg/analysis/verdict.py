"""The verdict in words: what the diagnostics of an ensemble allow one to conclude."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gencg.analysis.coverage import Coverage
from gencg.analysis.lost_modes import ModeCheck
from gencg.importance import GOOD_K, UNRELIABLE_K, USABLE_K, sample_size_verdict

FEW_SAMPLES = 25.0
"""Effective samples below which a population is known worse than to a fifth of itself."""

Level = Literal["good", "fair", "poor", "open"]


@dataclass(frozen=True)
class Verdict:
    """One diagnostic, judged.

    Attributes:
        name: What was looked at.
        level: "good", "fair" (usable with care), "poor" (do not rely on it), "open" (not told).
        text: The judgement in a sentence or two.
    """

    name: str
    level: Level
    text: str


def judge(
    *,
    n_samples: int,
    ess: float,
    pareto_k: float,
    valid_share: float,
    coverage: Coverage,
    mode_checks: Sequence[ModeCheck] = (),
    state_samples: Mapping[str, float] | None = None,
) -> tuple[Verdict, ...]:
    """Judge effective sample size, weight tail, broken samples, lost modes, rare states.

    Args:
        n_samples: Samples drawn.
        ess: Effective sample size as a fraction.
        pareto_k: Shape of the tail of the weights (Vehtari et al. 2024); not finite where not told.
        valid_share: Share of samples that are the described molecule.
        coverage: Result of `check_coverage`.
        mode_checks: Results of `check_modes`, one verdict for each.
        state_samples: Effective number of samples in each state; None or none leaves that out.
    """
    verdicts = (
        _judge_ess(ess, n_samples),
        _judge_tail(pareto_k),
        _judge_valid(valid_share, n_samples),
        _judge_coverage(coverage),
        *(judge_modes(check) for check in mode_checks),
    )
    return (*verdicts, _judge_states(state_samples, ess * n_samples)) if state_samples else verdicts


def overall(verdicts: tuple[Verdict, ...]) -> Verdict:
    """The worst of the verdicts, in one sentence for the top of a page."""
    levels = {v.level for v in verdicts}
    if "poor" in levels:
        names = " and ".join(v.name.lower() for v in verdicts if v.level == "poor")
        return Verdict("Overall", "poor", f"Do not rely on these numbers yet: see {names}.")
    if "fair" in levels:
        names = " and ".join(v.name.lower() for v in verdicts if v.level == "fair")
        return Verdict("Overall", "fair", f"Usable with care: see {names}.")
    text = "Reweighted averages can be trusted within their error bars."
    if "open" in levels:
        text += " Not every check could be made: see below."
    return Verdict("Overall", "good", text)


def worse(first: Level, second: Level) -> bool:
    """Whether `first` is a worse overall level than `second`."""
    order = ("good", "fair", "poor")
    return order.index(first) > order.index(second)


def _judge_ess(ess: float, n_samples: int) -> Verdict:
    level, text = sample_size_verdict(ess, n_samples)
    return Verdict("Effective sample size", level, text)


def _judge_tail(pareto_k: float) -> Verdict:
    name, text = "Weight tail", f"Pareto k = {pareto_k:.2f}: "
    if not math.isfinite(pareto_k):
        return Verdict(name, "open", "Pareto k not told: too few samples with distinct weights.")
    if pareto_k < GOOD_K:
        return Verdict(name, "good", text + "the weights have a finite variance, errors hold.")
    if pareto_k < USABLE_K:
        return Verdict(
            name, "fair", text + "the weights have a long tail; averages converge, error bars "
            "are on the small side.",
        )  # fmt: skip
    if pareto_k < UNRELIABLE_K:
        return Verdict(
            name, "poor", text + "a few samples dominate; more samples help only slowly. The "
            "generator misses part of the density: train longer.",
        )  # fmt: skip
    return Verdict(
        name, "poor", text + "the weights have no finite mean; reweighted averages mean "
        "nothing. The generator misses part of the density.",
    )  # fmt: skip


def _judge_valid(share: float, n_samples: int) -> Verdict:
    name, broken = "Broken or inverted samples", round((1 - share) * n_samples)
    if broken == 0:
        return Verdict(name, "good", f"None of {n_samples:,}.")
    text = (
        f"{broken:,} of {n_samples:,} ({100 * (1 - share):.2g} %) are broken, inverted or "
        "isomerised: they carry no weight."
    )
    if share > 0.99:
        return Verdict(name, "good", text)
    if share > 0.9:
        return Verdict(name, "fair", text + " The generator wastes part of its density on them.")
    return Verdict(name, "poor", text + " The generator did not learn the molecule's geometry.")


def _judge_coverage(coverage: Coverage) -> Verdict:
    name = "Modes seen hot, lost cold"
    if not coverage.checked:
        return Verdict(
            name, "open", "Not checked: the run kept no samples of its hotter stages. A mode "
            "lost in training would not show in the numbers above.",
        )  # fmt: skip
    if coverage.lost:
        bins = "; ".join(str(b) for b in coverage.lost[:4])
        more = f" and {len(coverage.lost) - 4} more" if len(coverage.lost) > 4 else ""
        return Verdict(name, "poor", f"Lost: {bins}{more}.")
    if coverage.n_bins == 0:
        return Verdict(
            name, "open", "Could not be told: the hotter stages hold too few samples that count at "
            "this temperature.",
        )  # fmt: skip
    return Verdict(
        name, "good", f"None: all {coverage.n_bins} bins of the soft coordinates that stages up to "
        f"{coverage.hottest:.0f} K fill are still there ({coverage.n_effective:,.0f} effective hot "
        "samples).",
    )  # fmt: skip


def judge_modes(check: ModeCheck) -> Verdict:
    """Judge what a probe says: a lost mode or a log Z too small fails."""
    excess = f"{check.log_z_excess:+.3f} ± {check.log_z_excess_error:.3f}"
    seen = f"{check.n_effective:,.0f} effective samples, log Z {excess} from the generator's"
    if check.lost:
        windows = "; ".join(map(str, check.lost[:3]))
        more = f" and {len(check.lost) - 3} more" if len(check.lost) > 3 else ""
        return Verdict(check.name, "poor", f"Lost: {windows}{more} ({seen}).")
    if check.misses_density:
        share = -math.expm1(-check.log_z_excess)
        return Verdict(
            check.name, "poor", f"The generator misses {share:.2g} of the density: {seen}.",
        )  # fmt: skip
    if check.blind:
        return Verdict(
            check.name, "open", f"Could not tell ({seen}): spend more calls on it, with "
            "--coverage-calls, or train longer where the ESS is small.",
        )  # fmt: skip
    return Verdict(
        check.name, "good", f"No mode lost: {check.n_windows:,} windows of the soft coordinates "
        f"hold what they should ({seen}).",
    )  # fmt: skip


def _judge_states(state_samples: Mapping[str, float], n_effective: float) -> Verdict:
    name = "Rare states"
    unseen = [k for k, n in state_samples.items() if n == 0]
    few = {k: n for k, n in state_samples.items() if 0 < n < FEW_SAMPLES}
    texts = []
    if few:
        items = [f"{k} on {n:.0f}" for k, n in sorted(few.items(), key=lambda item: item[1])]
        texts.append(
            f"Populations that rest on few effective samples: {_first(items)}. They are known to "
            "their order of magnitude at best, and error bars from so few weights are too small."
        )
    if unseen:
        bound = f" (< {300 / n_effective:.2g} %)" if n_effective else ""
        texts.append(f"Not seen: {_first(unseen)}{bound}.")
    if texts:
        texts.append("The generator may have dropped these states.")
        return Verdict(name, "fair", " ".join(texts))
    least = min(state_samples.values())
    return Verdict(name, "good", f"Each state rests on at least {least:,.0f} samples.")


def _first(items: list[str], most: int = 4) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
