"""One HTML page for a run, with its figures and structures beside it."""

from gencg.files import write_atomically as write_atomically
from gencg.report.page import write_report as write_report
from gencg.report.pieces import percent as percent
