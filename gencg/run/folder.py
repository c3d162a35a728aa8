"""The folder of a run: created or resumed, locked, refused where it belongs to another run.

It holds ``config.json``, ``versions.json``, ``metrics.csv``, ``checkpoint.pt``, ``samples.h5``,
``topology.pdb``, ``figures/``, ``report.html`` and, written last, ``summary.json``. Every file
appears whole or not at all, so that a kill at any moment leaves a folder that the same command
goes on with.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencg.config import RunConfig
from gencg.fit import StepInfo
from gencg.report import write_atomically
from gencg.run.metrics import read_metrics

OWN = (
    "summary.json", "report.html", "figures", "frames.csv", "samples.xtc", "samples.dcd",
    "samples.h5", "topology.pdb", "draws", "basins", "joint.pt", "cvs.pt", "checkpoint.pt",
    "metrics.csv", "versions.json", "config.json",
)  # fmt: skip
"""What a run writes, the settings last; `--override` removes these and nothing else."""
BEGUN = ("metrics.csv", "checkpoint.pt", "summary.json")
"""What shows that a run has something to lose."""


@dataclass(frozen=True)
class RunFolder:
    """A folder of a run.

    Attributes:
        path: Where it is.
        config: The run's settings.
    """

    path: Path
    config: RunConfig

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open an existing run.

        Raises:
            ValueError: If there is none, or its config.json is damaged.
        """
        path = Path(path)
        try:
            text = (path / "config.json").read_text()
        except OSError:
            raise ValueError(
                f"{path} is not a run folder: it has no config.json; make one with `gencg run`"
            ) from None
        return cls(path, RunConfig.from_json(text, source=str(path / "config.json")))

    @classmethod
    def create(cls, path: str | Path, config: RunConfig, *, override: bool = False) -> "RunFolder":
        """Create a run folder, or open one of the same settings.

        Args:
            path: Where; made if missing.
            config: Resolved settings.
            override: Remove the run that is there and start over.

        Raises:
            ValueError: If the folder holds a run of other settings, or files of something else.
        """
        path = Path(path)
        file = path / "config.json"
        if path.exists() and not path.is_dir():
            raise ValueError(f"`out` must be a folder, but {path} is a file; choose another --out")
        if path.exists() and not file.exists():
            others = [p.name for p in path.iterdir() if not p.name.startswith(".")]
            if others:
                raise ValueError(
                    f"folder {path} holds other files ({', '.join(sorted(others)[:3])}) and no "
                    "run; choose another --out"
                )
        if _is_foreign(file):
            raise ValueError(
                f"folder {path} holds a config.json that is not of a gencg run; choose another "
                "--out"
            )
        if file.exists() and not override:
            theirs = cls.open(path).config
            if any((path / name).exists() for name in BEGUN):
                if different := config.differences(theirs):
                    raise ValueError(
                        f"folder {path} holds a run with other settings: {'; '.join(different)}; "
                        "choose another --out, or start over with --override"
                    )
                return cls(path, config)
        path.mkdir(parents=True, exist_ok=True)
        # A run that has just begun has written nothing but its settings, and holds the lock
        with cls(path, config).locked():
            if override:
                _remove(path)
            write_atomically(file, config.to_json().encode())
        return cls(path, config)

    @property
    def checkpoint(self) -> Path:
        """The training state."""
        return self.path / "checkpoint.pt"

    @property
    def cvs(self) -> Path:
        """The slow collective variables."""
        return self.path / "cvs.pt"

    @property
    def joint(self) -> Path:
        """The training state of the joint model."""
        return self.path / "joint.pt"

    @property
    def summary(self) -> dict[str, Any] | None:
        """Contents of summary.json; None while the run is not finished."""
        try:
            content: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError:
            raise ValueError(
                f"{self.path / 'summary.json'} is damaged; remove it and run the same command"
            ) from None
        return content

    def history(self) -> list[StepInfo]:
        """Log lines of metrics.csv."""
        return read_metrics(self.path / "metrics.csv")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that no second process writes into it; a kill lets it go."""
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(
                    f"folder {self.path} is in use by another gencg process; wait for it or "
                    "choose another --out"
                ) from None
            yield


def _is_foreign(file: Path) -> bool:
    """Whether a config.json is there that another program wrote; a damaged one may be ours."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return not (isinstance(content, dict) and "target" in content)


def _remove(path: Path) -> None:
    for name in OWN:
        item = path / name
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink(missing_ok=True)
