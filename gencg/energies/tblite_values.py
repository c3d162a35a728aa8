"""What tblite computes of plain numbers, and what it must not be asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.energies.workers import Evaluator
from gencg.units import BOHR, HARTREE

Array = NDArray[np.float64]

METHODS = ("GFN2-xTB", "GFN1-xTB")
SOLVATIONS = ("alpb", "gbsa")
HEAVIEST = 86
"""The last element with parameters, radon."""
TOO_CLOSE = 1e-3
"""Distance in nm of two atoms below which the energy is infinite; tblite finds 1e6 kJ/mol there."""
MAX_CYCLES = 100
"""Cycles after which the electrons count as not converged.

Molecules need 10 to 20, torn ones up to some 50; what has not converged by then rarely does, and a
cycle becomes slower with the number before it.
"""


@dataclass(frozen=True)
class Settings:
    """What a calculation is about, as plain values that go to another process."""

    numbers: tuple[int, ...]
    method: str
    charge: int
    n_unpaired: int
    solvent: str | None
    solvation: str
    accuracy: float


def build_evaluator(settings: Settings) -> Evaluator:
    """What evaluates a molecule in this process.

    Raises:
        ImportError: If tblite is not installed.
        ValueError: If the electrons do not fit the elements, or the solvent is not known.
    """
    interface = _interface()
    n_electrons = _n_electrons(settings)
    n_atoms = len(settings.numbers)
    # Anywhere: the calculator wants a geometry, and gets another one each time
    apart = np.arange(3.0 * n_atoms).reshape(n_atoms, 3) / BOHR
    calculator = interface.Calculator(
        settings.method,
        np.array(settings.numbers),
        apart,
        charge=float(settings.charge),
        uhf=settings.n_unpaired,
    )
    n_orbitals = int((2 * np.asarray(calculator.get("angular-momenta")) + 1).sum())
    # tblite writes beyond its arrays, or computes another molecule, where these do not hold
    if settings.n_unpaired > min(n_electrons, 2 * n_orbitals - n_electrons):
        raise ValueError(
            f"`charge` {settings.charge} and `n_unpaired` {settings.n_unpaired} do not fit: "
            f"{n_electrons} valence electrons go into {n_orbitals} orbitals"
        )
    for name, value in (
        ("verbosity", 0), ("max-iter", MAX_CYCLES), ("accuracy", settings.accuracy),
    ):  # fmt: skip
        calculator.set(name, value)
    if settings.solvent is not None:
        try:
            calculator.add(f"{settings.solvation}-solvation", settings.solvent)
        except RuntimeError as error:
            raise ValueError(
                f"`solvent` must be one that {settings.solvation.upper()} has parameters for with "
                f"{settings.method}, such as water, got {settings.solvent!r} ({error})"
            ) from None
    return partial(evaluate, calculator)


def evaluate(calculator: Any, positions: Array, gradient: bool) -> tuple[Array, Array]:
    """Total energies ``(n,)`` in kJ/mol, gradients ``(n, n_atoms, 3)`` or none of them."""
    values = np.empty(len(positions))
    gradients = np.empty_like(positions if gradient else positions[:0])
    for k, configuration in enumerate(positions):
        values[k], slope = _single_point(calculator, configuration)
        if gradient:
            gradients[k] = slope
    return values, gradients


def _single_point(calculator: Any, configuration: Array) -> tuple[float, Array | float]:
    """Energy and gradient: inf and 0 where two atoms coincide, nan where there is none."""
    if not np.isfinite(configuration).all():
        return math.nan, math.nan
    if _collapsed(configuration):
        return math.inf, 0.0
    try:
        calculator.update(configuration / BOHR)
        result = calculator.singlepoint()
    except RuntimeError:
        # Electrons that do not converge, or a matrix that cannot be diagonalised
        return math.nan, math.nan
    return HARTREE * float(result.get("energy")), HARTREE / BOHR * result.get("gradient")


def _collapsed(configuration: Array) -> bool:
    """Whether two atoms lie closer than `TOO_CLOSE`."""
    i, j = np.triu_indices(len(configuration), 1)
    squares = ((configuration[i] - configuration[j]) ** 2).sum(-1)
    return bool((squares < TOO_CLOSE**2).any())


def atomic_numbers(elements: Sequence[str] | Sequence[int]) -> tuple[int, ...]:
    """Atomic numbers of symbols or numbers.

    Raises:
        ValueError: If there is none, or an element has no parameters.
    """
    if not len(elements):
        raise ValueError("`molecule` must hold at least one element, got none")
    known = _interface().SYMBOL_TO_NUMBER
    numbers = [known.get(e.capitalize(), 0) if isinstance(e, str) else int(e) for e in elements]
    for element, number in zip(elements, numbers, strict=True):
        if not 1 <= number <= HEAVIEST:
            raise ValueError(f"`molecule` must hold elements from H to Rn, got {element!r}")
    return tuple(numbers)


def valence_electrons(number: int) -> int:
    """Electrons that GFN1 and GFN2 compute explicitly, of a neutral atom.

    Those outside the last noble gas, without the 4f of all and, from zinc, cadmium and mercury
    on, without the filled d shell. Lanthanides have three.
    """
    n = number - max(core for core in (0, 2, 10, 18, 36, 54) if core < number)
    if number > 54 + 2:
        n = 3 if number < 72 else n - 14
    return n - 10 if number >= 30 and n >= 12 else n


def _n_electrons(settings: Settings) -> int:
    """Valence electrons of the molecule; `ValueError` where charge or spin contradict them."""
    if settings.n_unpaired < 0:
        raise ValueError(f"`n_unpaired` must not be negative, got {settings.n_unpaired}")
    neutral = sum(map(valence_electrons, settings.numbers))
    n = neutral - settings.charge
    if n < 1:
        raise ValueError(
            f"`charge` must leave a valence electron of {neutral}, got {settings.charge}"
        )
    if (n - settings.n_unpaired) % 2:
        odd = "an odd" if n % 2 else "an even"
        raise ValueError(
            f"`charge` {settings.charge} leaves {n} valence electrons, {odd} number, which does "
            f"not go with `n_unpaired` {settings.n_unpaired}; correct one of them"
        )
    return n


def _interface() -> Any:
    try:
        from tblite import interface
    except ImportError as error:
        raise ImportError(
            f"quantum-chemical energies need tblite ({error}): pip install 'gencg[qm]'"
        ) from None
    return interface
