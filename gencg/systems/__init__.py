"""Ready-made problems with their known answers."""

from gencg.systems.base import System as System
from gencg.systems.toys import butane as butane
from gencg.systems.toys import double_well as double_well
from gencg.systems.toys import gaussian_mixture as gaussian_mixture
from gencg.systems.toys import mueller_brown as mueller_brown
