"""How long a run takes, from what its pieces cost on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from gencg.config import RunConfig
from gencg.fit import MATCHING
from gencg.training import StepInfo

SAMPLE, CHAIN, JOINT = 0.15, 0.15, 0.9
"""A sample drawn and weighed, a call of an annealed chain, and one of the joint training, in rows
of a training step. Rounded from alanine dipeptide, where CPU time gave 0.11, 0.13 and 0.88 on one
core; replaced where they are measured."""
THROUGH, SAMPLE_MATCHED = 6.0, 1.4
"""A step through the equation of a flow-matching decoder, in steps that match, and a sample of it
in rows of these. The first from metrics.csv of `python -m
experiments.flow_matching.run`, seed 1: medians of 0.97 s and 0.17 s a step. A sample took 0.45 ms
for 0.33 ms a row, in development."""
OF_MATCHING = MATCHING + (1 - MATCHING) * THROUGH
"""A training step of both kinds on average, in steps that match."""
REFIT_STEPS, REFIT_ROWS = 800, 1024
"""Steps of the forward fit before the joint training where the molecule is not known, and its
batch; `refit_steps` has them by the number of soft coordinates."""
REFIT = 0.12
"""A row of that fit, in rows of a training step."""
SEARCH_SECONDS, REPORT_SECONDS = 20.0, 10.0
"""Eigenproblems of the search for slow motion, and figures, on a core that is free: the first took
22 s of CPU time for alanine dipeptide, and grow with the pairs of soft coordinates."""


@dataclass(frozen=True)
class Costs:
    """Wall time of the pieces of a run in seconds.

    Args:
        step: A training step.
        sample: A sample, drawn and weighed.
        chain: An energy call of the search for lost modes.
        joint: A step of the joint training.
        refit: The forward fit before it, from beginning to end.
        search: Eigenproblems of the search for slow motion.
        report: Figures and page.
    """

    step: float
    sample: float
    chain: float
    joint: float
    refit: float
    search: float = SEARCH_SECONDS
    report: float = REPORT_SECONDS

    @classmethod
    def from_step(cls, seconds: float, batch_size: int, *, matched: bool = False) -> "Costs":
        """All from the time of a training step, by ratios that hold within a factor of two.

        Args:
            seconds: Of a training step, on average.
            batch_size: Its rows.
            matched: Whether training is by flow matching, `matches`.
        """
        row = seconds / batch_size
        return cls(
            step=seconds,
            sample=(SAMPLE_MATCHED / OF_MATCHING if matched else SAMPLE) * row,
            chain=CHAIN * row,
            joint=JOINT * seconds,
            refit=REFIT_STEPS * REFIT * REFIT_ROWS * row,
        )

    @classmethod
    def from_history(cls, history: Sequence[StepInfo], config: RunConfig) -> "Costs":
        """The same from the log lines of a training; nothing costs anything without any."""
        seconds = history[-1].seconds / history[-1].step if history else 0.0
        return cls.from_step(seconds, config.batch_size, matched=matches(config))


def matches(config: RunConfig) -> bool:
    """Whether most training steps of a resolved run are those of flow matching."""
    return config.decoder == "flow-matching" and config.schedule().start > 1


def stage_seconds(config: RunConfig, costs: Costs) -> dict[str, float]:
    """Wall time of each stage of a resolved run from the beginning, in its order."""
    steps = (config.training_calls + config.reheating_calls) // config.batch_size
    found = {"training": steps * costs.step}
    if config.discovers:
        found["collective variables"] = (
            config.covering_calls * costs.sample
            + costs.search
            + costs.refit
            + config.joint_calls // config.batch_size * costs.joint
        )
    found["lost modes"] = config.mode_calls * costs.chain
    found["samples"] = config.n_samples * costs.sample * (1 + config.discovers)
    found["report"] = costs.report
    return found


def after_training(config: RunConfig, step_seconds: float) -> float:
    """Seconds of everything after the training, for the time of one of its first steps.

    Hotter soft blocks of a generator that was trained further are made after it.
    """
    matched = matches(config)
    average = step_seconds * (OF_MATCHING if matched else 1.0)
    costs = Costs.from_step(average, config.batch_size, matched=matched)
    training = config.training_calls // config.batch_size * costs.step
    return sum(stage_seconds(config, costs).values()) - training
