"""Alanine dipeptide, all 22 atoms, amber96 with OBC1 at 300 K: three seeds of the main job."""

from pathlib import Path

from experiments.expectations import run_seeds

if __name__ == "__main__":
    run_seeds("alanine-dipeptide", folder=Path(__file__).parent, out="runs/alanine-dipeptide")
