"""Make the trained generators that come with gencg from finished runs of the peptides.

gencg run alanine-dipeptide --cvs 0 --energy-calls 2.5e6 --threads 1 --out runs/di
gencg run alanine-tetrapeptide --cvs 0 --energy-calls 2e7 --batch-size 1024 --out runs/te
gencg run alanine-hexapeptide --cvs 0 --energy-calls 2e7 --batch-size 1024 --out runs/he
python -m experiments.peptides.ship runs/di runs/te runs/he
"""

import argparse
from pathlib import Path

import gencg
from gencg import pretrained
from gencg.run import RunFolder, trained


def main() -> None:
    """Write a file for each run, read it again and print what it reaches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="finished run folders, --cvs 0")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=pretrained.FOLDER)
    given = parser.parse_args()
    for run in given.runs:
        folder = RunFolder.open(run)
        system, config, summary = folder.system(), folder.config, folder.summary
        if summary is None:
            parser.error(f"{run} is not finished; run its command again")
        result = trained(system, folder)
        about = {
            "command": f"gencg run {config.target} --cvs 0 --energy-calls {config.energy_calls:g} "
            f"--batch-size {config.batch_size} --threads 1 --seed {config.seed}",
            "seed": config.seed,
            "energy_calls": summary["energy_calls"],
            "ess": summary["ess"],
            "log_z": summary["log_z"],
            **{name: (folder.versions or {}).get(name) for name in ("gencg", "torch")},
        }
        path = given.out / f"{config.target}.pt"
        pretrained.write(result, path, about=about)
        # As it is read: matrices are rounded to 16 bits
        if given.out == pretrained.FOLDER:
            result = pretrained.load(config.target)
            ensemble = gencg.draw(
                result.model, result.target, given.samples, molecule=system.molecule, seed=1
            )
            print(f"{path}: {path.stat().st_size:,} bytes, {ensemble}")


if __name__ == "__main__":
    main()
