"""How the differential equation of a continuous flow is solved."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RightHandSide = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""From the time ``()`` and the state to the state's rate of change."""


class Solver(ABC):
    """From the state at one time to that at another; differentiable through its steps."""

    @abstractmethod
    def solve(
        self, rate: RightHandSide, state: tuple[Tensor, ...], start: float, end: float
    ) -> tuple[Tensor, ...]:
        """The state at time `end`.

        Args:
            rate: The right-hand side.
            state: Tensors at time `start`.
            start: Time.
            end: Time, before or after `start`.
        """


@dataclass(frozen=True)
class FixedSteps(Solver):
    """A number of equal steps: every sample is moved by itself, at the same cost.

    Args:
        n_steps: Number of steps.
        method: "euler", "midpoint" or "rk4" of torchdiffeq, of order 1, 2 and 4.

    Raises:
        ValueError: If `n_steps` is below 1 or `method` is none of these.
    """

    n_steps: int = 8
    method: str = "rk4"

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise ValueError(f"`n_steps` must be at least 1, got {self.n_steps}")
        if self.method not in ("euler", "midpoint", "rk4"):
            raise ValueError(
                f"`method` must be one of euler, midpoint, rk4, got {self.method!r}; for an "
                "adaptive one take AdaptiveSteps"
            )

    def solve(
        self, rate: RightHandSide, state: tuple[Tensor, ...], start: float, end: float
    ) -> tuple[Tensor, ...]:

        def grid(func: object, y0: Tensor, t: Tensor) -> Tensor:
            # A step size of its own would leave it to rounding how many there are
            return torch.linspace(float(t[0]), float(t[-1]), self.n_steps + 1).to(t)

        options = {"grid_constructor": grid}
        return _odeint(rate, state, start, end, method=self.method, options=options)


@dataclass(frozen=True)
class AdaptiveSteps(Solver):
    """Steps as short as the tolerances ask for.

    The error is that of a batch: which samples share it changes a density within the tolerances.

    Args:
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        method: "dopri5", "dopri8" or "bosh3" of torchdiffeq.

    Raises:
        ValueError: If a tolerance is not positive or `method` is none of these.
    """

    rtol: float = 1e-6
    atol: float = 1e-6
    method: str = "dopri5"

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.method not in ("dopri5", "dopri8", "bosh3"):
            raise ValueError(
                f"`method` must be one of dopri5, dopri8, bosh3, got {self.method!r}; for equal "
                "steps take FixedSteps"
            )

    def solve(
        self, rate: RightHandSide, state: tuple[Tensor, ...], start: float, end: float
    ) -> tuple[Tensor, ...]:
        options = {"rtol": self.rtol, "atol": self.atol}
        return _odeint(rate, state, start, end, method=self.method, **options)


def _odeint(
    rate: RightHandSide,
    state: tuple[Tensor, ...],
    start: float,
    end: float,
    **options: object,
) -> tuple[Tensor, ...]:
    from torchdiffeq import odeint

    if not len(state[0]):
        return state
    times = torch.tensor([start, end], dtype=state[0].dtype, device=state[0].device)
    found = odeint(rate, state, times, **options)
    return tuple(part[-1] for part in found)
