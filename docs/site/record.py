"""Runs the commands of a page again and writes what they print into the page.

    python docs/site/record.py docs/first_molecule.md [FOLDER]

The commands are the lines that begin with $ in the page's ``console`` blocks. They run one after
the other in one empty folder, in which ``gencg`` is a link to this repository; what a command
printed before is replaced by what it prints now. With FOLDER they run there and it is kept, so that
a recording that was interrupted takes up its runs.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The command lines of a block, continued ones joined as the shell joins them."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)


def record(page: str, folder: Path) -> str:
    """The page with the output of every command as it is now.

    Raises:
        RuntimeError: If a command fails.
    """

    def rerun(found: re.Match[str]) -> str:
        parts = [f"$ {command}\n{_output(command, folder)}" for command in commands(found[1])]
        return "```console\n" + "".join(parts) + "```"

    return BLOCK.sub(rerun, page)


def _output(command: str, folder: Path) -> str:
    print("$", command, file=sys.stderr, flush=True)
    environment = os.environ | {"COLUMNS": "100", "PATH": f"{folder}/env/bin:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    print(done.stdout, end="", file=sys.stderr, flush=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with code {done.returncode}")
    # A line that writes over itself ends as its last state
    lines = [line.split("\r")[-1].rstrip() for line in done.stdout.splitlines()]
    return "".join(f"{line}\n" for line in lines).replace(str(folder), "~")


def main() -> None:
    """Record the page named on the command line."""
    page = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as empty:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else empty).resolve()
        if not (folder / "gencg").exists():
            (folder / "gencg").symlink_to(ROOT)
        page.write_text(record(page.read_text(), folder))


if __name__ == "__main__":
    main()
