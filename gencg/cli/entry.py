"""The `gencg` command: its verbs, and what becomes of an error.

Heavy imports happen inside the commands, so that ``gencg --help`` answers at once.
"""

import os
import sys
from importlib import import_module

import click

from gencg import files
from gencg.cli.command import Command
from gencg.cli.errors import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    TIME_IS_UP,
    UNWRITABLE,
    complain,
    is_out_of_memory,
    reraise_if_debugging,
    warnings_told,
)
from gencg.cli.verbs import VERBS
from gencg.deadline import TimeIsUp


class Group(click.Group):
    """Verbs in the order in which they were added."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gencg")
def app() -> None:
    """From a force field to all-atom ensembles, without simulation data."""


for _name in VERBS:
    app.add_command(getattr(import_module(f"gencg.cli.verbs.{_name}"), _name))


def main(args: list[str] | None = None) -> None:
    """Run the command; bad input is one line on stderr and exit code 2."""
    args = sys.argv[1:] if args is None else args
    # Threads that spin while they wait stand still as soon as another program wants a core;
    # read when torch is first imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings_told():
        _main(args)


def _main(args: list[str]) -> None:
    try:
        app.main(args, prog_name="gencg", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted; the same command goes on from its last checkpoint")
        sys.exit(INTERRUPTED)
    except TimeIsUp as late:
        # Of several processes one speaks
        if os.environ.get("RANK", "0") == "0":
            complain(f"{late}; the same command goes on from there")
        sys.exit(TIME_IS_UP)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(BAD_INPUT)
    except click.ClickException as error:
        verb = f"{args[0]} " if args and args[0] in app.commands else ""
        complain(f"{error.format_message().rstrip('.')}; see gencg {verb}--help")
        sys.exit(BAD_INPUT)
    except OSError as error:
        reraise_if_debugging(args)
        place = f"{error.filename}: " if error.filename else ""
        reason = f"{place}{error.strerror}" if error.strerror else str(error)
        if error.errno not in files.UNWRITABLE:
            complain(reason or type(error).__name__)
            sys.exit(BAD_INPUT)
        cure = "make room" if error.errno in files.FULL else "make the disk writable"
        complain(f"{reason}; {cure} and run the same command: all that was written before is whole")
        sys.exit(UNWRITABLE)
    except (MemoryError, ValueError, RuntimeError) as error:
        reraise_if_debugging(args)
        if is_out_of_memory(error):
            complain(
                "out of memory; ask for fewer samples or a smaller batch, or close other programs"
            )
            sys.exit(FAILED)
        complain(str(error) or type(error).__name__)
        sys.exit(BAD_INPUT)
    except Exception as error:
        reraise_if_debugging(args)
        complain(
            f"unexpected {type(error).__name__}: {error}; run again with --debug for the "
            "traceback and report it"
        )
        sys.exit(FAILED)
