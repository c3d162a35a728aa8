"""Reading an OpenMM `System` once into the arrays of a `ForceField`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from gencg.energies.bonded import FourierTorsions, HarmonicAngles, HarmonicBonds, HarmonicTorsions
from gencg.energies.born_forms import born_parameters
from gencg.energies.cmap import CorrectionMaps
from gencg.energies.forcefield import ForceField
from gencg.energies.implicit_solvent import BornParameters, GeneralizedBorn
from gencg.energies.nonbonded import PairTable, lennard_jones_tables
from gencg.energies.openmm_checks import check_system
from gencg.energies.openmm_values import (
    UnreadableForceError,
    expression,
    indexed,
    particle_rows,
    tabulated_functions,
    type_name,
)

Array = NDArray[np.float64]


@dataclass
class Tables:
    """What has been read so far: rows of parameters by term, and the table of pairs."""

    n_atoms: int
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    maps: list[Array] = field(default_factory=list)
    born: list[BornParameters] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (self.n_atoms, self.n_atoms)
        self.charges, self.a, self.b = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.has_pairs = False

    def add(self, term: str, *row: Any) -> None:
        """Add a row of parameters to a term."""
        self.rows.setdefault(term, []).append(row)


def read_system(system: Any, *, compile: bool = True) -> ForceField:
    """Read an `openmm.System` into a `ForceField`.

    Args:
        system: Without constraints, virtual sites, cutoffs or periodic boundaries.
        compile: See `ForceField`.

    Raises:
        UnreadableForceError: If a force has no batched form; `energy_from_system` falls back.
        ValueError: If the system is constrained, periodic or not finite.
    """
    check_system(system)
    tables = Tables(system.getNumParticles())
    for force in system.getForces():
        reader = READERS.get(type_name(force))
        if reader is None:
            raise UnreadableForceError(f"{force.getName()} ({type_name(force)})")
        reader(force, tables)
    return ForceField(build_terms(tables), tables.n_atoms, compile=compile)


# --- Bonded forces -----------------------------------------------------------------------------


def read_bonds(force: Any, tables: Tables) -> None:
    """Harmonic bonds, Urey-Bradley terms among them."""
    for i, j, length, k in indexed(force, "Bond"):
        tables.add("bonds", (i, j), length, k)


def read_angles(force: Any, tables: Tables) -> None:
    """Harmonic angles."""
    for i, j, k, angle, stiffness in indexed(force, "Angle"):
        tables.add("angles", (i, j, k), angle, stiffness)


def read_periodic_torsions(force: Any, tables: Tables) -> None:
    """Periodic torsions, proper and improper."""
    for *atoms, periodicity, phase, k in indexed(force, "Torsion"):
        cosines, sines = np.zeros((2, periodicity + 1))
        cosines[0] += k
        cosines[periodicity] += k * np.cos(phase)
        # Without a sine the energy is a polynomial in the cosine: pi as a decimal counts as pi
        sines[periodicity] += k * np.sin(phase) if abs(np.sin(phase)) > 1e-8 else 0.0
        tables.add("torsions", tuple(atoms), cosines, sines)


def read_rb_torsions(force: Any, tables: Tables) -> None:
    """Ryckaert-Bellemans torsions."""
    for *atoms, c0, c1, c2, c3, c4, c5 in indexed(force, "Torsion"):
        # A polynomial in cos(phi - pi) = -cos(phi)
        powers = np.array([c0, -c1, c2, -c3, c4, -c5])
        cosines = np.polynomial.chebyshev.poly2cheb(powers)
        tables.add("rb_torsions", tuple(atoms), cosines, np.zeros_like(cosines))


def read_harmonic_torsions(force: Any, tables: Tables) -> None:
    """CHARMM's impropers in the four ways in which OpenMM writes them."""
    text = expression(force.getEnergyFunction())
    halved = re.fullmatch(HALVED, text) is not None
    wrapped = halved or re.fullmatch(WRAPPED, text) is not None
    if not (wrapped or text == "k*(theta-theta0)^2") or force.getNumGlobalParameters():
        raise UnreadableForceError(f"{force.getName()} (CustomTorsionForce {text})")
    names = [force.getPerTorsionParameterName(i) for i in range(force.getNumPerTorsionParameters())]
    for *atoms, values in indexed(force, "Torsion"):
        parameter = dict(zip(names, values, strict=True))
        k = parameter["k"] * (0.5 if halved else 1.0)
        tables.add("impropers", tuple(atoms), parameter["theta0"], k, wrapped)


