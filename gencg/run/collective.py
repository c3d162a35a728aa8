"""Collective variables of a run: found once, written down, trained jointly, resumed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gencg import parallel
from gencg.analysis.cv_names import shorter
from gencg.checkpoint import load_checkpoint, save_checkpoint
from gencg.deadline import Deadline, TimeIsUp
from gencg.discover import SlowCVs, find_slow_cvs, fit_joint, restore_slow, slow_state
from gencg.fit import FitResult
from gencg.objectives.bound_gap import BoundGap, bound_gap
from gencg.run.folder import RunFolder
from gencg.run.forecast import Costs
from gencg.training import Reporter


@dataclass(frozen=True)
class Discovery:
    """What the second half of a run gives.

    Args:
        slow: Slow collective variables.
        joint: The joint model of prior, decoder and encoder.
        gap: What its encoder costs.
    """

    slow: SlowCVs
    joint: FitResult
    gap: BoundGap


def discover(
    result: FitResult,
    folder: RunFolder,
    *,
    reporters: Sequence[Reporter] = (),
    announce: Callable[[str], None] = lambda text: None,
    deadline: Deadline | None = None,
) -> Discovery:
    """Find CVs and train the joint model, or take up what the folder holds of them.

    Args:
        result: The trained generator.
        folder: The run.
        reporters: Called with the log line of every step of the joint training.
        announce: Called with a line of text where a stage begins.
        deadline: When to stop.
    """
    config = folder.config
    if folder.cvs.exists():
        slow = restore_slow(load_checkpoint(folder.cvs)["slow"])
    else:
        costs = Costs.from_history(folder.history(), config)
        seconds = costs.search + config.covering_calls * costs.sample
        if deadline is not None and parallel.agree(deadline.late_for(seconds)):
            raise TimeIsUp("time is up before the search for collective variables")
        announce(f"looking for slow motion in {config.covering_calls:,} covering samples")
        slow = find_slow_cvs(
            result,
            n_cvs=config.n_cvs,
            n_samples=config.covering_calls,
            descriptors=config.descriptors,
            seed=config.seed,
        )
        save_checkpoint(folder.cvs, {"slow": slow_state(slow)})
    announce(shorter(str(slow)))
    joint = _fit_joint(
        result, slow, folder, reporters=reporters, announce=announce, deadline=deadline
    )
    return Discovery(slow, joint, bound_gap(joint.model, seed=config.seed))


def _fit_joint(
    result: FitResult,
    slow: SlowCVs,
    folder: RunFolder,
    *,
    reporters: Sequence[Reporter] = (),
    announce: Callable[[str], None] = lambda text: None,
    deadline: Deadline | None = None,
) -> FitResult:
    config = folder.config
    return fit_joint(
        result,
        slow,
        energy_calls=config.joint_calls,
        batch_size=config.batch_size,
        seed=config.seed,
        checkpoint=folder.joint,
        checkpoint_seconds=config.checkpoint_seconds,
        reporters=reporters,
        announce=announce,
        stop=None if deadline is None else deadline.due,
    )


def has_joint(folder: RunFolder) -> bool:
    """Whether a run holds slow CVs and a joint model trained to its end."""
    if not (folder.config.discovers and folder.joint.exists() and folder.cvs.exists()):
        return False
    content = load_checkpoint(folder.joint)
    return bool(content["step"] >= content["n_steps"])


def restored(result: FitResult, folder: RunFolder) -> tuple[SlowCVs, FitResult]:
    """The slow CVs and the joint model that a run holds.

    Args:
        result: The trained generator.
        folder: The run.

    Raises:
        ValueError: If the run has none, or has not come so far.
    """
    if not folder.config.discovers:
        raise ValueError(f"run {folder.path} was made without slow collective variables (--cvs 0)")
    if not has_joint(folder):
        raise ValueError(
            f"run {folder.path} has no collective variables yet; finish it with `gencg run` and "
            "the same settings"
        )
    slow = restore_slow(load_checkpoint(folder.cvs)["slow"])
    return slow, _fit_joint(result, slow, folder)


def discovered(result: FitResult, folder: RunFolder) -> Discovery:
    """What `discover` gave a finished run.

    Raises:
        ValueError: If the run has none, or has not come so far.
    """
    slow, joint = restored(result, folder)
    return Discovery(slow, joint, bound_gap(joint.model, seed=folder.config.seed))
