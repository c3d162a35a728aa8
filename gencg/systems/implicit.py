"""Implicit solvent by name, for topologies whose force field leaves the choice open."""

from typing import Any

IMPLICIT_SOLVENTS = ("HCT", "OBC1", "OBC2", "GBn", "GBn2")
"""Generalised Born models by OpenMM's names: Amber's igb = 1, 2, 5, 7 and 8."""


def solvent_name(name: str) -> str:
    """OpenMM's spelling of a model, whatever case it is given in.

    Raises:
        ValueError: If there is no such model.
    """
    found = {known.lower(): known for known in IMPLICIT_SOLVENTS}.get(str(name).lower())
    if found is None:
        raise ValueError(
            f"`implicit_solvent` must be one of {', '.join(IMPLICIT_SOLVENTS)}, or be left out "
            f"for vacuum, got {name!r}"
        )
    return found


def add_implicit_solvent(system: Any, topology: Any, name: str) -> None:
    """Add a generalised Born force with OpenMM's standard radii and surface term (ACE).

    The same force as OpenMM's files ``implicit/*.xml`` add; charges are those of the system.

    Args:
        system: OpenMM ``System`` with one `NonbondedForce`; it is changed.
        topology: OpenMM ``Topology`` with elements and bonds, which the radii depend on.
        name: See `IMPLICIT_SOLVENTS`.
    """
    import openmm
    from openmm.app.internal import customgbforces

    kind = getattr(customgbforces, {
        "HCT": "GBSAHCTForce", "OBC1": "GBSAOBC1Force", "OBC2": "GBSAOBC2Force",
        "GBn": "GBSAGBnForce", "GBn2": "GBSAGBn2Force",
    }[solvent_name(name)])  # fmt: skip
    (nonbonded,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force = kind(SA="ACE")
    for i, parameters in enumerate(kind.getStandardParameters(topology)):
        charge, _, _ = nonbonded.getParticleParameters(i)
        force.addParticle([charge, *parameters])
    force.finalize()
    force.setNonbondedMethod(openmm.CustomGBForce.NoCutoff)
    system.addForce(force)
