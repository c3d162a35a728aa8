# %% [markdown]
# # Extending: an energy and a decoder of your own
#
# Everything is an object to pass in, and nothing is registered. An energy is a function of batches
# of configurations; a decoder is a module whose forward returns a distribution.

# %%
import math
import os

import torch
from pyro.distributions import Normal

import gencg
from gencg.coordinates.base import Cartesian
from gencg.models.base import ConditionalDistribution
from gencg.testing import check_energy

SMOKE = bool(os.environ.get("SMOKE_TEST"))  # a few steps only, to see that everything runs

# %% [markdown]
# ## An energy
#
# Plain torch, differentiable, batched: `(n, *event_shape)` in, `(n,)` in kJ/mol out. The base class
# counts the calls and handles other shapes of batch.


# %%
class Ring(gencg.Energy):
    r"""A ring of radius 2 with three wells on it, :math:`U = 8 (r - 2)^2 - 3 \cos 3\phi`."""

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        r = x.square().sum(-1).add(1e-12).sqrt()
        phi = torch.atan2(x[..., 1], x[..., 0])
        return 8 * (r - 2) ** 2 - 3 * torch.cos(3 * phi)


# %% [markdown]
# ## Hold it to its contract
#
# Batch and single agree, the gradient is that of the energy, calls are counted.

# %%
check_energy(Ring((2,)), torch.randn(5, 2, dtype=torch.float64))

# %% [markdown]
# ## Fit it
#
# Coordinates say what is periodic and what is soft; of a plane, nothing and everything.

# %%
system = gencg.System("ring", Ring((2,)), Cartesian(2, scale=2.0), temperature=120.0)
calls = 2e3 if SMOKE else 4e5
result = gencg.fit(system, energy_calls=calls, seed=0)
ensemble = gencg.draw(result.model, result.target, 1_000 if SMOKE else 50_000, name="ring")
ensemble

# %% [markdown]
# ## Is it right?
#
# An exact answer first: quadrature of the same energy.

# %%
grid = torch.linspace(-6.0, 6.0, 301, dtype=torch.float64)
x1, x2 = torch.meshgrid(grid, grid, indexing="ij")
u = result.target.beta * Ring((2,))(torch.stack([x1, x2], -1))
exact = float(torch.logsumexp(-u.flatten(), 0)) + 2 * math.log(float(grid[1] - grid[0]))
print("log Z", ensemble.log_z, "±", ensemble.log_z_error, "exact", exact)

# %% [markdown]
# ## A decoder
#
# Any module whose forward returns a Pyro distribution with `rsample` and an exact `log_prob`. This
# one is a diagonal Gaussian: far too little for a ring, and exact all the same after weighting.


# %%
class OneGaussian(ConditionalDistribution):
    """N(mean, exp(log_scale)^2), whatever the context."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(dim))
        self.log_scale = torch.nn.Parameter(torch.ones(dim))

    def forward(self, context: torch.Tensor) -> Normal:
        mean = self.mean.expand(len(context), -1)
        return Normal(mean, self.log_scale.exp()).to_event(1)


poor = gencg.CoarseGrainedModel(OneGaussian(2))
poor_fit = gencg.fit(system, model=poor, estimator="path", energy_calls=calls, seed=0)
gencg.draw(poor_fit.model, poor_fit.target, 1_000 if SMOKE else 50_000, name="one Gaussian")

# %% [markdown]
# ## Hold it to its contract, too
#
# A density integrates to one; here by quadrature, for the one Gaussian and for the default flow,
# both as they were trained. Weights rest on this.


# %%
def mass(decoder: ConditionalDistribution) -> float:
    """The integral of a decoder's density over the grid."""
    y = torch.stack([x1, x2], -1).reshape(-1, 2).float()
    with torch.no_grad():
        log_q = decoder(torch.zeros(len(y), 0)).log_prob(y)
    return float(log_q.double().exp().sum() * (grid[1] - grid[0]) ** 2)


for name, decoder in {"one Gaussian": poor_fit.model.decoder, "flow": result.model.decoder}.items():
    print(name, mass(decoder))

# %% [markdown]
# ## See both
#
# The same samples, whatever drew them, go into the same figures.

# %%
explorer = gencg.explore(ensemble)
explorer.figure()

# %% [markdown]
# ## Where it fails
#
# - A decoder that cannot reach a region gives averages without it, and an ESS that looks fine. The
#   one Gaussian reaches everything and pays with its ESS; a Gaussian in one well does not reach.
# - An energy with a singularity (two atoms on top of each other) must stay finite or +inf, never
#   nan: samples of nan have no weight and are counted as broken.
# - `log_prob` that is only nearly exact makes weights that are wrong, and nothing in them says so.
#   That is what the checks are for.
