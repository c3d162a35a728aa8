"""Units: nm, kJ/mol, K, ps, rad, and the Boltzmann constant that joins them."""

import math

BOLTZMANN_CONSTANT = 8.31446261815324e-3
"""Molar Boltzmann constant in kJ/(mol K) (CODATA 2018, exact)."""
BOHR = 0.0529177210903
"""Atomic unit of length in nm (CODATA 2018)."""
HARTREE = 2625.4996394798254
"""Atomic unit of energy in kJ/mol (CODATA 2018)."""


def check_temperature(temperature: float) -> float:
    """Return `temperature` in K, or raise `ValueError` if it is not positive and finite."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"`temperature` must be positive and finite, in K, got {temperature}")
    return float(temperature)


def inverse_temperature(temperature: float) -> float:
    r"""Inverse temperature :math:`\beta = 1 / k_B T` in mol/kJ of a temperature in K.

    >>> round(inverse_temperature(300.0), 4)
    0.4009
    """
    return 1.0 / (BOLTZMANN_CONSTANT * check_temperature(temperature))


def temperature_of(beta: float) -> float:
    r"""Temperature :math:`T = 1 / k_B \beta` in K of an inverse temperature in mol/kJ."""
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"`beta` must be positive and finite, in mol/kJ, got {beta}")
    return 1.0 / (BOLTZMANN_CONSTANT * beta)
