"""What an ensemble says: free energies, torsions, states, coverage, and the verdict in words."""

from gencg.analysis.assessment import Assessment as Assessment
from gencg.analysis.assessment import assess as assess
from gencg.analysis.basins import Basin as Basin
from gencg.analysis.basins import find_basins as find_basins
from gencg.analysis.collective import SlowMaps as SlowMaps
from gencg.analysis.collective import slow_function_maps as slow_function_maps
from gencg.analysis.coverage import Coverage as Coverage
from gencg.analysis.coverage import LostBin as LostBin
from gencg.analysis.coverage import check_coverage as check_coverage
from gencg.analysis.exact_slow import ExactSlowFunctions as ExactSlowFunctions
from gencg.analysis.free_energy import FreeEnergySurface as FreeEnergySurface
from gencg.analysis.free_energy import free_energy_surface as free_energy_surface
from gencg.analysis.histogram import Histogram as Histogram
from gencg.analysis.histogram import weighted_histogram as weighted_histogram
from gencg.analysis.states import ramachandran_basins as ramachandran_basins
from gencg.analysis.states import rotamer_basins as rotamer_basins
from gencg.analysis.states import states as states
from gencg.analysis.torsions import Torsions as Torsions
from gencg.analysis.torsions import ensemble_torsions as ensemble_torsions
from gencg.analysis.torsions import ramachandran_total_variation as ramachandran_total_variation
from gencg.analysis.torsions import torsion_angles as torsion_angles
from gencg.analysis.verdict import Verdict as Verdict
from gencg.analysis.verdict import judge as judge
