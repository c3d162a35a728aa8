"""Ensembles and collective variables for other programs."""

from gencg.export.structures import write_structures as write_structures
from gencg.export.trajectory import read_samples as read_samples
from gencg.export.trajectory import write_samples as write_samples
