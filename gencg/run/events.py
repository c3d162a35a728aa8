"""The log of a training for TensorBoard."""

from pathlib import Path
from typing import Any

from gencg.training import StepInfo

SCALARS = (
    "loss", "ess", "temperature", "learning_rate", "gradient_norm", "energy_calls",
    "gradient_calls", "n_compressed", "n_dropped", "n_invalid", "seconds",
)  # fmt: skip
"""What is written of a log line, over the step."""


class EventWriter:
    """Reporter that writes event files; steps done again after a kill replace the old.

    Args:
        folder: Where the event files lie; made with the first step.

    Raises:
        ValueError: If the tensorboard package is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(
                "--tensorboard needs the package tensorboard; pip install 'gencg[tensorboard]'"
            ) from None
        self.folder = Path(folder)
        self._kind: Any = SummaryWriter
        self._writer: Any = None

    def __call__(self, info: StepInfo) -> None:
        if self._writer is None:
            self._writer = self._kind(log_dir=str(self.folder), purge_step=info.step)
        for name in SCALARS:
            self._writer.add_scalar(name, getattr(info, name), info.step)
        if info.step == info.n_steps:
            self.close()

    def close(self) -> None:
        """Write what waits; another step opens a file of its own."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
