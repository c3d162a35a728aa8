"""Tight-binding quantum chemistry, GFN2-xTB and GFN1-xTB, through the program tblite."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gencg.energies.base import Energy
from gencg.energies.tblite_values import (
    METHODS,
    SOLVATIONS,
    Settings,
    atomic_numbers,
    build_evaluator,
)
from gencg.energies.workers import Workers
from gencg.molecule import Molecule

logger = logging.getLogger("gencg")

Array = NDArray[np.float64]


class TbliteEnergy(Energy):
    r"""Energy of a molecule by a self-consistent tight-binding method, with analytic gradients.

    .. math:: U(x) = E_\mathrm{xTB}(x) - E_0

    in kJ/mol, with :math:`E_0` the `offset`: total energies are of the order of -1e5 kJ/mol, of
    which float32 would keep 0.008. A partition function is one of U: the :math:`\log Z` of the
    total energy is lower by :math:`\beta E_0`.

    One configuration at a time: some 0.2 ms for water, 0.5 ms for methanol and 8 ms for alanine
    dipeptide on one core, the gradient included in each. Every configuration starts from the same
    guess, so that its energy does not depend on what was computed before.

    Where two atoms come closer than 0.001 nm the energy is +inf, a weight of zero. Where the
    electrons do not converge within 100 cycles there is no energy: nan, which is no sample. Both
    happen to broken geometries, such as a new generator draws; `n_failed` counts the latter, and a
    warning tells of the first. Bonds may break: the energy knows of none.

    Args:
        molecule: The molecule, or its elements, as symbols or atomic numbers.
        method: "GFN2-xTB" or "GFN1-xTB".
        charge: Total charge in e.
        n_unpaired: Number of unpaired electrons.
        solvent: Name of a solvent, such as "water"; None for vacuum.
        solvation: Its model, "alpb" or "gbsa".
        accuracy: Factor on the thresholds of convergence, 1e-6 Hartree for the energy.
        offset: :math:`E_0` in kJ/mol; by default the energy of the molecule's reference
            structure (one evaluation, not counted), and 0 where elements are given.
        n_processes: How many processes share a batch; 1 evaluates in this one. With more, a
            script needs ``if __name__ == "__main__":`` around what it does.

    Attributes:
        offset: :math:`E_0` in kJ/mol.
        n_failed: Configurations that did not converge so far.

    Raises:
        ImportError: If tblite is not installed.
        ValueError: If an argument is out of its range, an element has no parameters, the charge
            and unpaired electrons do not fit the elements, or the reference structure does not
            converge.

    References:
        | GFN2-xTB (Bannwarth, Ehlert, Grimme, 2019), https://doi.org/10.1021/acs.jctc.8b01176
        | GFN1-xTB (Grimme, Bannwarth, Shushkov, 2017), https://doi.org/10.1021/acs.jctc.7b00118
        | ALPB and GBSA (Ehlert et al., 2021), https://doi.org/10.1021/acs.jctc.1c00471
    """

    def __init__(
        self,
        molecule: Molecule | Sequence[str] | Sequence[int],
        *,
        method: str = "GFN2-xTB",
        charge: int = 0,
        n_unpaired: int = 0,
        solvent: str | None = None,
        solvation: str = "alpb",
        accuracy: float = 1.0,
        offset: float | None = None,
        n_processes: int = 1,
    ) -> None:
        for name, value, known in (
            ("method", method, METHODS), ("solvation", solvation, SOLVATIONS),
        ):  # fmt: skip
            if value not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {value!r}")
        if not (math.isfinite(accuracy) and accuracy > 0):
            raise ValueError(f"`accuracy` must be positive, got {accuracy}")
        if offset is not None and not math.isfinite(offset):
            raise ValueError(f"`offset` must be finite, in kJ/mol, got {offset}")
        if n_processes < 1:
            raise ValueError(f"`n_processes` must be positive, got {n_processes}")
        numbers = atomic_numbers(molecule.elements if isinstance(molecule, Molecule) else molecule)
        super().__init__((len(numbers), 3))
        self.settings = Settings(
            numbers, method, charge, n_unpaired, solvent, solvation, float(accuracy)
        )
        self.n_failed = 0
        # Here too, so that what is refused is refused before any process starts
        self._alone = build_evaluator(self.settings)
        self.workers = None
        if n_processes > 1:
            self.workers = Workers("tblite", n_processes, build_evaluator, self.settings)
        self.offset = 0.0 if offset is None else float(offset)
        if offset is None and isinstance(molecule, Molecule):
            self.offset = self._reference(molecule)

    def __repr__(self) -> str:
        s = self.settings
        solvent = "" if s.solvent is None else f", solvent={s.solvent!r}"
        return (
            f"TbliteEnergy({s.method!r}, n_atoms={len(s.numbers)}, charge={s.charge}, "
            f"n_unpaired={s.n_unpaired}{solvent}, offset={self.offset:.4f})"
        )

    def energy(self, x: Tensor) -> Tensor:
        return self._evaluate(x, gradient=False)[0]

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._evaluate(x, gradient=True)

    def _evaluate(self, x: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor]:
        positions = x.detach().double().cpu().numpy()
        values, gradients = (self.workers or self._alone)(positions, gradient)
        self._count_failed(positions, values)
        return (
            # Before float32 forgets the digits
            torch.as_tensor(values - self.offset).to(dtype=x.dtype, device=x.device),
            torch.as_tensor(gradients).to(dtype=x.dtype, device=x.device),
        )

    def _reference(self, molecule: Molecule) -> float:
        energy = float(self._alone(molecule.positions[None], False)[0][0])
        if not math.isfinite(energy):
            raise ValueError(
                f"{self.settings.method} does not converge at the reference structure of "
                f"{molecule!r} with `charge` {self.settings.charge} and `n_unpaired` "
                f"{self.settings.n_unpaired}; check them and the structure, or give `offset`"
            )
        return energy

    def _count_failed(self, positions: Array, values: Array) -> None:
        n = int((np.isnan(values) & np.isfinite(positions).all((1, 2))).sum())
        if n and not self.n_failed:
            logger.warning(
                "%s did not converge for %d of %d configurations, which have no energy (nan) and "
                "are left out; further ones are counted (n_failed)",
                self.settings.method,
                n,
                len(values),
            )
        self.n_failed += n
