"""Exploring results, in a notebook or without: `gencg.explore`."""

from gencg.notebook.explorer import Explorer as Explorer
from gencg.notebook.explorer import explore as explore
from gencg.notebook.route import Route as Route
from gencg.notebook.selection import Selection as Selection
