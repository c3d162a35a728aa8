r"""Forward ESS: a generator held against samples of the target from elsewhere, such as dynamics.

For evaluation only. The reverse ESS knows what the generator draws; frames of a converged
simulation also know what it does not.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gencg.fit import FitResult
from gencg.importance import forward_effective_sample_size


@dataclass(frozen=True)
class ForwardCheck:
    """A generator on reference frames.

    Attributes:
        ess: Forward effective sample size, as a fraction.
        ess_error: Its standard error, over contiguous blocks of frames.
        log_z: Log partition function by the frames, a second opinion on that of the generator.
        log_z_error: Its standard error.
        n_frames: Frames used.
        n_left_out: Frames of another handedness or with a turned double bond.
    """

    ess: float
    ess_error: float
    log_z: float
    log_z_error: float
    n_frames: int
    n_left_out: int


def forward_ess(result: FitResult, x: Tensor, *, n_blocks: int = 20, seed: int = 0) -> ForwardCheck:
    r"""Forward ESS and log Z of a generator without CVs on frames of the target.

    .. math:: \log w_i = -\beta U(x_i) - \log|\det \partial y/\partial x| - \log q(y_i), \qquad
              \mathrm{ESS} = \frac{1}{E_p[w]\, E_p[1/w]}, \qquad Z = \frac{1}{E_p[1/w]}

    Frames of dynamics are correlated: errors are bootstrap ones over contiguous blocks. Equivalent
    hydrogens numbered the other way round are put right first.

    Args:
        result: A trained generator without collective variables.
        x: Frames in the molecule's order of atoms (`Molecule.match`), ``(n, *event_shape)`` in nm.
        n_blocks: Blocks of the bootstrap.
        seed: Its seed.

    Raises:
        ValueError: If the generator has collective variables, or fewer than two frames for each
            block are frames of the described molecule.
    """
    if result.model.n_cvs:
        raise ValueError("`result` must be a generator without CVs: log q(y) is not known with z")
    coordinates = result.target.coordinates
    match_labels = getattr(coordinates, "match_labels", None)
    frames = x.double() if match_labels is None else match_labels(x.double())
    valid = coordinates.valid(frames)
    log_weights = _forward_weights(result, frames[valid])
    if len(log_weights) < 2 * n_blocks:
        raise ValueError(
            f"`x` must hold at least {2 * n_blocks} frames of the molecule, got {len(log_weights)} "
            f"and {int((~valid).sum())} of another handedness"
        )
    blocks = torch.chunk(log_weights, n_blocks)
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(500):
        index = torch.randint(len(blocks), (len(blocks),), generator=generator).tolist()
        again = torch.cat([blocks[i] for i in index])
        draws.append((float(forward_effective_sample_size(again)), _log_z(again)))
    errors = np.std(draws, axis=0)
    return ForwardCheck(
        ess=float(forward_effective_sample_size(log_weights)),
        ess_error=float(errors[0]),
        log_z=_log_z(log_weights),
        log_z_error=float(errors[1]),
        n_frames=len(log_weights),
        n_left_out=int((~valid).sum()),
    )


def _forward_weights(result: FitResult, x: Tensor, *, batch_size: int = 1000) -> Tensor:
    """Log weights of frames under the model in float64, ``(n,)``."""
    model, target = copy.deepcopy(result.model).double(), result.target
    parts = [x.new_zeros(0)]
    with torch.no_grad():
        for frames in torch.split(x, batch_size):
            y, log_det = target.coordinates.forward(frames)
            log_q = model.log_prob(model.rows(len(y)), y)
            parts.append(-target.beta * target.energy(frames) - log_det - log_q)
    return torch.cat(parts)


def _log_z(log_weights: Tensor) -> float:
    return math.log(len(log_weights)) - float(torch.logsumexp(-log_weights, 0))
