"""States of a system: a toy's own, a peptide's Ramachandran basins, or rotamers."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gencg.analysis.histogram import to_array, wrap
from gencg.analysis.torsions import Torsions, residue_pairs
from gencg.energies.toy import Toy

BoolArray = NDArray[np.bool_]


def states(system: Any, ensemble: Any, torsions: Torsions) -> dict[str, BoolArray]:
    """Which samples lie in which state: name to ``(n,)`` bool.

    A toy brings its own states. A residue of a peptide has the four of `ramachandran_basins`:
    one residue gives plain names ("alpha_L"), several put the residue's first ("ALA2 alpha_L").
    Any other molecule has the three rotamers of each of its first two soft torsions.

    Args:
        system: The system, for a toy's states.
        ensemble: Samples with `x`.
        torsions: From `ensemble_torsions`.
    """
    if isinstance(system.energy, Toy):
        masks = system.energy.states(torch.as_tensor(ensemble.x))
        return {name: to_array(mask) > 0 for name, mask in masks.items()}
    pairs = residue_pairs(torsions)
    found: dict[str, BoolArray] = {}
    for residue, (phi, psi) in pairs.items():
        prefix = f"{residue} " if len(pairs) > 1 else ""
        found.update({prefix + k: mask for k, mask in ramachandran_basins(phi, psi).items()})
    if not pairs:
        for label in torsions.labels[:2]:
            found.update({f"{label} {k}": m for k, m in rotamer_basins(torsions[label]).items()})
    return found


def ramachandran_basins(phi: Any, psi: Any) -> dict[str, BoolArray]:
    """The four basins of a residue; every sample is in exactly one of them.

    ========  ==========================  =====================
    basin     phi                         psi
    ========  ==========================  =====================
    alpha_L   0 to 126 deg                any
    alpha_R   the rest of the circle      -120 to 50 deg
    PPII      -110 to 0 deg               50 to 240 deg
    beta      126 to 250 deg              50 to 240 deg
    ========  ==========================  =====================

    The borders lie near the ridges of the map of alanine dipeptide; between studies they move by
    some ten degrees, so that numbers are comparable only at equal borders. A sample whose angles
    are not finite is in none.

    Args:
        phi: Angles in radians, ``(n,)``.
        psi: Angles in radians, ``(n,)``.

    >>> masks = ramachandran_basins([-1.2, 1.0], [2.5, 0.7])
    >>> [name for name, mask in masks.items() if mask[1]]
    ['alpha_L']
    """
    phi, psi = np.degrees(wrap(phi)), np.degrees(wrap(psi))
    finite = np.isfinite(phi) & np.isfinite(psi)
    left = finite & (phi >= 0) & (phi < 126)
    right = finite & ~left & (psi >= -120) & (psi < 50)
    poly = finite & ~left & ~right & (phi >= -110) & (phi < 0)
    return {
        "alpha_L": left,
        "alpha_R": right,
        "PPII": poly,
        "beta": finite & ~(left | right | poly),
    }


def rotamer_basins(torsion: Any) -> dict[str, BoolArray]:
    """Thirds of the circle: trans (beyond 120 deg), gauche+ (0 to 120), gauche- (-120 to 0).

    Args:
        torsion: Angles in radians, ``(n,)``; one that is not finite is in none.
    """
    angle = np.degrees(wrap(torsion))
    plus, minus = (angle >= 0) & (angle < 120), (angle < 0) & (angle >= -120)
    return {"trans": np.abs(angle) >= 120, "gauche+": plus, "gauche-": minus & (angle > -120)}
