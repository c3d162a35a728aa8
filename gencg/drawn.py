"""A draw kept in parts: a kill loses the last seconds of it, and a longer draw goes on from it."""

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gencg.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

Batch = tuple[Tensor, ...]


class Parts:
    """Batches of one draw as files of a folder, each with the random state that follows it.

    Only whole batches are kept: the samples of a draw are then those of any longer one with the
    same seed, and what is drawn after a kill is what would have been drawn without.

    Args:
        folder: Where the files lie; made with the first.
        about: Plain values that tell the draw from others; parts of another draw are left alone
            until they are written over.
        seconds: Wall time between two files.
    """

    def __init__(
        self, folder: str | Path, *, about: Mapping[str, Any] | None = None, seconds: float = 30.0
    ) -> None:
        self.folder, self.seconds = Path(folder), seconds
        self.about = dict(about or {})
        self.n_taken = 0
        self.n_rows = 0
        self.n_calls = 0
        self._earlier: tuple[Batch, dict[str, Any]] | None = None
        self._waiting: list[Batch] = []
        self._number = 0
        self._saved = time.monotonic()
        self._finite: list[Tensor] = []
        self._generator: Tensor | None = None

    def begin_with(self, rows: Batch, end: Mapping[str, Any]) -> None:
        """Take up a draw that is finished.

        Args:
            rows: Its tensors but the last, as `keep` takes them.
            end: Its `end`.
        """
        n = int(end["n_rows"])
        self._earlier = ((*(values[:n] for values in rows), end["finite"]), dict(end))

    def take_up(self, n_samples: int, batch_size: int) -> list[Batch]:
        """The batches that are there, of a draw of `n_samples`; the random state is set to go on.

        Args:
            n_samples: How many samples are asked for.
            batch_size: Rows of a batch.
        """
        self.about["batch_size"] = batch_size
        found: list[Batch] = []
        for rows, end in self._stored():
            if self.n_rows + len(rows[0]) > n_samples:
                break
            self._finite.append(rows[-1])
            self.n_rows += len(rows[0])
            self.n_calls, self._generator = int(end["n_calls"]), end["generator"]
            found += zip(*(torch.split(values, batch_size) for values in rows), strict=True)
        if self._generator is not None:
            torch.set_rng_state(self._generator)
        self.n_taken = self.n_rows
        return found

    def keep(self, batch: Batch, n_calls: int) -> None:
        """Note a whole batch down, and write a file now and then.

        Args:
            batch: Its tensors, ``(n, ...)`` each, the last one tells which samples are finite.
            n_calls: Energy calls of the draw so far.
        """
        self._waiting.append(batch)
        self._finite.append(batch[-1])
        self.n_rows += len(batch[0])
        self.n_calls, self._generator = n_calls, torch.get_rng_state()
        if time.monotonic() - self._saved > self.seconds:
            self._write()

    @property
    def end(self) -> dict[str, Any]:
        """What `begin_with` needs beside the samples."""
        return {
            "about": self.about,
            "n_rows": self.n_rows,
            "n_calls": self.n_calls,
            "generator": self._generator,
            "finite": torch.cat(self._finite) if self._finite else torch.zeros(0, dtype=torch.bool),
        }

    def remove(self) -> None:
        """Remove the files, once the samples are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "about": self.about,
            "rows": [torch.cat(values) for values in zip(*self._waiting, strict=True)],
            "first": self.n_rows - sum(len(batch[0]) for batch in self._waiting),
            "n_calls": self.n_calls,
            "generator": self._generator,
        }
        save_checkpoint(self._file(self._number), content)
        self._number += 1
        self._waiting.clear()
        self._saved = time.monotonic()

    def _file(self, number: int) -> Path:
        return self.folder / f"part{number:05d}.pt"

    def _stored(self) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Parts in their order, up to the first that is missing, damaged or of another draw."""
        earlier = self._earlier
        if earlier is not None and earlier[1]["n_rows"] and earlier[1]["about"] == self.about:
            yield earlier
        while (path := self._file(self._number)).exists():
            try:
                content = load_checkpoint(path)
                rows, first = tuple(content["rows"]), content["first"]
                mine = content["about"] == self.about and first == self.n_rows
            except (CheckpointError, KeyError, TypeError):
                return
            if not mine:
                return
            yield rows, content
            # Asked for more: it was taken
            self._number += 1


def digest(model: nn.Module) -> str:
    """SHA-256 of the parameters of a model, to tell its draws from those of others."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        numbers = value.detach().cpu().contiguous().reshape(-1)
        found.update(numbers.view(torch.uint8).numpy().data if len(numbers) else b"")
    return found.hexdigest()
