"""`gencg explain`: collective variables in chemical words."""

from typing import Any

import click

from gencg.cli.command import Command
from gencg.cli.completion import Run
from gencg.cli.options import OUTPUT, with_options
from gencg.cli.output import show
from gencg.cli.parameters import COUNT


@click.command(
    cls=Command,
    examples=(
        "gencg explain runs/ala2",
        "gencg explain runs/ala2 --max-terms 2 --json",
    ),
)
@click.argument("folder", metavar="RUN", type=Run())
@click.option(
    "--max-terms", type=COUNT, default=4, show_default=True, help="Terms of a formula at most."
)
@with_options(OUTPUT)
def explain(folder: str, max_terms: int, **options: Any) -> None:
    """Formulas for the CVs of RUN, in chemical words.

    Of its slow functions, too, each with its held-out R², or the answer that there is no short one.
    Writes explain.json and a picture of each into the figures of RUN.
    """
    from gencg.analysis.cv_names import shorter
    from gencg.run import RunFolder
    from gencg.run.explain import angle_of, explain_run

    opened = RunFolder.open(folder)
    with opened.locked():
        result = explain_run(opened, max_terms=max_terms)
    rows = [explanation.numbers() for explanation in result.explanations]
    files = [str(path) for path in result.files]
    told = [str(found) for found in result.explanations if not found.is_itself]
    # An angle is explained as cos and sin, and named once
    plain = {angle_of(found.name) for found in result.explanations if found.is_itself}
    told += [f"{name}: a CV that is a torsion itself" for name in sorted(plain)]
    text = "\n".join([*map(shorter, told), files[0]])
    show(options, {"explanations": rows, "files": files}, text)
