"""The coarse-grained model: prior, decoder and encoder held together."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from gencg.coordinates.base import CoordinateMap
from gencg.models.base import ConditionalDistribution, Empty
from gencg.molecule import Molecule

logger = logging.getLogger("gencg")

Decode = Callable[["CoarseGrainedModel", Tensor | ArrayLike, int, int], Any]
"""From model, z, number of samples and seed to a weighted ensemble."""


@dataclass(frozen=True, eq=False)
class Attachment:
    """What a model describes: no part of its parameters, and shared by its copies.

    Args:
        coordinates: Map from configurations to the coordinates of the model.
        molecule: Topology; None for toys.
        decode: How `CoarseGrainedModel.decode` weighs what it draws.
    """

    coordinates: CoordinateMap
    molecule: Molecule | None = None
    decode: Decode | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Attachment":
        return self


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
        self._attachment: Attachment | None = None

    @property
    def periodic_cvs(self) -> bool:
        """Whether the collective variables are angles."""
        return bool(getattr(self.prior, "periodic", False))

    def attach(
        self,
        *,
        coordinates: CoordinateMap,
        molecule: Molecule | None = None,
        decode: Decode | None = None,
    ) -> None:
        """Tell the model what it describes, so that it can `encode` and `decode`; `fit` does."""
        self._attachment = Attachment(coordinates, molecule, decode)

    def encode(self, trajectory: Any) -> NDArray[np.float64]:
        r"""Collective variables of configurations: the mean of :math:`r(z|x)` at each frame.

        Args:
            trajectory: MDTraj trajectory of the molecule, in any order of atoms
                (`Molecule.match`), or configurations ``(n, n_atoms, 3)`` in nm, ``(n, dim)`` for
                toys.

        Returns:
            Shape ``(n, n_cvs)``; angles in rad on :math:`[-\pi, \pi)`.

        Raises:
            ValueError: If the model has no collective variables or is not attached, or the
                trajectory is of something else.
        """
        attached = self._attached("encode")
        x = _configurations(trajectory, attached)
        # Elsewhere the two hydrogens of a CH2 may be numbered the other way round
        match_labels = getattr(attached.coordinates, "match_labels", None)
        means, n_strange = [], 0
        with torch.no_grad():
            for part in torch.split(x, 10_000):
                part = part if match_labels is None else match_labels(part)
                n_strange += int((~attached.coordinates.valid(part)).sum())
                y, _ = attached.coordinates.forward(part)
                means.append(self.encoder(y.to(self._origin)).mean.double().cpu())
        if n_strange:
            logger.warning(
                "%d of %d frames have another handedness or a turned double bond: the collective "
                "variables were not made for them",
                n_strange,
                len(x),
            )
        z: NDArray[np.float64] = torch.cat(means).numpy()
        return z

    def decode(self, z: Tensor | ArrayLike, n_samples: int, *, seed: int = 0) -> Any:
        """Weighted `Ensemble` of `n_samples` configurations at each row of z: backmapping.

        See `gencg.ensemble.decode`.

        Args:
            z: Collective variables, ``(n_cvs,)`` or ``(m, n_cvs)``.
            n_samples: Samples for each row.
            seed: Seed of the draw.

        Raises:
            ValueError: If the model has no collective variables or is not attached, z has
                another shape or is not finite, or `n_samples` is not positive.
        """
        attached = self._attached("decode")
        if attached.decode is None:
            raise ValueError("model is attached without `decode`; use gencg.ensemble.decode")
        return attached.decode(self, z, n_samples, seed)

    def _attached(self, verb: str) -> Attachment:
        if self.n_cvs == 0:
            raise ValueError(f"model has no collective variables to {verb}; fit it with n_cvs")
        if self._attachment is None:
            raise ValueError(
                f"model does not know its molecule, which {verb} needs; use the model that `fit` "
                "returns or call model.attach(coordinates=..., molecule=...)"
            )
        return self._attachment

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


def _configurations(trajectory: Any, attached: Attachment) -> Tensor:
    """Configurations in the molecule's order of atoms, float64 on the CPU."""
    shape = attached.coordinates.event_shape
    if hasattr(trajectory, "topology"):
        if attached.molecule is None:
            raise ValueError(f"a toy has no atoms to match; give an array of shape (n, {shape[0]})")
        return torch.as_tensor(attached.molecule.match(trajectory))
    x = torch.as_tensor(trajectory).detach().double().cpu()
    if tuple(x.shape[1:]) != tuple(shape) or not len(x):
        expected = ", ".join(map(str, shape))
        raise ValueError(
            f"`trajectory` must be an MDTraj trajectory or have shape (n, {expected}), "
            f"got {tuple(x.shape)}"
        )
    broken = (~torch.isfinite(x.flatten(1)).all(1)).nonzero()[:, 0].tolist()
    if broken:
        raise ValueError(
            f"`trajectory` must be finite, got nan or inf in {len(broken)} frames, the first at "
            f"{broken[0]}; leave them out"
        )
    return x
