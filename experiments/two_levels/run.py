"""From a force field to quantum chemistry: what reweighting, a shift and further training give."""

import argparse
import copy
import dataclasses
from pathlib import Path

import gencg
from gencg.tempering import NoTempering
from gencg.training import Optimisation

STRUCTURES = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.pdb"))}
DIPEPTIDE = "alanine-dipeptide"
FORCE_FIELD = "charmm36.xml"
BATCH_SIZE = 256


def main() -> None:
    """Print a table of the ways to GFN2-xTB at 300 K.

    Methanol and ethanol come from CHARMM36 in vacuum, the dipeptide from amber96 in OBC1 to ALPB
    water.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("molecule", choices=[*STRUCTURES, DIPEPTIDE])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cheap-calls", type=float, default=3e5, help="to train on the force field"
    )
    parser.add_argument("--calls", type=float, default=1e4, help="of GFN2-xTB to train with")
    parser.add_argument("--samples", type=int, default=2000, help="to ask GFN2-xTB for")
    given = parser.parse_args()

    if given.molecule == DIPEPTIDE:
        system, solvent = gencg.systems.alanine_dipeptide(), "water"
    else:
        path, solvent = STRUCTURES[given.molecule], None
        system = gencg.systems.from_pdb(path, forcefield=[FORCE_FIELD])
    cheap = gencg.fit(system, energy_calls=given.cheap_calls, seed=given.seed)
    pool = gencg.draw(cheap.model, cheap.target, 20_000, molecule=system.molecule, seed=given.seed)
    gfn2 = gencg.TbliteEnergy(system.molecule, solvent=solvent)
    print("| way | GFN2 calls to train | ESS | log Z | Pareto k |\n|---|---|---|---|---|")
    row("force field itself", 0, pool, pool.log_z_error)

    options = {"n_samples": given.samples, "seed": given.seed}
    plain = gencg.reweight(pool, gfn2, **options)
    row("reweighted", 0, plain.ensemble, plain.log_z_error)
    before = gfn2.n_energy_calls
    shift = gencg.stiff_shift(system.coordinates, gfn2)
    n_calls = gfn2.n_energy_calls - before
    moved = gencg.reweight(pool, gfn2, shift=shift, **options)
    row("shifted, reweighted", n_calls, moved.ensemble, moved.log_z_error)

    small = {"energy_calls": given.calls, "batch_size": BATCH_SIZE, "seed": given.seed + 1}
    second = dataclasses.replace(system, energy=gfn2, known={})
    trained = gencg.fit(
        second,
        model=copy.deepcopy(cheap.model),
        tempering=NoTempering(),
        optimisation=Optimisation(warm_up=20),
        **small,
    )
    alone = gencg.fit(gencg.systems.from_energy(system.molecule, gfn2), **small)
    for way, result in {"trained on": trained, "from the start": alone}.items():
        ensemble = gencg.draw(result.model, result.target, given.samples, seed=given.seed)
        row(way, result.energy_calls, ensemble, ensemble.log_z_error)


def row(way: str, n_calls: int, ensemble: gencg.Ensemble, error: float) -> None:
    """One line of the table."""
    print(
        f"| {way} | {n_calls:,} | {ensemble.ess:.3g} | {ensemble.log_z:.2f} ± {error:.2f} | "
        f"{ensemble.pareto_k:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
