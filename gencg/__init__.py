"""From a force field to all-atom ensembles, collective variables and free energies.

The names stand in the order of the data flow. Each is loaded when it is first used, so that
importing gencg takes no time and reads and writes nothing.
"""

# ruff: noqa: I001
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gencg import systems as systems
    from gencg.systems.base import System as System
    from gencg.molecule import Molecule as Molecule
    from gencg.coordinates.base import CoordinateMap as CoordinateMap
    from gencg.coordinates.internal import InternalCoordinates as InternalCoordinates
    from gencg.energies.base import Energy as Energy
    from gencg.energies.forcefield import ForceField as ForceField
    from gencg.energies.openmm import OpenMMEnergy as OpenMMEnergy
    from gencg.energies.tblite import TbliteEnergy as TbliteEnergy
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
    from gencg.mixing import mix as mix
    from gencg import pretrained as pretrained
    from gencg.ensemble import Ensemble as Ensemble
    from gencg.ensemble import draw as draw
    from gencg.targeted import stiff_shift as stiff_shift
    from gencg.reweighting import reweight as reweight
    from gencg import analysis as analysis
    from gencg import plots as plots
    from gencg import export as export
    from gencg.export.trajectory import read_samples as read_samples
    from gencg.export.trajectory import write_samples as write_samples
    from gencg.notebook.explorer import explore as explore

_HOMES = {
    "systems": "systems",
    "System": "systems.base",
    "Molecule": "molecule",
    "CoordinateMap": "coordinates.base",
    "InternalCoordinates": "coordinates.internal",
    "Energy": "energies.base",
    "ForceField": "energies.forcefield",
    "OpenMMEnergy": "energies.openmm",
    "TbliteEnergy": "energies.tblite",
    "BoltzmannTarget": "target",
    "CoarseGrainedModel": "models.coarse_grained",
    "Objective": "objectives.base",
    "ReverseKL": "objectives.reverse_kl",
    "TemperingSchedule": "tempering",
    "ESSTempering": "tempering",
    "GeometricLadder": "tempering",
    "KLTempering": "tempering",
    "NoTempering": "tempering",
    "FitResult": "fit",
    "fit": "fit",
    "mix": "mixing",
    "pretrained": "pretrained",
    "Ensemble": "ensemble",
    "draw": "ensemble",
    "stiff_shift": "targeted",
    "reweight": "reweighting",
    "analysis": "analysis",
    "plots": "plots",
    "export": "export",
    "read_samples": "export.trajectory",
    "write_samples": "export.trajectory",
    "explore": "notebook.explorer",
}

__all__ = list(_HOMES)


class _Package(ModuleType):
    """This package: names by `_HOMES`, and `gencg.fit` is the function, not its module."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'gencg' has no attribute {name!r}")
        module = importlib.import_module(f"gencg.{_HOMES[name]}")
        value = module if name == _HOMES[name] != "fit" else getattr(module, name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds a submodule to its name whenever it is loaded
        if name == "fit" and isinstance(value, ModuleType):
            value = value.fit
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Package
