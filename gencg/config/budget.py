"""How the energy evaluations of a run are shared out between its stages."""

import math
from dataclasses import dataclass

COVERING_CALLS, JOINT_CALLS = 60_000, 300_000
"""Most energy evaluations spent on covering samples and on the joint training."""
COVERAGE_CALLS = 100_000
"""Most energy evaluations spent on looking for lost modes where no number is given."""
REHEATING_CALLS = 150_000
"""Most energy evaluations spent on hotter soft blocks of a generator that comes without."""
FEWEST_COVERING = 500
"""With fewer covering samples the slow functions have no meaning."""


@dataclass(frozen=True)
class Budget:
    """Energy evaluations of each stage.

    Attributes:
        training: Of the generator, in steps of a batch; of one that was taken over, further.
        reheating: Of a generator that was taken over; see `gencg.discover.reheat`.
        covering: Samples that cover barriers.
        joint: Training of the joint model.
        modes: The search for lost modes.
        samples: Those drawn at the end.
    """

    training: int
    reheating: int
    covering: int
    joint: int
    modes: int
    samples: int

    @property
    def extra(self) -> int:
        """Of everything but the training."""
        return self.reheating + self.covering + self.joint + self.modes + self.samples


def share_out(
    total: int, *, n_samples: int, discovers: bool, modes: int | None, probes: bool = True
) -> Budget:
    """The budget of a run that trains: what is left goes into training.

    Args:
        total: Energy evaluations for everything.
        n_samples: Samples at the end.
        discovers: Whether collective variables are found, with samples of their own.
        modes: Of the search for lost modes, where given.
        probes: Whether lost modes are looked for at all.
    """
    if not probes:
        modes = 0
    elif modes is None:
        modes = min(COVERAGE_CALLS, total // 20)
    covering = min(COVERING_CALLS, total // 20) if discovers else 0
    joint = min(JOINT_CALLS, total // 10) if discovers else 0
    # All-atom and joint samples
    samples = n_samples * (1 + discovers)
    training = total - covering - joint - modes - samples
    return Budget(training, 0, covering, joint, modes, samples)


def share_out_without_training(
    total: int | None, *, n_samples: int, discovers: bool, modes: int | None, further: int = 0
) -> Budget:
    """The budget of a run whose generator is there: each stage its most, or the same share of it.

    Args:
        total: Energy evaluations for everything; None for the most of each stage.
        n_samples: As in `share_out`.
        discovers: As in `share_out`.
        modes: As in `share_out`.
        further: Of training it further, in full before all other stages.
    """
    samples = n_samples * (1 + discovers)
    most = [REHEATING_CALLS, *((COVERING_CALLS, JOINT_CALLS) if discovers else (0, 0))]
    most.append(COVERAGE_CALLS if modes is None else 0)
    left = math.inf if total is None else total - samples - (modes or 0) - further
    scale = max(0.0, min(1.0, left / sum(most)))
    reheating, covering, joint, looking = (int(scale * calls) for calls in most)
    looking = looking if modes is None else modes
    return Budget(further, reheating, covering, joint, looking, samples)


def least_without_training(
    *, n_samples: int, discovers: bool, modes: int | None, batch_size: int, further: int = 0
) -> int:
    """The smallest total with which `share_out_without_training` leaves no stage too little."""
    if not discovers:
        return further + n_samples + (modes or 0)
    most = REHEATING_CALLS + COVERING_CALLS + JOINT_CALLS
    most += COVERAGE_CALLS if modes is None else 0
    # Two steps of the joint training, and of one more for rounding
    scale = max((FEWEST_COVERING + 1) / COVERING_CALLS, (2 * batch_size + 1) / JOINT_CALLS)
    return further + 2 * n_samples + (modes or 0) + math.ceil(scale * most)