WRAPPED = r"k\*min\(dtheta,2\*(pi|3\.14\d+)-dtheta\)\^2;dtheta=abs\(theta-theta0\)(;pi=3\.14\d+)?"
# GROMACS' topologies
HALVED = (
    r"0\.5\*k\*\(thetap-theta0\)\^2;thetap=step\(-\(theta-theta0\+pi\)\)\*2\*pi\+theta"
    r"\+step\(theta-theta0-pi\)\*\(-2\*pi\);pi=3\.14\d+"
)


def read_maps(force: Any, tables: Tables) -> None:
    """Torsion-torsion correction maps."""
    first = len(tables.maps)
    for size, energies in indexed(force, "Map"):
        tables.maps.append(np.array(energies, float).reshape(size, size).T)
    for which, *atoms in indexed(force, "Torsion"):
        tables.add("cmap", tuple(atoms), first + which)


# --- Pair forces -------------------------------------------------------------------------------


def read_nonbonded(force: Any, tables: Tables) -> None:
    """Coulomb and Lennard-Jones energy with its exceptions."""
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise UnreadableForceError(f"{force.getName()} (parameter offsets)")
    charge, sigma, epsilon = np.array(indexed(force, "Particle", "Particles"), float).T
    charges = charge[:, None] * charge
    a, b = lennard_jones_tables(sigma, epsilon)
    for i, j, product, length, depth in indexed(force, "Exception"):
        charges[i, j] = charges[j, i] = product
        a[i, j] = a[j, i] = 4 * depth * length**12
        b[i, j] = b[j, i] = 4 * depth * length**6
    tables.charges, tables.a, tables.b = tables.charges + charges, tables.a + a, tables.b + b
    tables.has_pairs = True


def read_custom_nonbonded(force: Any, tables: Tables) -> None:
    """Lennard-Jones energy from a table of coefficients by pair of atom types, or from roots."""
    text = expression(force.getEnergyFunction())
    if text not in (*TYPE_TABLES, GEOMETRIC) or force.getNumInteractionGroups():
        raise UnreadableForceError(f"{force.getName()} (CustomNonbondedForce {text})")
    values = np.array(particle_rows(force), float)
    if text == GEOMETRIC:
        names = [force.getPerParticleParameterName(i) for i in range(values.shape[1])]
        roots = dict(zip(names, values.T, strict=True))
        a, b = (np.outer(roots[name], roots[name]) for name in ("A", "C"))
    else:
        functions, types = tabulated_functions(force), values[:, 0].astype(int)
        a, b = (functions[name][np.ix_(types, types)] for name in ("acoef", "bcoef"))
        a = a ** TYPE_TABLES[text]
    for k in range(force.getNumExclusions()):
        i, j = force.getExclusionParticles(k)
        a[i, j] = a[j, i] = b[i, j] = b[j, i] = 0
    tables.a, tables.b = tables.a + a, tables.b + b
    tables.has_pairs = True


# The power of the first table which is A: prmtop and psf files hold its root
TYPE_TABLES = {
    "acoef(type1,type2)/r^12-bcoef(type1,type2)/r^6": 1,
    "(a/r6)^2-b/r6;r6=r^6;a=acoef(type1,type2);b=bcoef(type1,type2)": 2,
}
# OPLS and GROMOS in GROMACS' topologies: geometric means of A and of B
GEOMETRIC = "A1*A2/r^12-C1*C2/r^6"


def read_custom_bonds(force: Any, tables: Tables) -> None:
    """Scaled 1-4 Lennard-Jones energies of CHARMM and GROMACS, which OpenMM writes as bonds."""
    text = expression(force.getEnergyFunction())
    match = re.fullmatch(r"([\d.e+-]+)\*epsilon\*\(\(sigma/r\)\^12-\(sigma/r\)\^6\)", text)
    if not (match or text == "-C/r^6+A/r^12") or force.getNumGlobalParameters():
        raise UnreadableForceError(f"{force.getName()} (CustomBondForce {text})")
    names = [force.getPerBondParameterName(i) for i in range(force.getNumPerBondParameters())]
    for i, j, values in indexed(force, "Bond"):
        pair = dict(zip(names, values, strict=True))
        if match:
            scaled = float(match[1]) * pair["epsilon"]
            pair["A"], pair["C"] = scaled * pair["sigma"] ** 12, scaled * pair["sigma"] ** 6
        for table, value in ((tables.a, pair["A"]), (tables.b, pair["C"])):
            table[i, j] += value
            table[j, i] = table[i, j]
    tables.has_pairs = True


