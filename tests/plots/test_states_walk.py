"""Pictures of states and walks: everything drawn is in them, for one to three variables.

Cannot detect: whether they are beautiful.
"""

import numpy as np
import pytest
import torch

from gencg.analysis.path import CVPath
from gencg.plots.states import state_symbol, states_figure
from gencg.plots.structures import plot_structures, seen_together
from gencg.plots.style import new_figure
from gencg.plots.walk import walk_figure
from gencg.systems import load


def made_up(n_cvs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two wells: z, log weights, state."""
    rng = np.random.default_rng(0)
    state = rng.integers(2, size=1500)
    z = np.where(state[:, None] == 0, -1.0, 1.5) + 0.4 * rng.normal(size=(1500, n_cvs))
    return z, np.where(state == 0, 0.0, -2.0), state


@pytest.mark.parametrize("n_cvs", [1, 2, 3])
@pytest.mark.parametrize("periodic", [True, False])
def test_states_and_walks_of_any_number_of_variables_are_drawn(n_cvs: int, periodic: bool) -> None:
    z, log_w, state = made_up(n_cvs)
    molecule = load("alanine-dipeptide").molecule if n_cvs == 2 and periodic else None
    names = [f"x{k + 1}" for k in range(n_cvs)]
    centres = [np.full(n_cvs, -1.0), np.full(n_cvs, 1.5)]
    common = {"cv_names": names, "temperature": 300.0, "centres": centres, "molecule": molecule}
    x = None if molecule is None else np.stack([molecule.positions] * 8)
    figure = states_figure(
        z, log_w, state, names=["phi(ALA2) -60", "phi(ALA2) +60"], basins=["", "alpha_L"],
        populations=[(0.88, 0.01), (0.12, 0.01)], raw=[(0.5, 0.01), (0.5, 0.01)],
        structures=None if x is None else x[:2], periodic=periodic, **common,
    )  # fmt: skip
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert "population (%)" in labels
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "12.0 ± 1.0 %" in texts
    assert {"1", "2"} <= set(texts)

    path = CVPath(np.linspace(-1.0, 1.5, 8)[:, None].repeat(n_cvs, 1), periodic)
    figure = walk_figure(
        z, log_w, state, path, free_energy=np.array([0, 2, 5, 8, 6, 4, 3, 4.0]),
        errors=np.full(8, 0.2), committor=np.column_stack([np.linspace(0, 1, 8), np.full(8, 0.1)]),
        frames=None if x is None else torch.from_numpy(x), ends=(0, 1), **common,
    )  # fmt: skip
    assert any("free energy (kJ/mol)" in ax.get_ylabel() for ax in figure.axes)
    assert any("committor" in ax.get_ylabel() for ax in figure.axes)


def test_structures_are_drawn_in_one_common_view() -> None:
    molecule = load("alanine-dipeptide").molecule
    x = np.stack([molecule.positions, molecule.positions + 1.0])
    seen = seen_together(x, molecule)
    assert np.allclose(seen[0], seen[1])
    distances = [np.linalg.norm(y[:, None] - y, axis=-1) for y in (seen[0], molecule.positions)]
    assert np.allclose(*distances)
    _, axes = new_figure(2)
    plot_structures(x, molecule, axes, titles=["a", "b"])
    assert axes[0].get_xlim() == axes[1].get_xlim()


def test_names_are_spelt_with_symbols() -> None:
    assert state_symbol("phi(ALA2) +55, psi(ALA2) -40") == r"$\phi$ ALA2 +55°, $\psi$ ALA2 −40°"
    assert state_symbol("beta + PPII") == r"$\beta$ + PPII"
