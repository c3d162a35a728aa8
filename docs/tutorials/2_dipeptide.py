# %% [markdown]
# # Alanine dipeptide: an ensemble, its free energy, its slow variables
#
# Twenty-two atoms, a force field, no simulation. From the energy alone to weighted structures, the
# Ramachandran map, collective variables, and structures at any value of these.

# %%
import os

import numpy as np

import gencg
from gencg.discover import find_slow_cvs, fit_joint

SMOKE = bool(os.environ.get("SMOKE_TEST"))  # a few steps only, to see that everything runs

# %% [markdown]
# ## The molecule and its energy
#
# Soft coordinates are those with several wells; all others are stiff and come along.

# %%
system = gencg.systems.alanine_dipeptide()
system

# %% [markdown]
# ## A generator
#
# Trained from hot to cold, in some minutes of one core. `gencg.pretrained` has generators that are
# trained already, to draw from in seconds; these keep no hotter stages, which the search for slow
# variables below draws its barriers from.

# %%
result = gencg.fit(system, energy_calls=2e3 if SMOKE else 1e6, seed=0)
result

# %% [markdown]
# ## Weighted structures
#
# Read the verdict first. Below an ESS of 0.1, or with a Pareto k above 0.7, stop here and train
# longer.

# %%
ensemble = gencg.draw(
    result.model, result.target, 500 if SMOKE else 50_000, molecule=system.molecule,
    name=system.name,
)  # fmt: skip
ensemble

# %% [markdown]
# ## Populations
#
# Raw beside reweighted, with standard errors. A state with few raw samples has an error bar that
# is a guess itself; the assessment says so.

# %%
found = gencg.analysis.assess(system, ensemble)
for name, (value, error) in found.reweighted.items():
    print(f"{name:8} {value:.4f} ± {error:.4f}   raw {found.raw[name][0]:.4f}")
for verdict in found.verdicts:
    print(verdict.level, "-", verdict.text)

# %% [markdown]
# ## Structures on the Ramachandran map
#
# This costs no energy calls: the structures are the samples near a point, by weight.

# %%
explorer = gencg.explore(ensemble, over=("phi(ALA2)", "psi(ALA2)"))
print(explorer.at(explorer.states[0].centre))
explorer.figure()

# %% [markdown]
# ## Slow collective variables
#
# Functions whose overdamped motion is slowest, found from weighted samples that also cross the
# barriers. The doubts are part of the answer.

# %%
slow = find_slow_cvs(
    result, n_cvs=2, n_samples=2_000 if SMOKE else 60_000, networks=not SMOKE,
    bend=False if SMOKE else None,
)  # fmt: skip
slow

# %% [markdown]
# ## A decoder around them
#
# The joint model decodes any value of the variables into new weighted structures: backmapping.

# %%
joint = fit_joint(
    result, slow, energy_calls=2e3 if SMOKE else 3e5, n_refit_steps=5 if SMOKE else None
)
explorer = gencg.explore(joint, names=slow.names, n_samples=500 if SMOKE else 20_000)
there = explorer.at(explorer.surface.minimum, decode=20 if SMOKE else 500)
print(there)

# %% [markdown]
# ## A path, and files
#
# The path of least resistance between two points, a smooth chain of structures along it, and
# everything that was selected written down with its weights.

# %%
points = [explorer.surface.minimum, np.radians([-75.0, -30.0])]
route = explorer.path(points, n_points=4 if SMOKE else 30, decode=20 if SMOKE else 200)
print(route)
explorer.save("dipeptide_path")

# %% [markdown]
# ## Where it fails
#
# - A state that the generator lost is in no sample, and so in no surface and no variable. Run
#   `gencg run alanine-dipeptide`, whose report searches for lost modes.
# - αL holds a few thousandths: with 1,000 samples it rests on two or three, whatever its error bar.
# - Slow means slow for overdamped motion in this energy: times order motions, they are no rates.
# - Far from the samples the decoder is a guess. Its weights say so: look at the effective number.
