"""A molecule with parameters: what every reader of other programs' files gives."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Parametrised:
    """A molecule as OpenMM has it, before coordinates are chosen.

    Attributes:
        system: OpenMM ``System``.
        topology: OpenMM ``Topology``.
        positions: The structure as it is given, shape ``(n_atoms, 3)``, in nm.
        force_field: Where its parameters come from, in words.
        is_rough: Whether the structure was built by rules, far from a minimum of the energy.
    """

    system: Any
    topology: Any
    positions: NDArray[np.float64]
    force_field: str
    is_rough: bool = False
