"""Ensembles and collective variables for other programs."""

from gencg.export.loading import load_trajectory as load_trajectory
from gencg.export.structures import write_structures as write_structures
from gencg.export.tables import check_table as check_table
from gencg.export.tables import write_table as write_table
from gencg.export.trajectory import read_samples as read_samples
from gencg.export.trajectory import write_samples as write_samples
