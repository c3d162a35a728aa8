# %% [markdown]
# # Your own molecule, from a SMILES
#
# Anything that MMFF94 has parameters for, in vacuum. PDB, Amber, GROMACS, OpenMM and SDF files go
# the same way (`gencg.systems.from_pdb` and so on). Needs RDKit: `pip install 'gencg[mol]'`.

# %%
import os

import gencg
from gencg.plots.molecule import plot_molecule
from gencg.systems.description import describe_system

SMOKE = bool(os.environ.get("SMOKE_TEST"))  # a few steps only, to see that everything runs
SMILES = "CCCCC"  # pentane; put your own here

# %% [markdown]
# ## Read it
#
# A SMILES is one molecule with its hydrogens, charges and stereo as written. What is not written
# is chosen by RDKit; name the hand of every centre that matters.

# %%
system = gencg.systems.from_smiles(SMILES)
system.molecule

# %% [markdown]
# ## What will be sampled, and what is held
#
# Look at this before any training: soft coordinates turn, everything else stays in its well, and
# hands and double bonds stay those of the input.

# %%
print(describe_system(system))
plot_molecule(system.molecule).figure

# %% [markdown]
# ## Train
#
# 1e6 calls are the budget at which 33 of 38 molecules of 9 to 49 atoms reached an ESS of 0.75
# (docs/molecules.md). Give more where the verdict below is bad.

# %%
result = gencg.fit(system, energy_calls=2e3 if SMOKE else 1e6, seed=0)
result

# %% [markdown]
# ## Draw, and read the verdict

# %%
ensemble = gencg.draw(
    result.model, result.target, 400 if SMOKE else 20_000, molecule=system.molecule,
    name=SMILES,
)  # fmt: skip
ensemble

# %% [markdown]
# ## Rotamers and their free energies

# %%
found = gencg.analysis.assess(system, ensemble)
for name, (value, error) in found.reweighted.items():
    print(f"{name:40} {100 * value:6.2f} ± {100 * error:.2f} %")

# %% [markdown]
# ## See the structures
#
# States are basins of the free energy over the first two torsions; `over` takes others. `system`
# names them: an ensemble alone knows its structures and weights only.

# %%
explorer = gencg.explore(ensemble, system=system)
print(explorer.names)
print(explorer.state(1))
explorer.figure()

# %% [markdown]
# ## Take them with you
#
# A PDB of structures of equal weight, an XTC with a weight for every frame, a picture.

# %%
for path in explorer.save("my_molecule"):
    print(path)

# %% [markdown]
# ## Where it fails
#
# - **Vacuum.** A flexible polar molecule folds onto itself; MMFF94 in vacuum is no solution.
#   `gencg reweight --solvent water` moves an ensemble to GFN2-xTB with water, if the two overlap.
# - **Rings of eight atoms and more** train badly: cyclooctane has an ESS of 0.01 at this budget.
# - **A diverged training** (tryptamine did, of 38) has an ESS near 0; take another seed or more
#   calls. The card above says "do not trust", and means it.
# - **One conformer of a stereo centre**: gencg never turns one over. Two hands are two runs.
