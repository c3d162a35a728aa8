"""Double well of 2020: log Z and the mass of the small well, three seeds."""

from pathlib import Path

from experiments.expectations import run_seeds

if __name__ == "__main__":
    run_seeds("double-well", folder=Path(__file__).parent, out="runs/double-well")
