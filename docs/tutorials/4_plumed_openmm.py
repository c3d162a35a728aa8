# %% [markdown]
# # Collective variables in PLUMED and OpenMM
#
# Variables found without a trajectory, used to drive dynamics in other programs. Everything that
# is written is loaded again and held to the model, in value and in gradient.

# %%
import os
import sys
from pathlib import Path

import gencg
from gencg.discover import find_slow_cvs
from gencg.export import export_cvs, soft_cv_function

SMOKE = bool(os.environ.get("SMOKE_TEST"))  # a few steps only, to see that everything runs
FOLDER = Path("exported_cvs")

# %% [markdown]
# ## A generator of the molecule
#
# Some minutes of one core. A finished `gencg run` has all of this: `gencg export RUN --format
# plumed openmm` does in one line what follows.

# %%
system = gencg.systems.alanine_dipeptide()
result = gencg.fit(system, energy_calls=2e3 if SMOKE else 1e6, seed=0)
result

# %% [markdown]
# ## Its slow variables
#
# Read the doubts before you spend a week of dynamics on a variable.

# %%
slow = find_slow_cvs(
    result, n_cvs=2, n_samples=2_000 if SMOKE else 60_000, networks=not SMOKE,
    bend=False if SMOKE else None,
)  # fmt: skip
slow

# %% [markdown]
# ## As a function of torsions between atoms
#
# An angle becomes two columns, its cosine and sine: a wrapped angle would kick the molecule each
# time it passes 180°.

# %%
function = soft_cv_function(system.coordinates, slow.map, names=slow.names)
print(function.columns)

# %% [markdown]
# ## Write, load again, compare
#
# Each line is what the comparison of a file with the model found, at samples and at the same with
# noise on every atom.

# %%
ensemble = gencg.draw(result.model, result.target, 100, molecule=system.molecule)
samples = ensemble.select(ensemble.valid).x[: 4 if SMOKE else 40]
checks = export_cvs(
    function, FOLDER, molecule=system.molecule, samples=samples, formats=("plumed", "openmm"),
    temperature=300.0, title=system.name,
)  # fmt: skip
for check in checks:
    print(check)

# %% [markdown]
# ## PLUMED
#
# `cv.pt` must lie where PLUMED is started, and PLUMED needs its pytorch module. Metadynamics is in
# the file already, behind a number sign. Atoms are those of `topology.pdb`, in its order.

# %%
print((FOLDER / "plumed.dat").read_text())

# %% [markdown]
# ## OpenMM
#
# `openmm_cv.py` needs torch, openmm and numpy, and not gencg. Here a short metadynamics run.

# %%
import openmm
from openmm import app, unit

sys.path.insert(0, str(FOLDER.resolve()))
import openmm_cv

pdb = app.PDBFile(str(FOLDER / "topology.pdb"))
physics = app.ForceField("amber96.xml", "implicit/obc1.xml").createSystem(pdb.topology)
variables = openmm_cv.bias_variables(str(FOLDER / "cv.pt"))
metadynamics = app.Metadynamics(
    physics, variables, 300 * unit.kelvin, 8, 1.2 * unit.kilojoules_per_mole, 100
)
integrator = openmm.LangevinMiddleIntegrator(
    300 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond
)
simulation = app.Simulation(
    pdb.topology, physics, integrator, openmm.Platform.getPlatformByName("Reference")
)
simulation.context.setPositions(pdb.positions)
metadynamics.step(simulation, 5 if SMOKE else 5_000)
print(metadynamics.getCollectiveVariables(simulation))

# %% [markdown]
# ## Where it fails
#
# - The function must be one of fixed atoms. A variable that depends on atoms which trade places in
#   a rotor is refused, and so are toys and one-stage models.
# - **Slow functions** (`--slow` of `gencg export`) are steep between states: with a bias on them
#   use small Gaussians, or take the angles.
# - A bias on the right variables does not cure the wrong force field, and a variable found in
#   implicit solvent need not be slow in water.
# - The order of the atoms: a simulation with another order runs, and computes something else.
