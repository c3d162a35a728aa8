"""Many molecules: a run folder each, one table, and no failure that stops the others."""

import csv
import io
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencg.config import read_object
from gencg.deadline import EXIT_CODE, Deadline, TimeIsUp
from gencg.files import write_atomically
from gencg.systems.files import read_text
from gencg.systems.sdf import read_blocks

COLUMNS = (
    "name", "target", "status", "n_atoms", "n_soft", "ess", "pareto_k", "stereo", "kept", "log_z",
    "log_z_error", "energy_calls", "seconds", "reason",
)  # fmt: skip
"""Columns of summary.csv: ``stereo`` is the share of the samples with closed rings whose atoms
have the right hand and whose double bonds have not turned over, ``kept`` that of all samples that
are the molecule and have no clash."""
_TABLE = (
    "name", "n_atoms", "n_soft", "ess", "pareto_k", "stereo", "kept", "energy_calls", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One molecule of a batch.

    Attributes:
        name: Name of its folder.
        target: What `gencg run` takes.
    """

    name: str
    target: str


def is_batch(targets: Sequence[str]) -> bool:
    """Whether targets mean more than one molecule: several, or a file of them."""
    return (
        len(targets) > 1 or Path(targets[0]).suffix.lower() == ".smi" or _n_in_sdf(targets[0]) > 1
    )


def expand(targets: Sequence[str]) -> list[Item]:
    """The molecules of targets, files of many (.smi, .sdf) taken apart, with names of their own.

    A line of an .smi file is a SMILES and, after a space, a name; lines that are empty or begin
    with # are left out, and so is a header that begins with the word SMILES.

    Raises:
        FileNotFoundError: If an .smi file does not exist.
        ValueError: If an .smi file holds no molecule.
    """
    items: list[Item] = []
    for target in targets:
        path = Path(target)
        if path.suffix.lower() == ".smi":
            items += _from_smi(path)
        elif (n := _n_in_sdf(target)) > 1:
            items += [Item(f"{path.stem}-{k}", f"{target}#{k}") for k in range(n)]
        else:
            stem = path.stem if path.suffix and path.is_file() else target.split(":", 1)[-1]
            items.append(Item(_safe(stem), target))
    # The table lies beside the folders; a file system may not tell small letters from capitals
    taken, unique = {"summary.csv", "summary.md"}, []
    for item in items:
        name, n = item.name, 1
        while name.lower() in taken:
            n += 1
            name = f"{item.name}-{n}"
        taken.add(name.lower())
        unique.append(Item(name, item.target))
    return unique


def run_batch(
    items: Sequence[Item],
    arguments: Sequence[str],
    out: str | Path,
    *,
    announce: Callable[[str], None] = lambda text: None,
    deadline: Deadline | None = None,
) -> list[dict[str, Any]]:
    """Run every molecule in a process of its own, finished ones not again.

    Beside the folders ``out/NAME`` stand ``out/NAME.log`` with what each wrote to the terminal,
    and ``out/summary.csv`` and ``summary.md``, brought up to date after every molecule.

    Args:
        items: The molecules.
        arguments: Options of `gencg run`, the same for all.
        out: Folder of the batch.
        announce: Called with a line for every molecule.
        deadline: When to stop, in the middle of a molecule too.

    Returns:
        Rows of the table, with the keys of `COLUMNS`.

    Raises:
        TimeIsUp: If the deadline came first; what is not done waits in the table.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = [
        dict.fromkeys(COLUMNS) | {"name": i.name, "target": i.target, "status": "waiting"}
        for i in items
    ]
    for n, (item, row) in enumerate(zip(items, rows, strict=True), 1):
        if deadline is not None and deadline.late_for():
            raise TimeIsUp(f"time is up before {item.name}")
        announce(f"[{n}/{len(items)}] {item.name}: {item.target}")
        command = [sys.executable, "-P", "-m", "gencg", "run", item.target, *arguments]
        command += ["--out", str(out / item.name)]
        command += [] if deadline is None else ["--time-limit", f"{deadline.left:.3f}s"]
        log = out / f"{item.name}.log"
        try:
            with log.open("wb") as file:
                done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=file)
            if done.returncode == EXIT_CODE:
                raise TimeIsUp(f"{item.name}: {_last_line(log, done.returncode)}".split(";")[0])
            if done.returncode:
                row |= {"status": "failed", "reason": _last_line(log, done.returncode)}
            else:
                summary = read_object(out / item.name / "summary.json")
                row |= {"status": "done"} | _numbers(summary)
        except (KeyError, TypeError):
            row |= {"status": "failed", "reason": f"{item.name}/summary.json is damaged"}
        except (OSError, ValueError) as error:
            row |= {"status": "failed", "reason": str(error)}
        announce(f"    {describe_row(row)}")
        write_atomically(out / "summary.csv", _csv(rows).encode())
        write_atomically(out / "summary.md", markdown(rows).encode())
    return rows


