"""`gencg run` of several molecules: a folder each and one table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gencg.cli.errors import FAILED
from gencg.cli.progress import speaker


def run_many(targets: Sequence[str], options: dict[str, Any]) -> None:
    """Run every molecule of the targets with the options that were given."""
    from gencg.run.batch import expand, markdown, run_batch

    items = expand(targets)
    if options["dry_run"]:
        raise click.UsageError(f"--dry-run is for one molecule, got {len(items)}")
    first = Path(targets[0])
    name = first.stem if len(targets) == 1 else "batch"
    out = Path(options["out"] or Path("runs") / name)
    arguments = _given_options(without=("out", "deadline", "as_json", "quiet", "debug"))
    rows = run_batch(items, arguments, out, announce=speaker(options), deadline=options["deadline"])
    click.echo(json.dumps(rows, indent=2) if options["as_json"] else markdown(rows), nl=False)
    if any(row["status"] != "done" for row in rows):
        raise SystemExit(FAILED)


def _given_options(*, without: Sequence[str]) -> list[str]:
    """The options of a command that were given, as on its command line."""
    context = click.get_current_context()
    words: list[str] = []
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not isinstance(option, click.Option) or not given or name in without:
            continue
        value = context.params[name]
        values = () if option.is_flag else value if option.multiple else (value,)
        words += [option.opts[0]] if option.is_flag else []
        words += [word for v in values for word in (option.opts[0], str(v))]
    return words
