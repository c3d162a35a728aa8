"""Taming reduced energies which would drown every other sample."""

import torch
from torch import Tensor


def compress(u: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    r"""Reduced energies, growing only logarithmically above a threshold.

    .. math:: u \mapsto \begin{cases} u & u \le c \\ c + \log(1 + u - c) & u > c \end{cases}

    Continuous with slope 1 at the threshold. Two atoms on top of each other cost
    :math:`10^{20}\, k_B T`, and an average over a batch should not be about them alone.

    Args:
        u: Reduced energies :math:`\beta U`, any shape.
        threshold: :math:`c`, finite.

    Returns:
        The compressed energies, and which were above the threshold (bool). A NaN stays a NaN and
        counts as untouched.

    Raises:
        ValueError: If the threshold is not finite.
    """
    if not torch.isfinite(torch.tensor(threshold)):
        raise ValueError(f"`threshold` must be finite, got {threshold}")
    touched = u > threshold
    # The excess is cut before the log: a discarded branch must not send back a NaN
    excess = torch.where(touched, u - threshold, torch.zeros_like(u))
    # log1p of an infinite energy has slope 0; the largest number of the dtype stands for it
    compressed = threshold + torch.log1p(excess.clamp(max=torch.finfo(u.dtype).max))
    return torch.where(touched, compressed, u), touched
