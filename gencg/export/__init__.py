"""Ensembles and collective variables for other programs."""

from gencg.export.checks import Check as Check
from gencg.export.checks import ExportError as ExportError
from gencg.export.colvar_text import read_colvar as read_colvar
from gencg.export.colvar_text import write_colvar as write_colvar
from gencg.export.cv_function import CVFunction as CVFunction
from gencg.export.exporting import CV_FORMATS as CV_FORMATS
from gencg.export.exporting import check_formats as check_formats
from gencg.export.exporting import export_cvs as export_cvs
from gencg.export.loading import load_trajectory as load_trajectory
from gencg.export.soft_cvs import soft_cv_function as soft_cv_function
from gencg.export.structures import write_equal_weight as write_equal_weight
from gencg.export.structures import write_structures as write_structures
from gencg.export.tables import check_table as check_table
from gencg.export.tables import write_table as write_table
from gencg.export.trajectory import read_samples as read_samples
from gencg.export.trajectory import write_samples as write_samples
