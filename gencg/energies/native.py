"""The terms of a force field as machine code: built once per machine, called through ctypes."""

import ctypes
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gencg.energies.bonded import FourierTorsions, HarmonicAngles, HarmonicBonds, HarmonicTorsions
from gencg.energies.cmap import CorrectionMaps
from gencg.energies.implicit_solvent import MINIMUM_INVERSE_RADIUS, GeneralizedBorn
from gencg.energies.mmff_terms import (
    BufferedCoulomb,
    BufferedVanDerWaals,
    CubicAngles,
    LinearAngles,
    QuarticBonds,
    StretchBends,
    WilsonAngles,
)
from gencg.energies.nonbonded import PairTable
from gencg.native import load_library

SOURCE = Path(__file__).with_name("native.cpp")
PAIRS_PER_THREAD = 4096
"""Blocks times squared atoms which are worth the start of another thread."""

Array = NDArray[np.float64]


class UnsupportedTermError(TypeError):
    """A term which has no machine code."""


class Term(ctypes.Structure):
    """A term as ``native.cpp`` takes it."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("n_rows", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("flags", ctypes.c_int64),
        ("index", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
    )


# --- Calling ------------------------------------------------------------------------------------


class NativeForceField:
    """Terms with their parameters in one dtype, evaluated by the library.

    Args:
        terms: The terms of a `ForceField`.
        n_atoms: Number of atoms.
        dtype: float32 or float64.

    Raises:
        UnsupportedTermError: If a term or the dtype has no machine code.
        RuntimeError: If the library cannot be built.
    """

    def __init__(self, terms: Iterable[nn.Module], n_atoms: int, dtype: torch.dtype) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise UnsupportedTermError(f"{dtype} has no machine code")
        self.n_atoms, self.dtype = n_atoms, dtype
        self.number = np.float32 if dtype == torch.float32 else np.float64
        described = describe_terms(terms)
        library = load_library(SOURCE)
        name = "float32" if dtype == torch.float32 else "float64"
        self._evaluate = getattr(library, f"evaluate_{name}")
        self._evaluate.restype = ctypes.c_bool
        self.n_lanes: int = getattr(library, f"lanes_{name}")()
        self._kept: list[NDArray[Any]] = []
        self._terms = (Term * len(described))(*map(self._pack, described))
        n_pairs = n_atoms * (n_atoms - 1) // 2
        has_born = any(term["kind"] == BORN for term in described)
        self._n_scratch = 5 * n_atoms + 2 * n_pairs if has_born else 0

    def __call__(self, x: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor]:
        """Energies ``(n,)`` and gradients, of the shape of `x` or empty if not asked for."""
        x = x.detach().contiguous()
        energy = x.new_empty(len(x))
        slope = x.new_empty(x.shape if gradient else (0,))
        n_blocks = -(-len(x) // self.n_lanes)
        n_threads = min(n_blocks, n_blocks * self.n_atoms**2 // PAIRS_PER_THREAD)
        n_threads = max(1, min(torch.get_num_threads(), n_threads))
        sizes = (len(self._terms), self.n_atoms, self._n_scratch, len(x))
        done = self._evaluate(
            self._terms,
            *map(ctypes.c_int64, sizes),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_void_p(energy.data_ptr()),
            ctypes.c_void_p(slope.data_ptr() if gradient else None),
            ctypes.c_int64(n_threads),
        )
        if not done:
            size = self._n_scratch * self.n_lanes * x.element_size()
            raise MemoryError(f"no memory for {n_threads} blocks of {size / 1e6:.0f} MB each")
        return energy, slope

    def _pack(self, description: dict[str, Any]) -> Term:
        """A description as the library takes it; the arrays are kept alive here."""
        term = Term(**{k: description.get(k, 0) for k in ("kind", "n_rows", "width", "flags")})
        for name, dtype in (("index", np.int64), ("values", self.number), ("table", self.number)):
            if name in description:
                array = np.ascontiguousarray(description[name], dtype)
                self._kept.append(array)
                setattr(term, name, array.ctypes.data)
        return term


# --- Describing: kinds and layouts as in native.cpp -----------------------------------------------

BONDS, ANGLES, FOURIER, HARMONIC, MAPS, PAIRS, BORN = range(7)
QUARTIC, CUBIC, LINEAR, STRETCH_BEND, WILSON, BUFFERED, CHARGES = range(7, 14)
TANH, NECK, BURIED, SURFACE = 1, 2, 4, 8


def describe_terms(terms: Iterable[nn.Module]) -> list[dict[str, Any]]:
    """Terms in the layout of the library; those that need the same distances go together."""
    described = []
    for term in terms:
        describe = DESCRIPTIONS.get(type(term))
        if describe is None:
            raise UnsupportedTermError(f"{type(term).__name__} has no machine code")
        described.append(describe(term))
    first = {term["kind"]: term for term in reversed(described)}
    if {PAIRS, BORN} <= first.keys():
        first[BORN]["table"] = first[PAIRS]["table"]
        described.remove(first[PAIRS])
    if {CHARGES, BUFFERED} <= first.keys():
        first[BUFFERED]["table"][:, 0] = first[CHARGES]["table"][:, 0]
        described.remove(first[CHARGES])
    return described


def describe_bonds(term: HarmonicBonds | QuarticBonds) -> dict[str, Any]:
    """Index (i, j), values (r0, k / 2)."""
    kind = QUARTIC if isinstance(term, QuarticBonds) else BONDS
    return rows(kind, term.atoms, term.length, term.half_k)


def describe_angles(term: HarmonicAngles | CubicAngles) -> dict[str, Any]:
    """Index (i, j, k), values (theta0, k / 2)."""
    kind = CUBIC if isinstance(term, CubicAngles) else ANGLES
    return rows(kind, term.atoms, term.angle, term.half_k)


def describe_fourier_torsions(term: FourierTorsions) -> dict[str, Any]:
    """Index (i, j, k, l), values (a_0 .. a_N, b_0 .. b_N)."""
    described = rows(FOURIER, term.atoms, *term.cosines, *term.sines)
    return described | {"width": len(term.cosines), "flags": int(term.has_sines)}


def describe_harmonic_torsions(term: HarmonicTorsions) -> dict[str, Any]:
    """Index (i, j, k, l), values (phi0, k, turn)."""
    return rows(HARMONIC, term.atoms, term.angle, term.k, term.turn)


def describe_maps(term: CorrectionMaps) -> dict[str, Any]:
    """Index (two quadruples, size, first patch), table of 16 coefficients per patch."""
    where = torch.cat([term.size, term.start], 1).numpy()
    described = rows(MAPS, np.concatenate([term.atoms, where], 1))
    return described | {"table": term.coefficients.T.numpy()}


def describe_pairs(term: PairTable) -> dict[str, Any]:
    """Table (k q_i q_j, A, B) of all pairs i < j."""
    upper = np.triu_indices(len(term.charges), 1)
    # The module meets every pair twice, and halves
    columns = [2 * table[..., 0].numpy()[upper] for table in (term.charges, term.a, term.b)]
    return {"kind": PAIRS, "table": np.stack(columns, -1)}


def describe_linear_angles(term: LinearAngles) -> dict[str, Any]:
    """Index (i, j, k), values (k)."""
    return rows(LINEAR, term.atoms, term.k)


def describe_stretch_bends(term: StretchBends) -> dict[str, Any]:
    """Index (i, j, k), values (theta0, r10, r20, k1, k2)."""
    return rows(STRETCH_BEND, term.atoms, term.angle, *term.lengths, *term.k)


def describe_wilson_angles(term: WilsonAngles) -> dict[str, Any]:
    """Index (i, j, k, l), values (k / 2)."""
    return rows(WILSON, term.atoms, term.half_k)


def describe_van_der_waals(term: BufferedVanDerWaals) -> dict[str, Any]:
    """Table (0, 1 / R, depth) of all pairs i < j."""
    upper = np.triu_indices(len(term.depth), 1)
    # The module meets every pair twice, and halves
    depth, inverse = 2 * term.depth[..., 0].numpy()[upper], term.inverse_radius[..., 0].numpy()
    return {"kind": BUFFERED, "table": np.stack([0 * depth, inverse[upper], depth], -1)}


def describe_charges(term: BufferedCoulomb) -> dict[str, Any]:
    """Table (k q_i q_j, 1, 0) of all pairs i < j."""
    charges = 2 * term.charges[..., 0].numpy()[np.triu_indices(len(term.charges), 1)]
    return {"kind": CHARGES, "table": np.stack([charges, 0 * charges + 1, 0 * charges], -1)}


def describe_born(term: GeneralizedBorn) -> dict[str, Any]:
    """Values: model, atoms, necks (both depths and positions, reach) of all pairs i < j."""
    model = [term.inside, term.outside, term.kappa, MINIMUM_INVERSE_RADIUS]
    per_atom = (term.rho, term.inverse_rho, term.inverse_radius, term.scaled, term.surface)
    atoms = torch.cat([term.charge, *per_atom, term.tanh[..., 0].T], 1).numpy()
    depth, position, reach = (
        table[..., 0].numpy() for table in (term.neck_depth, term.neck_position, term.neck_reach)
    )
    upper = np.triu_indices(len(atoms), 1)
    columns = [table[upper] for table in (depth, position, depth.T, position.T, reach)]
    necks = np.stack(columns, -1) if term.has_neck else np.empty(0)
    flags = TANH * term.has_tanh + NECK * term.has_neck
    flags += BURIED * term.buried + SURFACE * term.has_surface
    values = np.concatenate([np.array(model), atoms.ravel(), necks.ravel()])
    return {"kind": BORN, "values": values, "flags": int(flags)}


def rows(kind: int, index: NDArray[Any], *columns: Tensor) -> dict[str, Any]:
    """A term with one row of atoms and parameters per interaction."""
    values = [np.asarray(column, float).reshape(-1) for column in columns]
    return {
        "kind": kind,
        "n_rows": len(index),
        "index": index,
        "values": np.stack(values, -1) if values else np.empty(0),
    }


DESCRIPTIONS: dict[type[nn.Module], Callable[[Any], dict[str, Any]]] = {
    HarmonicBonds: describe_bonds,
    HarmonicAngles: describe_angles,
    FourierTorsions: describe_fourier_torsions,
    HarmonicTorsions: describe_harmonic_torsions,
    CorrectionMaps: describe_maps,
    PairTable: describe_pairs,
    GeneralizedBorn: describe_born,
    QuarticBonds: describe_bonds,
    CubicAngles: describe_angles,
    LinearAngles: describe_linear_angles,
    StretchBends: describe_stretch_bends,
    WilsonAngles: describe_wilson_angles,
    BufferedVanDerWaals: describe_van_der_waals,
    BufferedCoulomb: describe_charges,
}
