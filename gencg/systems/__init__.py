"""Ready-made problems with their known answers, and molecules from files."""

from gencg.systems.amber import from_prmtop as from_prmtop
from gencg.systems.base import System as System
from gencg.systems.from_energy import from_energy as from_energy
from gencg.systems.gromacs import from_gromacs as from_gromacs
from gencg.systems.molecules import alanine_dipeptide as alanine_dipeptide
from gencg.systems.molecules import alanine_hexapeptide as alanine_hexapeptide
from gencg.systems.molecules import alanine_tetrapeptide as alanine_tetrapeptide
from gencg.systems.molecules import from_pdb as from_pdb
from gencg.systems.molecules import from_system as from_system
from gencg.systems.registry import SYSTEMS as SYSTEMS
from gencg.systems.registry import default_force_field as default_force_field
from gencg.systems.registry import describe as describe
from gencg.systems.registry import load as load
from gencg.systems.registry import overview as overview
from gencg.systems.sdf import from_sdf as from_sdf
from gencg.systems.sequence import from_sequence as from_sequence
from gencg.systems.smiles import from_smiles as from_smiles
from gencg.systems.toys import butane as butane
from gencg.systems.toys import curved_wells as curved_wells
from gencg.systems.toys import double_well as double_well
from gencg.systems.toys import gaussian_mixture as gaussian_mixture
from gencg.systems.toys import mueller_brown as mueller_brown
