"""Forward Kullback-Leibler divergence on the generator's own weighted samples."""

from typing import Any

from gencg.objectives.alpha_divergence import AlphaDivergence
from gencg.target import BoltzmannTarget


class WeightedForwardKL(AlphaDivergence):
    r"""Forward KL on fresh and replayed own samples, mixed with reverse KL.

    .. math:: L = (1 - a)\, \mathrm{KL}(q \| p)
              + a \sum_i \tilde w_i \left[\log p(y_i) - \log q_\theta(y_i)\right],
              \qquad \tilde w_i \propto \tilde p_\beta(y_i) / m_i(y_i)

    with :math:`m_i` the generator that drew sample i. Forward KL asks for density wherever the
    target has mass, so that a state with few samples is held by their weights; it can only hold
    what was drawn at least once. Its gradient is the path gradient of `AlphaDivergence` at order
    one; when :math:`\beta` moves, weights follow from the energies kept.

    Args:
        target: The Boltzmann density.
        options: See `Replaying`.

    Raises:
        ValueError: As `Replaying`.

    References:
        | Fast and unified path gradient estimators for normalizing flows (Vaitl et al., 2024),
          https://arxiv.org/abs/2403.15881
    """

    def __init__(self, target: BoltzmannTarget, **options: Any) -> None:
        super().__init__(target, alpha=1.0, **options)
