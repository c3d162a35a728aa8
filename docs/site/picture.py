"""The picture of the README: states of a finished run, their populations, a structure each.

gencg run alanine-dipeptide --energy-calls 6e5 --threads 1 --out runs/readme
python docs/site/picture.py runs/readme docs/images/alanine_dipeptide.png
"""

import sys

from gencg.plots.states import plot_state_map, state_colour, state_symbol
from gencg.plots.structures import plot_structures
from gencg.plots.style import new_figure, style
from gencg.run import RunFolder, find_states

COLOURS = 224
"""Of the palette of the file, which a reader waits for."""


def draw(run: str, out: str) -> None:
    """Draw the states of a run into a PNG file."""
    from PIL import Image

    found = find_states(RunFolder.open(run))
    ensemble, states = found.ensemble, found.states
    assert ensemble.molecule is not None
    with style():
        figure, _ = new_figure(width=11.0, height=4.1)
        figure.clf()
        columns = figure.add_gridspec(1, 2, width_ratios=[1.0, 1.9])
        left = plot_state_map(
            ensemble.z, ensemble.log_weights, found.found.labels,
            cv_names=found.slow.names, periodic=found.slow.map.periodic,
            temperature=ensemble.temperature, centres=[state.cvs for state in states],
            ax=figure.add_subplot(columns[0]),
        )  # fmt: skip
        left.set_title("free energy (kJ/mol)")
        right = columns[1].subgridspec(1, len(states))
        titles = [
            f"{k + 1}: {state_symbol(state.basin)}\n"
            f"{100 * state.population[0]:.2f} ± {100 * state.population[1]:.2f} %"
            for k, state in enumerate(states)
        ]
        plot_structures(
            ensemble.x[[state.sample for state in states]], ensemble.molecule,
            [figure.add_subplot(right[k]) for k in range(len(states))],
            titles=titles, colours=[state_colour(k) for k in range(len(states))],
        )  # fmt: skip
        figure.savefig(out, dpi=130, facecolor="white")
    with Image.open(out) as image:
        image.convert("RGB").quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    draw(*sys.argv[1:3])
