"""The Boltzmann target: energy, coordinate map and temperature as one density of y."""

from dataclasses import dataclass

from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.energies.base import Energy
from gencg.units import check_temperature, inverse_temperature


@dataclass(frozen=True)
class BoltzmannTarget:
    r"""Unnormalised Boltzmann density of the coordinates y.

    .. math:: \log \tilde p_\beta(y) = -\beta U(x(y)) + \log|\det \partial x / \partial y|

    Args:
        energy: Potential energy in kJ/mol.
        coordinates: Map between x and y.
        temperature: Temperature in K.

    Raises:
        ValueError: If the shapes of energy and coordinates differ, or the temperature is not
            positive and finite.
    """

    energy: Energy
    coordinates: CoordinateMap
    temperature: float

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.energy.event_shape != self.coordinates.event_shape:
            raise ValueError(
                f"`energy` takes configurations of shape {self.energy.event_shape}, "
                f"`coordinates` makes {self.coordinates.event_shape}; build both from one molecule"
            )

    @property
    def beta(self) -> float:
        r"""Inverse temperature :math:`\beta = 1/k_BT` in mol/kJ."""
        return inverse_temperature(self.temperature)

    def log_density(self, y: Tensor, *, beta: float | None = None) -> Tensor:
        """Log of the unnormalised density of ``y``, shape ``(*batch, dim)`` to ``(*batch,)``."""
        x, log_det = self.coordinates.inverse(y)
        energy = self.energy(x)
        return -(self.beta if beta is None else beta) * energy + log_det

    def energy_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Energy in kJ/mol and :math:`\log|\det \partial x/\partial y|`, each ``(*batch,)``.

        Outside the room that coordinates are meant to fill the logarithm is lowered by their
        `fence`, so that a generator stays inside; samples outside have weight zero in `draw`.
        """
        x, log_det = self.coordinates.inverse(y)
        fence = self.coordinates.fence(y)
        return self.energy(x), log_det if fence is None else log_det - fence
