"""Figures: each function takes data and `ax` and returns the `Axes` it drew on."""

from gencg.plots.collective import plot_bound_gap as plot_bound_gap
from gencg.plots.collective import plot_cv_against_torsion as plot_cv_against_torsion
from gencg.plots.collective import plot_cv_surface as plot_cv_surface
from gencg.plots.collective import plot_slow_function as plot_slow_function
from gencg.plots.collective import plot_spectrum as plot_spectrum
from gencg.plots.density import plot_density as plot_density
from gencg.plots.density import plot_density_map as plot_density_map
from gencg.plots.energy import plot_energy_histogram as plot_energy_histogram
from gencg.plots.explanation import plot_explained_molecule as plot_explained_molecule
from gencg.plots.explanation import plot_explained_terms as plot_explained_terms
from gencg.plots.explanation import plot_explained_values as plot_explained_values
from gencg.plots.free_energy import plot_free_energy as plot_free_energy
from gencg.plots.free_energy import plot_free_energy_error as plot_free_energy_error
from gencg.plots.free_energy import plot_free_energy_profile as plot_free_energy_profile
from gencg.plots.populations import plot_populations as plot_populations
from gencg.plots.ramachandran import plot_ramachandran as plot_ramachandran
from gencg.plots.style import new_figure as new_figure
from gencg.plots.style import style as style
from gencg.plots.training import plot_ess as plot_ess
from gencg.plots.training import plot_loss as plot_loss
from gencg.plots.training import plot_temperature as plot_temperature
from gencg.plots.weights import plot_weights as plot_weights