def describe_row(row: Mapping[str, Any]) -> str:
    """One row in words."""
    if row["status"] != "done":
        return f"failed: {row['reason']}"
    return (
        f"ESS {row['ess']:.3f}, Pareto k {_number(row['pareto_k'])}, "
        f"{100 * row['kept']:.2f} % of samples kept, {row['energy_calls']:,} energy calls, "
        f"{row['seconds']:.0f} s"
    )


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| molecule | atoms | soft | ESS | Pareto k | stereo | kept | energy calls | seconds | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [str(row["name"]), *(_number(row[name]) for name in _TABLE[1:])]
        lines.append(f"| {' | '.join(cells)} | {row['reason'] or ''} |")
    return "\n".join(lines) + "\n"


def _numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    lost = summary["n_invalid"] + summary["n_clashes"]
    return {
        **{name: summary[name] for name in ("n_atoms", "n_soft", "ess", "pareto_k", "log_z",
                                            "log_z_error", "energy_calls")},
        "stereo": _stereo(summary),
        "kept": 1 - lost / summary["n_samples"],
        "seconds": summary["wall_seconds"],
        "reason": "" if summary["verdict_level"] == "good" else summary["verdict"],
    }  # fmt: skip


def _stereo(summary: Mapping[str, Any]) -> float | None:
    """Share of closed samples with the stereo of the reference; None for older runs and toys."""
    if "n_inverted" not in summary:
        return None
    n_closed = summary["n_samples"] - summary["n_open_rings"]
    wrong = summary["n_inverted"] + summary["n_flipped"]
    return 1 - wrong / n_closed if n_closed else None


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _last_line(log: Path, code: int) -> str:
    text = log.read_bytes().decode(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("gencg: ") if lines else f"ended with code {code}"


def _from_smi(path: Path) -> list[Item]:
    if not path.is_file():
        raise FileNotFoundError(f"no file of molecules at {path}; give lines of SMILES and name")
    found = []
    text = read_text(path, kind="molecule", suffixes="an .smi")
    for line in text.removeprefix("\ufeff").splitlines():
        words = line.split(maxsplit=1)
        if words and not words[0].startswith("#") and words[0].lower() != "smiles":
            name = words[1] if len(words) > 1 else words[0]
            found.append(Item(_safe(name), f"smiles:{words[0]}"))
    if not found:
        raise ValueError(f"{path} holds no molecule; a line is a SMILES and, after a space, a name")
    return found


def _n_in_sdf(target: str) -> int:
    """Molecules in an SDF file; none in another target."""
    path = Path(target)
    if path.suffix.lower() not in (".sdf", ".sd") or not path.is_file():
        return 0
    try:
        return len(read_blocks(path))
    except ValueError:
        return 1  # loading it says what is wrong


def _safe(name: str) -> str:
    safe = re.sub(r"[^\w.+-]+", "_", name).strip("_").lstrip(".")
    return safe[:80] or "molecule"
