"""The drawing of a molecule shows what it is told to.

Cannot detect: an ugly view.
"""

from molecules import cyclohexane, dipeptide

from gencg.plots.molecule import plot_molecule


def test_bonds_are_labelled_and_hydrogens_left_out() -> None:
    molecule = dipeptide()
    ax = plot_molecule(molecule, {"1": (6, 8), "2": (8, 14), "3": (8, 6)}, title="dipeptide")
    labels = [text.get_text() for text in ax.texts]
    assert "1, 3" in labels
    assert "2" in labels
    assert len(ax.collections) == molecule.n_atoms
    assert ax.get_title() == "dipeptide"
    assert len(ax.lines) == len(molecule.bonds)

    ax = plot_molecule(cyclohexane(), hydrogens=False)
    assert len(ax.collections) == 6
    assert len(ax.lines) == 6
