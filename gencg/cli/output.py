"""What a verb prints on stdout: its result, in words or as JSON."""

import json
from collections.abc import Mapping
from typing import Any

import click


def show(options: Mapping[str, Any], numbers: Any, text: str) -> None:
    """Print the result of a verb, whatever `--quiet` says: that is about progress.

    Args:
        options: Options of the verb, of which ``as_json`` counts.
        numbers: The result as plain values; floats that are not finite become null.
        text: The result in words.
    """
    if not options["as_json"]:
        click.echo(text)
        return
    from gencg.run.record import finite

    click.echo(json.dumps(finite(numbers), indent=2))
