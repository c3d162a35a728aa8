"""The flow-matching decoder on the double well of 2020: log Z and the small well, three seeds."""

from pathlib import Path

from experiments.expectations import run_seeds

if __name__ == "__main__":
    run_seeds(
        "double-well",
        folder=Path(__file__).parent / "double_well",
        out="runs/flow-matching-double-well",
    )
