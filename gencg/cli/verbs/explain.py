"""`gencg explain`: collective variables in chemical words."""

import json
from typing import Any

import click

from gencg.cli.options import OUTPUT, with_options
from gencg.cli.parameters import COUNT, Command


@click.command(cls=Command)
@click.argument("folder", metavar="RUN", type=click.Path())
@click.option(
    "--max-terms", type=COUNT, default=4, show_default=True, help="Terms of a formula at most."
)
@with_options(OUTPUT)
def explain(folder: str, max_terms: int, **options: Any) -> None:
    """Formulas for the collective variables of RUN, in chemical words.

    Of its slow functions, too, each with its held-out R², or the answer that there is no short one.
    Writes explain.json and a picture of each into the figures of RUN.
    """
    from gencg.run import RunFolder
    from gencg.run.explain import explain_run
    from gencg.run.record import finite

    result = explain_run(RunFolder.open(folder), max_terms=max_terms)
    if options["as_json"]:
        rows = [explanation.numbers() for explanation in result.explanations]
        files = [str(path) for path in result.files]
        click.echo(json.dumps(finite({"explanations": rows, "files": files}), indent=2))
    elif not options["quiet"]:
        click.echo("\n".join([*map(str, result.explanations), str(result.files[0])]))
