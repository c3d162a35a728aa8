"""A row for each slow function of finished runs: the formula that explains it, and how well.

Takes what `gencg run` and `gencg explain` keep of a run; nothing is computed. Inclusion: share of
resamplings that choose each term, in the order of the formula; after a slash, it or a stand-in.
"""

import argparse
from pathlib import Path
from typing import Any

from gencg.run import RunFolder
from gencg.run.explain import explained

HEADER = ("run", "function", "terms", "formula", "held-out R²", "inclusion", "carried by")


def row(name: str, found: dict[str, Any]) -> list[str]:
    """The cells of a slow function, from its explanation as plain values.

    Where there is no short formula, the numbers are those of the best attempt, in brackets.

    Args:
        name: Name of the run.
        found: One of `explained`.
    """
    terms = found["terms"]
    shares = [(term["inclusion"], term["inclusion_of_any"]) for term in terms]
    n_terms, r2, inclusion = (
        text if found["found"] else f"({text})"
        for text in (
            str(len(terms)),
            f"{found['r2']:.3f} ± {found['r2_error']:.3f}",
            ", ".join(f"{own:.2f} / {either:.2f}" for own, either in shares),
        )
    )
    carried = f"{found['n_carrying']:.0f} samples"
    return [name, found["name"], n_terms, found["formula"], r2, inclusion, carried]


def table(runs: list[Path]) -> str:
    """A markdown table of the slow functions of runs.

    Raises:
        ValueError: If a run holds no explanation of a slow function.
    """
    lines: list[list[str]] = [list(HEADER), ["---"] * len(HEADER)]
    for run in runs:
        kept = [found for found in explained(RunFolder.open(run)) if _is_slow(found["name"])]
        if not kept:
            raise ValueError(
                f"run {run} holds no explanation of a slow function; finish it with `gencg run "
                "--cvs auto`, or write one with `gencg explain`"
            )
        lines += [row(run.name, found) for found in kept]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _is_slow(name: str) -> bool:
    """Whether it is a slow function; `gencg explain` adds the collective variables."""
    return name.startswith("slow ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders")
    print(table(parser.parse_args().runs))
