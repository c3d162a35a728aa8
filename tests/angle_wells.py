"""Independent double wells of angles, with exact weights."""

import math

import torch

from gencg.objectives.dirichlet import SoftSamples


def wells(n: int, barriers: tuple[float, ...], *, flat: float = 0.0) -> SoftSamples:
    r"""Samples of :math:`p \propto \exp(-\sum_i b_i (1 + \cos 2 s_i) / 2)`, unit metric.

    A share `flat` is uniform on the torus; the weights are exact.
    """
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)
    angles, log_weights = [], torch.zeros(n, dtype=torch.float64)
    uniform = torch.arange(n) < flat * n
    log_q = torch.full((2, n), math.log(flat) if flat else -math.inf, dtype=torch.float64)
    log_q[1] = math.log1p(-flat)
    for b in barriers:
        log_p = -b * (1 + torch.cos(2 * grid)) / 2
        log_z = torch.logsumexp(log_p, 0) + math.log(2 * math.pi / 4000)
        index = torch.multinomial(log_p.exp(), n, replacement=True, generator=generator)
        index[uniform] = torch.randint(4000, (int(uniform.sum()),), generator=generator)
        s = grid[index]
        angles.append(s)
        log_weights += -b * (1 + torch.cos(2 * s)) / 2 - log_z
        log_q[0] -= math.log(2 * math.pi)
        log_q[1] += -b * (1 + torch.cos(2 * s)) / 2 - log_z
    order = torch.randperm(n, generator=generator)
    s = torch.stack(angles, -1)
    metric = torch.eye(len(barriers), dtype=torch.float64).expand(n, -1, -1)
    return SoftSamples(s, metric, log_weights - torch.logsumexp(log_q, 0), True).take(order)
