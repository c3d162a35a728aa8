"""Make the trained generators that come with gencg from finished runs of the peptides.

gencg run alanine-dipeptide --cvs 0 --energy-calls 2.5e6 --threads 1 --out runs/di
gencg run alanine-tetrapeptide --cvs 0 --energy-calls 2e7 --batch-size 1024 --out runs/te
gencg run alanine-hexapeptide --cvs 0 --energy-calls 2e7 --batch-size 1024 --out runs/he
python -m experiments.peptides.ship runs/di runs/te runs/he

A generator that was trained further has the calls and commands of both trainings:

gencg run alanine-hexapeptide --cvs 0 --generator shipped --further-calls 8e6 --learning-rate 6e-3 \
  --batch-size 1024 --threads 1 --samples 200000 --out runs/longer
python -m experiments.peptides.ship runs/longer --soft-block-before

A mixture has those of all its members, and as many bits for each number as fit into the file:

gencg run alanine-hexapeptide --cvs 0 --generator runs/a --generator runs/b --out runs/both
python -m experiments.peptides.ship runs/both

With `--soft-block-before` it has the stiff block of the further training and the soft block of the
generator that the run began from, where rare states have more of their weight.
"""

import argparse
from pathlib import Path
from typing import Any

import gencg
from experiments.peptides.weights import cut_ess
from gencg import pretrained
from gencg.config import SHIPPED
from gencg.models.mixture import members_of
from gencg.run import RunFolder, trained
from gencg.run.generator import find_generator

LARGEST = 30.0
"""Weights are cut at this factor of their mean for an ESS that few samples do not decide."""


def how(folder: RunFolder, summary: dict[str, Any], *, soft_before: bool) -> dict[str, Any]:
    """How a run was made and what it reached, with the run that it began from."""
    config, origin = folder.config, folder.origin or {}
    command = f"gencg run {config.target} --cvs 0"
    tail = f" --batch-size {config.batch_size} --threads 1 --seed {config.seed}"
    if config.generator is None:
        command += f" --energy-calls {config.energy_calls:g}{tail}"
    elif len(config.generator) > 1:
        named = (f" --generator {_shown(name)}" for name in config.generator)
        command = f"{origin['command']}; {command}{''.join(named)}"
    elif config.further_calls:
        source = _shown(config.generator[0])
        command = f"{origin['command']}; {command} --generator {source}"
        command += f" --further-calls {config.further_calls:g}"
        if config.anneal_from:
            command += f" --anneal-from {config.anneal_from:g}"
        command += f" --learning-rate {config.learning_rate:g}{tail}"
    else:
        command = origin["command"]
    return {
        "command": command + (", with the soft block of the first" if soft_before else ""),
        "seed": config.seed,
        "energy_calls": summary["energy_calls"] + (origin.get("energy_calls") or 0),
        "ess": summary["ess"],
        "log_z": summary["log_z"],
        **{name: (folder.versions or {}).get(name) for name in ("gencg", "torch")},
    }


def _shown(name: str) -> str:
    """A generator in a command, wherever its folder lies."""
    return SHIPPED if name == SHIPPED else f"runs/{Path(name).name}"


def main() -> None:
    """Write a file for each run, read it again and print what it reaches."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="finished run folders, --cvs 0")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--soft-block-before", action="store_true", help="see above")
    parser.add_argument("--out", type=Path, default=pretrained.FOLDER)
    given = parser.parse_args()
    for run in given.runs:
        folder = RunFolder.open(run)
        system, config, summary = folder.system(), folder.config, folder.summary
        if summary is None:
            parser.error(f"{run} is not finished; run its command again")
        result = trained(system, folder)
        about = how(folder, summary, soft_before=given.soft_block_before)
        if given.soft_block_before:
            if len(members_of(result.model)) > 1:
                parser.error(f"--soft-block-before is for one generator, and {run} is a mixture")
            before, _ = find_generator(config, system, trained=trained)
            soft = before.model.decoder.flow.soft.state_dict()  # type: ignore[union-attr]
            result.model.decoder.flow.soft.load_state_dict(soft)  # type: ignore[union-attr]
            ensemble = gencg.draw(
                result.model, result.target, given.samples, molecule=system.molecule, seed=1
            )
            about |= {"ess": ensemble.ess, "log_z": ensemble.log_z}
        path = given.out / f"{config.target}.pt"
        pretrained.write(result, path, about=about)
        # As it is read: matrices are rounded
        shipped, pretrained.FOLDER = pretrained.FOLDER, given.out
        try:
            rounded, about = pretrained.load(config.target), pretrained.about(config.target)
        finally:
            pretrained.FOLDER = shipped
        ensemble = gencg.draw(
            rounded.model, rounded.target, given.samples, molecule=system.molecule, seed=1
        )
        about["ess_cut"] = cut_ess(ensemble.log_weights, largest=LARGEST)
        if about["bits"] < 16:
            about |= {"ess": ensemble.ess, "log_z": ensemble.log_z}
        pretrained.write(result, path, about=about)
        print(f"{path}: {path.stat().st_size:,} bytes, {about['bits']} bits an entry, {ensemble}")


if __name__ == "__main__":
    main()
