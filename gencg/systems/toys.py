"""Toy problems with exact answers, ready to fit."""

from gencg.coordinates.base import Cartesian
from gencg.energies.toy import (
    ButaneTorsion,
    CurvedWells,
    DoubleWell,
    GaussianMixture,
    MuellerBrown,
    Toy,
)
from gencg.systems.base import System
from gencg.units import check_temperature, inverse_temperature, temperature_of

UNIT_TEMPERATURE = temperature_of(1.0)
r"""Temperature in K at which :math:`\beta` is 1 mol/kJ, the papers' :math:`\beta = 1`: 120.27 K."""


def double_well(*, temperature: float = UNIT_TEMPERATURE) -> System:
    """Two wells of very unequal weight (Schöberl et al. 2020), at the paper's beta of 1."""
    return _toy(
        "double-well",
        DoubleWell(),
        Cartesian(2, scale=3.0),
        temperature,
        "two wells in the plane, the right one holds 0.8 % (Schöberl et al. 2020)",
    )


def mueller_brown(*, temperature: float = 300.0) -> System:
    """Müller-Brown surface at 300 K: three basins in a bent valley."""
    return _toy(
        "mueller-brown",
        MuellerBrown(),
        Cartesian(2, scale=1.5),
        temperature,
        "three basins in a bent valley, Müller-Brown scaled by 0.15 kJ/mol",
    )


def curved_wells(*, temperature: float = UNIT_TEMPERATURE) -> System:
    """Two equal wells along a parabola: the slow coordinate is curved."""
    return _toy(
        "curved-wells",
        CurvedWells(),
        Cartesian(2, scale=1.5),
        temperature,
        "two equal wells along a parabola, whose slow coordinate is curved",
    )


def gaussian_mixture(*, temperature: float = UNIT_TEMPERATURE) -> System:
    """Sixteen normal modes of unequal weight, normalised at the default temperature."""
    return _toy(
        "gaussian-mixture",
        GaussianMixture(),
        Cartesian(2, scale=4.0),
        temperature,
        "sixteen modes of unequal weight on a square lattice, log Z = 0",
    )


def butane(*, temperature: float = 300.0) -> System:
    """Central torsion of n-butane (Ryckaert-Bellemans) at 300 K."""
    return _toy(
        "butane",
        ButaneTorsion(),
        Cartesian(1, periodic=True),
        temperature,
        "n-butane as one torsion, Ryckaert-Bellemans potential",
    )


def _toy(
    name: str, energy: Toy, coordinates: Cartesian, temperature: float, description: str
) -> System:
    beta = inverse_temperature(check_temperature(temperature))
    known = {
        "log_z": energy.log_partition(beta),
        "populations": energy.populations(beta),
        "mean": energy.mean(beta),
        "variance": energy.variance(beta),
        "mean_energy": energy.mean_energy(beta),
        "source": "quadrature",
    }
    return System(
        name=name,
        energy=energy,
        coordinates=coordinates,
        temperature=temperature,
        description=description,
        known=known,
        settings={"energy_calls": 6e5},
    )
