"""What a user waits for, and how large the report is: import, help, documentation site.

CPU seconds of a process of its own from beginning to end, the least of several; files are in the
cache of the system, as at every start but the first after boot.

    python -m experiments.benchmarks.waiting --report runs/ala2
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STARTS = {
    "python_seconds": ["-c", "pass"],
    "version_seconds": ["-m", "gencg", "--version"],
    "help_seconds": ["-m", "gencg", "--help"],
    "run_help_seconds": ["-m", "gencg", "run", "--help"],
    "import_seconds": ["-c", "import gencg"],
    "first_use_seconds": ["-c", "import gencg; gencg.systems, gencg.fit, gencg.plots"],
}
"""Arguments of Python for each start that is timed; the first is Python's own."""


def cpu_seconds(arguments: list[str], *, repeats: int = 3) -> float:
    """Least CPU time of a Python process, one thread."""
    return min(_once(arguments) for _ in range(repeats))


def starts() -> dict[str, float]:
    """CPU seconds of each start."""
    return {name: cpu_seconds(words) for name, words in STARTS.items()}


def _once(arguments: list[str]) -> float:
    before = _children()
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GENCG_COMPILE": "0"},
    )  # fmt: skip
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def site() -> dict[str, Any]:
    """CPU seconds to build the site from nothing, its pages and its size."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "site"
        options = ["-W", "--keep-going", "-q", "-b", "html", "-d", f"{folder}/doctrees"]
        seconds = _once(["-m", "sphinx", *options, "-c", "docs/site", ".", str(out)])
        return {
            "docs_seconds": seconds,
            "docs_pages": len([*out.rglob("*.html")]),
            "docs_megabytes": sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, nargs="*", default=[], help="runs with a report")
    parser.add_argument("--no-docs", action="store_true", help="leave the site out")
    given = parser.parse_args()
    found: dict[str, Any] = starts()
    if not given.no_docs:
        found |= site()
    for folder in given.report:
        found[f"{folder}/report.html, MB"] = (folder / "report.html").stat().st_size / 1e6
    for name, value in found.items():
        print(f"{value:8.3g}  {name}")


if __name__ == "__main__":
    main()
