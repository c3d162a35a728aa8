"""The flow-matching decoder on the dipeptide: three seeds of a generator matched to itself."""

from pathlib import Path

from experiments.expectations import run_seeds

if __name__ == "__main__":
    run_seeds(
        "alanine-dipeptide",
        folder=Path(__file__).parent / "dipeptide",
        out="runs/flow-matching-dipeptide",
    )
