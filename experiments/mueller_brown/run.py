"""Müller-Brown and curved wells: bent slow coordinates that no straight line has."""

from pathlib import Path

from experiments.slow_functions.linear_cvs import main

if __name__ == "__main__":
    main(Path(__file__).parent, ("mueller-brown", "curved-wells"))
