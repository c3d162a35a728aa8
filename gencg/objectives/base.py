"""The objective: a model and a temperature in, a scalar to minimise out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gencg.models.coarse_grained import CoarseGrainedModel


@dataclass(frozen=True)
class Evaluation:
    r"""A loss and the samples behind it.

    Args:
        loss: Differentiable scalar.
        y: Samples of the model, ``(n, dim)``, detached.
        energy: Their energies in kJ/mol, ``(n,)``, detached.
        log_det: :math:`\log|\det \partial x/\partial y|` there, ``(n,)``, detached.
        log_weights: Their log importance weights at the beta asked for, never compressed.
        n_compressed: Samples whose energy was compressed.
        n_dropped: Samples left out of the loss as the worst.
        n_invalid: Samples left out because energy or density was not finite.
    """

    loss: Tensor
    y: Tensor
    energy: Tensor
    log_det: Tensor
    log_weights: Tensor
    n_compressed: int = 0
    n_dropped: int = 0
    n_invalid: int = 0


class Objective(ABC):
    """A loss over a model; it knows no optimiser.

    Attributes:
        rounds: Whether its networks' products may be rounded (`products_in`); an objective that
            passes the same samples twice, here and there without rounding, may not.
    """

    rounds = False

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that decide the gradient; a checkpoint of others is refused."""
        return {}

    @abstractmethod
    def evaluate(self, model: CoarseGrainedModel, beta: float) -> Evaluation:
        """Loss and samples at inverse temperature `beta` in mol/kJ."""

    def loss(self, model: CoarseGrainedModel, beta: float) -> Tensor:
        """The loss alone, a differentiable scalar."""
        return self.evaluate(model, beta).loss

    def state_dict(self) -> dict[str, Any]:
        """What the next evaluation needs beside the model: tensors and plain values."""
        return {}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        if content:
            raise ValueError(f"{type(self).__name__} keeps no state, got {', '.join(content)}")
