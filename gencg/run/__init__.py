"""A run and its folder: created or resumed, trained, drawn from, reported."""

from gencg.run.execute import check_generator as check_generator
from gencg.run.execute import rewrite_report as rewrite_report
from gencg.run.execute import run as run
from gencg.run.execute import sample as sample
from gencg.run.execute import train as train
from gencg.run.execute import trained as trained
from gencg.run.export import cv_function as cv_function
from gencg.run.export import export_run as export_run
from gencg.run.folder import RunFolder as RunFolder
from gencg.run.states import find_states as find_states
from gencg.run.states import write_states as write_states
from gencg.run.use import CollectiveRun as CollectiveRun
from gencg.run.use import sampler as sampler
from gencg.run.use import with_cvs as with_cvs
from gencg.run.walk import walk_run as walk_run
from gencg.run.walk import write_walk as write_walk
