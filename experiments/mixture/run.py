"""Sixteen normal modes of unequal weight: more slow processes than one straight line carries."""

from pathlib import Path

from experiments.slow_functions.linear_cvs import main

if __name__ == "__main__":
    main(Path(__file__).parent, ("gaussian-mixture",))
