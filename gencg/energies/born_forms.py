"""Recognising OpenMM's generalised Born forms: HCT, OBC1, OBC2, GBn and GBn2."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencg.energies.implicit_solvent import BornParameters
from gencg.energies.openmm_values import (
    UnreadableForceError,
    expression,
    indexed,
    particle_rows,
    plain,
    tabulated_functions,
    type_name,
)

Array = NDArray[np.float64]

NUMBER = r"([-+]?[\d.]+(?:e[-+]?\d+)?)"
DESCREENING = {
    "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0)",
    "step(r+sr2-or1)*0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r)",
}
LIMITS = {"U": "r+sr2", "L": "max(or1,D)", "D": "abs(r-sr2)"}
NECK = (
    "step(radius1+radius2+neckCut-r)*getm0(radindex1,radindex2)/"
    "(1+100*(r-getd0(radindex1,radindex2))^2+0.3*1000000*(r-getd0(radindex1,radindex2))^6)"
)
PAIR = "charge1*charge2/f"
F = "sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))"


def born_parameters(force: Any) -> BornParameters:
    """Parameters of a `GBSAOBCForce` or of a `CustomGBForce` in one of OpenMM's own forms.

    Raises:
        UnreadableForceError: If the force is something else.
    """
    if type_name(force) == "GBSAOBCForce":
        return obc_parameters(force)
    try:
        return custom_parameters(force)
    except (Unrecognised, KeyError, IndexError) as error:
        raise UnreadableForceError(f"{force.getName()} (CustomGBForce, {error})") from error


class Unrecognised(Exception):  # noqa: N818
    """Some part of the force is not as OpenMM writes it."""


def obc_parameters(force: Any) -> BornParameters:
    """OBC2 as OpenMM's `GBSAOBCForce` has it, with the correction for buried atoms."""
    charge, radius, scale = np.array(indexed(force, "Particle", "Particles"), float).T
    offset = radius - 0.009
    return BornParameters(
        charge=charge,
        offset_radius=offset,
        scaled_radius=scale * offset,
        radius=radius,
        tanh=np.array([1.0, -0.8, 4.85])[:, None].repeat(len(charge), 1),
        buried=True,
        solute_dielectric=force.getSoluteDielectric(),
        solvent_dielectric=force.getSolventDielectric(),
        surface_tension=4 * np.pi * plain(force.getSurfaceAreaEnergy()),
    )


def custom_parameters(force: Any) -> BornParameters:
    """Parameters of a `CustomGBForce` written by `openmm.app.internal.customgbforces`."""
    if force.getNumGlobalParameters() or force.getNumExclusions():
        raise Unrecognised("global parameters or exclusions")
    names = [
        force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())
    ]
    values = np.array(particle_rows(force), float)
    particle = dict(zip(names, values.T, strict=True))
    integral, born = (statements(force.getComputedValueParameters(i)[1]) for i in range(2))
    terms = energy_terms(force)
    radius = particle["or"] + terms.pop("offset")
    return BornParameters(
        charge=particle["charge"],
        offset_radius=particle["or"],
        scaled_radius=particle["sr"],
        radius=radius,
        tanh=tanh_coefficients(born[""], particle),
        **descreening(force, integral, particle),
        **terms,
    )


def statements(text: str) -> dict[str, str]:
    """An expression and its definitions; the value itself has the name ``""``."""
    value, *definitions = expression(text).split(";")
    return {"": value, **dict(part.split("=", 1) for part in definitions)}


def tanh_coefficients(text: str, particle: dict[str, Array]) -> Array | None:
    """Coefficients of the powers of psi inside the tanh, ``(3, n_atoms)``; None without it."""
    if text == "1/(1/or-I)":
        return None
    match = re.fullmatch(r"1/\(1/or-tanh\((.*)\)/radius\)", text)
    if match is None:
        raise Unrecognised(f"Born radius {text}")
    coefficients = np.zeros((3, len(particle["or"])))
    for sign, factor, power in re.findall(r"([-+]?)(?:([\w.]+)\*)?psi(?:\^(\d))?", match[1]):
        value = particle[factor] if factor in particle else float(factor or 1)
        coefficients[int(power or 1) - 1] += -value if sign == "-" else value
    return coefficients


def descreening(force: Any, integral: dict[str, str], particle: dict[str, Array]) -> dict[str, Any]:
    """The form of the descreening integral, and its neck if it has one."""
    if any(integral.get(name) != value for name, value in LIMITS.items()):
        raise Unrecognised("limits of the descreening integral")
    if integral[""] in DESCREENING:
        return {}
    if (integral[""], integral["Ineck"]) != ("Ivdw+neckScale*Ineck", NECK) or (
        integral["Ivdw"] not in DESCREENING
    ):
        raise Unrecognised(f"descreening integral {integral['']}")
    tables = tabulated_functions(force)
    which = np.ix_(*[particle["radindex"].astype(int)] * 2)
    depth = float(integral["neckScale"]) * tables["getm0"][which]
    return {"neck": (depth, tables["getd0"][which]), "neck_cut": float(integral["neckCut"])}


def energy_terms(force: Any) -> dict[str, Any]:
    """Dielectric constants, salt and surface area from the energy terms of the force."""
    found: dict[str, Any] = {}
    for i in range(force.getNumEnergyTerms()):
        text, _ = force.getEnergyTermParameters(i)
        term = statements(text)
        value = term.pop("")
        if match := re.fullmatch(
            NUMBER + r"\*\(radius\+" + NUMBER + r"\)\^2\*\(radius/B\)\^6", value
        ):
            found |= {"surface_tension": float(match[1]), "probe": float(match[2])}
            continue
        match = re.fullmatch(
            rf"-(0\.5\*)?{NUMBER}\*\(1/soluteDielectric-(1|exp\(-kappa\*(?:B|f)\))/"
            r"solventDielectric\)\*(charge\^2/B|charge1\*charge2/f)",
            value,
        )
        if match is None or (match[4] == PAIR and term.get("f") != F):
            raise Unrecognised(f"energy term {value}")
        found |= {
            "coulomb": float(match[2]),
            "solute_dielectric": float(term["soluteDielectric"]),
            "solvent_dielectric": float(term["solventDielectric"]),
            "offset": float(term["offset"]),
            "kappa": float(term["kappa"]) if match[3] != "1" else 0.0,
        }
        found.setdefault("parts", set()).add((match[1], match[4]))
    if found.pop("parts", None) != {("0.5*", "charge^2/B"), (None, PAIR)}:
        raise Unrecognised("self and pair energy")
    return found
