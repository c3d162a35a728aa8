"""From a force field to all-atom ensembles, collective variables and free energies.

The names stand in the order of the data flow; importing them reads and writes nothing.
"""

# ruff: noqa: I001
from gencg import systems as systems
from gencg.systems.base import System as System
from gencg.molecule import Molecule as Molecule
from gencg.coordinates.base import CoordinateMap as CoordinateMap
from gencg.coordinates.internal import InternalCoordinates as InternalCoordinates
from gencg.energies.base import Energy as Energy
from gencg.energies.forcefield import ForceField as ForceField
from gencg.energies.openmm import OpenMMEnergy as OpenMMEnergy
from gencg.target import BoltzmannTarget as BoltzmannTarget
from gencg.models.coarse_grained import CoarseGrainedModel as CoarseGrainedModel
from gencg.objectives.base import Objective as Objective
from gencg.objectives.reverse_kl import ReverseKL as ReverseKL
from gencg.tempering import TemperingSchedule as TemperingSchedule
from gencg.tempering import ESSTempering as ESSTempering
from gencg.tempering import GeometricLadder as GeometricLadder
from gencg.tempering import KLTempering as KLTempering
from gencg.tempering import NoTempering as NoTempering
from gencg.fit import FitResult as FitResult
from gencg.fit import fit as fit
from gencg.ensemble import Ensemble as Ensemble
from gencg.ensemble import draw as draw
from gencg.export import read_samples as read_samples
from gencg.export import write_samples as write_samples
