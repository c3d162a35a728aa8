"""`gencg completion`: words that the shell completes."""

import click

from gencg.cli.command import Command


@click.command(
    cls=Command,
    examples=(
        'eval "$(gencg completion bash)"    # in ~/.bashrc',
        'eval "$(gencg completion zsh)"     # in ~/.zshrc',
        "gencg completion fish > ~/.config/fish/completions/gencg.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which a shell completes words.

    Verbs, options, names of systems, molecule files and run folders. SHELL is bash 4.4 or later,
    zsh or fish.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "gencg", "_GENCG_COMPLETE").source())
