"""From a trained generator to slow collective variables and the joint model."""

from gencg.discover.covering import covering_samples as covering_samples
from gencg.discover.joint import REFIT as REFIT
from gencg.discover.joint import fit_joint as fit_joint
from gencg.discover.reheating import REHEATING as REHEATING
from gencg.discover.reheating import Reheated as Reheated
from gencg.discover.reheating import reheat as reheat
from gencg.discover.slow_cvs import SlowCVs as SlowCVs
from gencg.discover.slow_cvs import find_slow_cvs as find_slow_cvs
from gencg.discover.state import restore_slow as restore_slow
from gencg.discover.state import slow_state as slow_state
