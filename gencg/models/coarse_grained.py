"""The coarse-grained model: prior, decoder and encoder held together."""

import torch
from torch import Tensor, nn

from gencg.models.base import ConditionalDistribution, Empty


class CoarseGrainedModel(nn.Module):
    r"""Generator :math:`q(z)\,q(y|z)` and encoder :math:`r(z|y)`.

    Works on coordinates y, which are one-to-one with the configuration x up to rigid motion.

    Args:
        decoder: q(y|z).
        prior: q(z); left out together with `encoder` for a model without collective variables.
        encoder: r(z|y).
        n_cvs: Number of collective variables.

    Raises:
        ValueError: If `prior` and `encoder` do not fit `n_cvs`.
    """

    _origin: Tensor

    def __init__(
        self,
        decoder: ConditionalDistribution,
        *,
        prior: ConditionalDistribution | None = None,
        encoder: ConditionalDistribution | None = None,
        n_cvs: int = 0,
    ) -> None:
        super().__init__()
        if n_cvs > 0 and (prior is None or encoder is None):
            raise ValueError(f"`prior` and `encoder` are needed for n_cvs={n_cvs}, got None")
        if n_cvs == 0 and not (prior is None and encoder is None):
            raise ValueError("`n_cvs` must be at least 1 when `prior` or `encoder` is given, got 0")
        self.n_cvs = n_cvs
        self.prior = prior if prior is not None else Empty()
        self.decoder = decoder
        self.encoder = encoder if encoder is not None else Empty()
        # One value that knows the dtype and device of the whole model
        self.register_buffer("_origin", torch.zeros(()))

    def rows(self, n: int) -> Tensor:
        """An empty context of `n` rows, in the dtype and on the device of the model."""
        return self._origin.new_zeros(n, 0)

    def sample(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""Draw z ``(n, n_cvs)``, y ``(n, dim)`` and :math:`\log q(z) + \log q(y|z)` ``(n,)``."""
        prior = self.prior(self.rows(n))
        z = prior.rsample()
        decoder = self.decoder(z)
        y = decoder.rsample()
        return z, y, prior.log_prob(z) + decoder.log_prob(y)

    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        r"""Joint log-density :math:`\log q(z) + \log q(y|z)`, shape ``(n,)``."""
        log_prob: Tensor = self.prior(self.rows(len(z))).log_prob(z) + self.decoder(z).log_prob(y)
        return log_prob

    def log_encoder(self, z: Tensor, y: Tensor) -> Tensor:
        r"""Encoder log-density :math:`\log r(z|y)`, shape ``(n,)``; zero without CVs."""
        log_prob: Tensor = self.encoder(y).log_prob(z)
        return log_prob
