"""The `gencg` command: reads options, calls the library, prints.

A verb is a file of `gencg.cli.verbs` and a line of its list.
"""

from gencg.cli.entry import app as app
from gencg.cli.entry import main as main
