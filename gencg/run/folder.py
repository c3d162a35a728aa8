"""The folder of a run: created or resumed, locked, refused where it belongs to another run.

It holds ``config.json``, ``inputs/`` (copies of the input files), ``versions.json``,
``metrics.csv``, ``checkpoint.pt``, ``samples.h5``, ``topology.pdb``, ``figures/``, ``report.html``
and, written last, ``summary.json``. Every file appears whole or not at all, so that a kill at any
moment leaves a folder that the same command goes on with.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencg import parallel
from gencg.config import (
    INPUTS,
    SHIPPED,
    RunConfig,
    adds_cvs,
    file_checksum,
    forcefield_checksum,
    hindrances,
    read_object,
    read_small,
)
from gencg.discover import REFIT, REHEATING
from gencg.files import FULL, drafts, write_atomically
from gencg.run.lock import holding
from gencg.run.metrics import read_metrics
from gencg.systems import System, load
from gencg.systems.inputs import input_files
from gencg.training import StepInfo

OWN = (
    "summary.json", "generator.json", "report.html", "figures", "frames.csv", "samples.xtc",
    "samples.dcd", "samples.h5", "topology.pdb", "drawing", "draws", "export", "basins", "states",
    "joint.pt", REFIT, "cvs.pt", "probes.pt", "checkpoint.pt", *REHEATING, "further.pt",
    "origin.json",
    "metrics.csv", "tensorboard", "structures.pdb", "versions.json", "structure.pdb",
    "structure.cif", INPUTS, "config.json",
)  # fmt: skip
"""What a run writes, the settings last; `--override` removes these and nothing else."""
FOLDERS = ("figures", "drawing", "draws", "export", "basins", "states", "tensorboard", INPUTS)
"""Folders within that of a run."""
WRITTEN_LOCKED = ("figures", "basins", "drawing/generator", "drawing/joint", INPUTS)
"""Those into which only the process writes that holds the run."""
DRAWN = (
    "samples.*", "structures.pdb", "drawing", "draws", "export", "figures", "basins", "states",
    ".*",
)  # fmt: skip
"""What other processes than the first do without."""
WRITTEN_ONCE = ("generator.json", "origin.json")
"""What no later start writes again."""
BEGUN = ("metrics.csv", "further.pt", "checkpoint.pt", "summary.json")
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
            text = read_small(path / "config.json")
        except OSError:
            raise ValueError(
                f"{path} is not a run folder: it has no config.json; make one with `gencg run`"
            ) from None
        _check_links(path)
        return cls(path, RunConfig.from_json(text, source=str(path / "config.json")))

    @classmethod
    def create(cls, path: str | Path, config: RunConfig, *, override: bool = False) -> "RunFolder":
        """Create a run folder, or open one of the same settings.

        Args:
            path: Where; made if missing.
            config: Resolved settings.
            override: Remove the run that is there and start over.

        Raises:
            ValueError: If the folder holds a run of other settings, or files of something else,
                or the generator that is to be taken over, or cannot be written.
        """
        path = Path(path)
        file = path / "config.json"
        _check_links(path)
        _check_source(path, config)
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
                if adds_cvs(config, theirs):
                    return cls(path, theirs)._take_up_cvs(config)
                if different := config.differences(theirs):
                    raise ValueError(
                        f"folder {path} holds a run with other settings: {'; '.join(different)}; "
                        "choose another --out, or start over with --override"
                    )
                # Its copies may be fewer, or lie elsewhere, in a run of an earlier version
                return cls(path, dataclasses.replace(config, inputs=theirs.inputs))
        folder = cls(path, config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            # A run that has just begun has written nothing but its settings, and holds the lock
            with folder.locked():
                if override:
                    _remove(path)
                folder._keep_inputs()
                write_atomically(file, config.to_json().encode())
        except OSError as error:
            if error.errno in FULL:
                raise  # another folder on the same disk is no cure
            raise ValueError(
                f"`out` folder {path} cannot be written ({error.strerror}); choose another --out"
            ) from None
        return folder

    def _take_up_cvs(self, config: RunConfig) -> "RunFolder":
        """The run with collective variables to be added to it; its training stays."""
        if different := hindrances(config, self.config):
            raise ValueError(
                f"folder {self.path} holds a run with other settings, without collective "
                f"variables: {'; '.join(different)}; or choose another --out"
            )
        folder = RunFolder(self.path, dataclasses.replace(config, inputs=self.config.inputs))
        with folder.locked():
            if folder.summary is not None:
                (self.path / "summary.json").replace(folder.path / "generator.json")
            # Last: killed before it, the same command comes here again
            write_atomically(self.path / "config.json", folder.config.to_json().encode())
        return folder

    @classmethod
    @contextmanager
    def shared(
        cls, path: str | Path, config: RunConfig, *, override: bool = False
    ) -> Iterator["RunFolder"]:
        """`create` for process 0; the others get a copy of it that is thrown away at the end.

        All processes then find the same files and go the same way, and one of them writes.
        """
        first = cls.create(path, config, override=override) if parallel.rank() == 0 else None
        with tempfile.TemporaryDirectory(prefix="gencg-") as scratch:
            copy = Path(scratch) / "run"
            parallel.wait()
            if first is None:
                shutil.copytree(path, copy, ignore=shutil.ignore_patterns(*DRAWN))
            # Nothing changes before all have their copy
            parallel.wait()
            yield first or cls(copy, config)

    def _keep_inputs(self) -> None:
        """Copy the input files, so that the run does not need the originals again."""
        if all(copy.exists() for copy in self.inputs.values()):
            return self.check_inputs()
        (self.path / INPUTS).mkdir(exist_ok=True)
        for file in input_files(self.config.target, self.config.loader_options):
            write_atomically(self.path / INPUTS / file.name, file.content)
        self.check_inputs()

    def check_current(self) -> None:
        """Refuse to go on where another process has started the folder over, to be asked locked.

        Raises:
            ValueError: If the folder's settings are no longer those of the run.
        """
        if not (self.path / "config.json").exists():
            return
        if different := self.config.differences(RunFolder.open(self.path).config):
            raise ValueError(
                f"folder {self.path} was started over by another process with other settings: "
                f"{'; '.join(different)}; choose another --out"
            )

    def check_inputs(self) -> None:
        """Refuse copies of input files that are gone or not what they were.

        Raises:
            ValueError: If there are any.
        """
        for given, copy, checksum in self.config.inputs:
            path = self.path / copy
            try:
                same = file_checksum(path) == checksum
            except OSError as error:
                raise ValueError(
                    f"input {path} of the run cannot be read ({error.strerror}); restore it, or "
                    "start over with --override"
                ) from None
            if not same:
                raise ValueError(
                    f"input {path} is not the one of the run (its checksum differs); restore it "
                    f"from {given}, or start over with --override"
                )

    @property
    def inputs(self) -> dict[str, Path]:
        """The copies of the input files, by the path as it was given."""
        return {given: self.path / copy for given, copy, _ in self.config.inputs}

    def system(self) -> System:
        """What the run samples, from the folder's own copies of its files.

        Raises:
            ValueError: If a copy, or a force-field file of which there is none (in runs of before
                they were kept), is not what the run was made with.
        """
        config, kept = self.config, self.inputs
        self.check_inputs()
        unkept = [name for name in config.forcefield if name not in kept]
        if len(unkept) == len(config.forcefield) and (
            forcefield_checksum(unkept) != config.forcefield_checksum
        ):
            raise ValueError(
                f"force-field files {' '.join(config.forcefield)} are not those of run "
                f"{self.path} (their checksum differs); restore them, or start over with "
                "--override"
            )
        return load(
            config.target, temperature=config.temperature, kept=kept, **config.loader_options
        )

    @property
    def checkpoint(self) -> Path:
        """The training state."""
        return self.path / "checkpoint.pt"

    @property
    def further(self) -> Path:
        """The state of training a generator further that was taken over; gone once it is done."""
        return self.path / "further.pt"

    @property
    def cvs(self) -> Path:
        """The slow collective variables."""
        return self.path / "cvs.pt"

    @property
    def probes(self) -> Path:
        """What was found of modes the generator may have lost."""
        return self.path / "probes.pt"

    @property
    def joint(self) -> Path:
        """The training state of the joint model."""
        return self.path / "joint.pt"

    @property
    def drawing(self) -> Path:
        """Folder of the samples that are drawn so far; gone once the run is finished."""
        return self.path / "drawing"

    @property
    def summary(self) -> dict[str, Any] | None:
        """Contents of summary.json; None while the run is not finished."""
        return self._read("summary.json")

    @property
    def before_cvs(self) -> dict[str, Any] | None:
        """The summary that a run had before collective variables were added; None for others."""
        found = self._read("generator.json")
        for name in ("wall_seconds", "training_seconds", "n_samples"):
            if found is not None and not isinstance(found.get(name, 0), int | float):
                raise ValueError(
                    f"{self.path / 'generator.json'} is damaged, {name} is no number; restore it "
                    "or start over with --override"
                )
        return found

    @property
    def origin(self) -> dict[str, Any] | None:
        """Where the generator was taken from and what it cost there; None where it was trained."""
        return self._read("origin.json")

    @property
    def versions(self) -> dict[str, Any] | None:
        """Contents of versions.json; None where it is missing: the report goes without."""
        return self._read("versions.json")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return read_object(self.path / name)
        except FileNotFoundError:
            return None
        except ValueError:
            cure = "remove it and run the same command"
            if name in WRITTEN_ONCE:
                cure = "restore it, or start over with --override"
            raise ValueError(f"{self.path / name} is damaged; {cure}") from None

    def history(self) -> list[StepInfo]:
        """Log lines of metrics.csv."""
        return read_metrics(self.path / "metrics.csv")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that no second process writes into it; a kill lets it go.

        Raises:
            ValueError: If another process holds it.
            OSError: If it cannot be written.
        """
        with holding(self.path):
            self._tidy()
            yield

    def _tidy(self) -> None:
        """Remove the drafts that a kill left behind."""
        for folder in (self.path / name for name in WRITTEN_LOCKED):
            for draft in drafts(folder):
                if draft.host is not None or draft.name in OWN:
                    draft.path.unlink(missing_ok=True)
        # Here other processes may write, too, which need no lock
        others = (self.path / name for name in FOLDERS if name not in (*WRITTEN_LOCKED, "drawing"))
        shared = (
            self.path,
            *(inner for folder in others for inner in (folder, *folder.glob("*/"))),
        )
        for folder in shared:
            for draft in drafts(folder):
                own = draft.name in OWN
                left = draft.is_left and (own or draft.host is not None)
                if left or (own and folder == self.path):
                    draft.path.unlink(missing_ok=True)


def _check_links(path: Path) -> None:
    """Refuse folders of a run that are links: what is written into them would lie elsewhere."""
    inner = (
        Path(folder, name)
        for top in FOLDERS
        for folder, names, _ in os.walk(path / top)
        for name in names
    )
    for item in (*(path / name for name in FOLDERS), *inner):
        if item.is_symlink():
            raise ValueError(
                f"{item} is a link, and nothing is written outside of a run folder; "
                "replace it by the folder itself, or give --out"
            )


def _check_source(path: Path, config: RunConfig) -> None:
    """Refuse to write over the run whose generator is to be taken over."""
    for name in config.generator or ():
        if name != SHIPPED and Path(name).resolve().is_relative_to(path.resolve()):
            raise ValueError(
                f"`generator` {name} is the run's own folder, or lies in it; choose another --out"
            )


def _is_foreign(file: Path) -> bool:
    """Whether a config.json is there that another program wrote; a damaged one may be ours."""
    try:
        content = json.loads(read_small(file))
    except (OSError, ValueError, RecursionError):
        return False
    return not (isinstance(content, dict) and "target" in content)


def _remove(path: Path) -> None:
    for name in OWN:
        item = path / name
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink(missing_ok=True)