def read_born(force: Any, tables: Tables) -> None:
    """Implicit solvent."""
    tables.born.append(born_parameters(force))


READERS: dict[str, Callable[[Any, Tables], None]] = {
    "HarmonicBondForce": read_bonds,
    "HarmonicAngleForce": read_angles,
    "PeriodicTorsionForce": read_periodic_torsions,
    "RBTorsionForce": read_rb_torsions,
    "CustomTorsionForce": read_harmonic_torsions,
    "CMAPTorsionForce": read_maps,
    "NonbondedForce": read_nonbonded,
    "CustomNonbondedForce": read_custom_nonbonded,
    "CustomBondForce": read_custom_bonds,
    "GBSAOBCForce": read_born,
    "CustomGBForce": read_born,
    "CMMotionRemover": lambda force, tables: None,
}


# --- From rows to terms ------------------------------------------------------------------------


def build_terms(tables: Tables) -> dict[str, nn.Module]:
    """Terms of the force field by name, in the order they are reported."""
    n = tables.n_atoms
    terms: dict[str, nn.Module] = {}
    if "bonds" in tables.rows:
        atoms, length, k = columns(tables.rows["bonds"])
        terms["bonds"] = HarmonicBonds(atoms, length, k=k, n_atoms=n)
    if "angles" in tables.rows:
        atoms, angle, k = columns(tables.rows["angles"])
        terms["angles"] = HarmonicAngles(atoms, angle, k=k, n_atoms=n)
    if "impropers" in tables.rows:
        atoms, angle, k, wrapped = columns(tables.rows["impropers"])
        terms["impropers"] = HarmonicTorsions(
            atoms, angle, k=k, wrapped=wrapped.astype(bool), n_atoms=n
        )
    for name in ("torsions", "rb_torsions"):
        if name in tables.rows:
            terms[name] = fourier_torsions(tables.rows[name], n)
    if "cmap" in tables.rows:
        atoms, which = columns(tables.rows["cmap"])
        terms["cmap"] = CorrectionMaps(tables.maps, which.astype(int), atoms=atoms, n_atoms=n)
    if tables.has_pairs:
        terms["nonbonded"] = PairTable(tables.charges, a=tables.a, b=tables.b)
    for k, parameters in enumerate(tables.born):
        name = "implicit_solvent" if k == 0 else f"implicit_solvent_{k + 1}"
        terms[name] = GeneralizedBorn(parameters)
    for name, term in terms.items():
        for key, buffer in term.named_buffers():
            if not bool(buffer.isfinite().all()):
                raise ValueError(
                    f"`system` has non-finite parameters in its {name} ({key}); "
                    "check the force-field file"
                )
    return terms


def columns(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Rows ``(atoms, parameter, ...)`` as one array per column."""
    atoms, *rest = zip(*rows, strict=True)
    return np.array(atoms, int), *(np.array(column, float) for column in rest)


def fourier_torsions(rows: list[tuple[Any, ...]], n_atoms: int) -> FourierTorsions:
    """One Fourier series per quadruple of atoms, however many periodicities it has."""
    order = max(len(cosines) for _, cosines, _ in rows)
    series: dict[tuple[int, ...], Array] = {}
    for atoms, cosines, sines in rows:
        # A torsion read backwards is the same torsion
        key = min(atoms, atoms[::-1])
        coefficients = series.setdefault(key, np.zeros((2, order)))
        coefficients[0, : len(cosines)] += cosines
        coefficients[1, : len(sines)] += sines
    atoms = np.array(list(series), int)
    cosines, sines = np.moveaxis(np.array(list(series.values())), 0, -1)
    return FourierTorsions(atoms, cosines, sines=sines, n_atoms=n_atoms)
