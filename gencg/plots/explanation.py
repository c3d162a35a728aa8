"""A collective variable's formula as pictures: the atoms in it, its terms, what it leaves."""

import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gencg.analysis.explain import Explanation
from gencg.analysis.histogram import Array, to_array
from gencg.analysis.terms import Terms
from gencg.molecule import Molecule
from gencg.plots.molecule import plot_molecule
from gencg.plots.style import EXACT, REWEIGHTED, axes_or_new, new_figure, style

FEW = 30
"""Atoms up to which hydrogens on carbon are drawn."""
_LETTERS = {"phi": "φ", "psi": "ψ", "omega": "ω", "chi": "χ"}


def plot_explained_molecule(
    explanation: Explanation, molecule: Molecule, *, ax: Axes | None = None
) -> Axes:
    """The molecule with the atoms that the formula needs, its torsions labelled.

    An atom's halo is the larger, the more the terms weigh that it belongs to; distances and
    hydrogen bonds are dashed lines.

    Args:
        explanation: What was found.
        molecule: What it is about.
        ax: Axes to draw on.
    """
    weights: dict[int, float] = {}
    bonds: dict[str, tuple[int, int]] = {}
    links: list[tuple[int, int]] = []
    for item in explanation.terms:
        weight = abs(item.standardised)
        axis = {k for bond in item.term.bonds for k in bond}
        for k in item.term.atoms:
            # A torsion is where it turns
            share = weight if not axis or k in axis else 0.4 * weight
            weights[k] = weights.get(k, 0.0) + share
        for name, bond in zip(item.term.torsions, item.term.bonds, strict=True):
            bonds[_short(name, bond, molecule)] = bond
        links += item.term.pairs
    most = max(weights.values(), default=1.0) or 1.0
    return plot_molecule(
        molecule,
        bonds,
        halos={k: weight / most for k, weight in weights.items()},
        links=links,
        hydrogens=molecule.n_atoms <= FEW,
        title=explanation.name,
        ax=ax,
    )


def plot_explained_terms(explanation: Explanation, *, ax: Axes | None = None) -> Axes:
    """Terms as bars: coefficients of the standardised terms, with the share of resamplings.

    Args:
        explanation: What was found.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    places = np.arange(len(explanation.terms))[::-1]
    for place, item in zip(places, explanation.terms, strict=True):
        error = abs(item.standardised * item.uncertainty / (item.coefficient or 1.0))
        ax.barh(place, item.standardised, 0.4, xerr=error, color=REWEIGHTED,
                error_kw={"lw": 1.2, "capsize": 3})  # fmt: skip
        name = spelled(item.term.name)
        ax.annotate(f"{name}   {item.inclusion_of_any:.0%}", (0.0, place + 0.3),
                    xycoords=("axes fraction", "data"), fontsize=10)  # fmt: skip
    ax.axvline(0.0, color=EXACT, lw=0.9)
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylim(-0.6, len(explanation.terms) - 0.2)
    ax.set_xlabel("coefficient of the standardised term")
    ax.set_title("terms, and how often resampling finds them again", fontsize=11)
    return ax


def plot_explained_values(
    explanation: Explanation, terms: Terms, values: Any, *, n_shown: int = 5000,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """The collective variable against its formula, for samples drawn by weight.

    Args:
        explanation: What was found.
        terms: The terms it was found among.
        values: The collective variable, ``(n,)``, for all samples that were given.
        n_shown: Samples shown.
        ax: Axes to draw on.
    """
    ax = axes_or_new(ax)
    known = to_array(values)[terms.rows]
    formula = explanation.evaluate(terms)
    chosen = _by_weight(terms.weights, n_shown)
    ax.scatter(formula[chosen], known[chosen], s=4, color=REWEIGHTED, alpha=0.25, linewidths=0)
    low, high = float(known[chosen].min()), float(known[chosen].max())
    ax.plot([low, high], [low, high], color=EXACT, ls="--", lw=1.2)
    ax.set_xlabel("formula")
    ax.set_ylabel(spelled(explanation.name))
    ax.set_title(f"R² {explanation.r2:.3f} ± {explanation.r2_error:.3f}, held out", fontsize=11)
    return ax


def explanation_figure(
    explanation: Explanation, molecule: Molecule, terms: Terms, values: Any
) -> Figure:
    """All three beside each other, under the formula or the answer that there is none."""
    with style():
        figure, axes = new_figure(3, width=5.2, height=4.2, width_ratios=[1.5, 1.0, 1.0])
        plot_explained_molecule(explanation, molecule, ax=axes[0])
        axes[0].set_title("")
        plot_explained_terms(explanation, ax=axes[1])
        plot_explained_values(explanation, terms, values, ax=axes[2])
        name = spelled(explanation.name)
        known = f"{name} = {explanation.formula}"
        text = known if explanation.found else f"{name}: no short formula; the best one below"
        figure.suptitle(spelled(text), fontsize=12, wrap=True)
    return figure


def spelled(text: str) -> str:
    """Greek letters in names of torsions: "sin phi(ALA2)" becomes "sin φ(ALA2)"."""
    return re.sub(r"\b(phi|psi|omega|chi)(?=\d?\()", lambda match: _LETTERS[match[1]], text)


def _short(name: str, bond: tuple[int, int], molecule: Molecule) -> str:
    """A label that fits on a bond: "phi(ALA2)" becomes "φ(2)", others go by their two atoms."""
    chemical = re.fullmatch(r"((?:phi|psi|omega|chi)\d?)\([A-Za-z]*(\d+)\)", name)
    if chemical:
        return spelled(f"{chemical[1]}({chemical[2]})")
    return "-".join(molecule.names[k].rpartition("-")[2] for k in bond)


def _by_weight(weights: Array, n: int) -> Any:
    generator = np.random.default_rng(0)
    return generator.choice(len(weights), size=min(n, len(weights)), p=weights)
