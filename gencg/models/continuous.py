"""The flow-matching decoder: both blocks are continuous flows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from gencg.coordinates.base import CoordinateMap
from gencg.distributions.continuous_flow import DEFAULT_SOLVER, ContinuousFlow
from gencg.distributions.flow import Chain
from gencg.distributions.gated_field import GatedField
from gencg.distributions.solvers import FixedSteps, Solver
from gencg.distributions.velocity import VelocityField
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.two_block import SoftBlock, SoftSpace, StiffBlock, TwoBlockFlow, log_normal

SOFT_SOLVER = FixedSteps(16)
"""Of the soft block, whose few coordinates part into states: steep velocities, cheap steps."""


class FlowMatchingDecoder(TwoBlockDecoder):
    r"""Two continuous flows: soft coordinates on their circles, everything stiff given them.

    .. math:: q(y|z) = q(s|z)\, q(v|s,z)

    The soft block starts uniform on the torus (normal on the line for toys), the stiff block
    normal around the reference structure; each moves along a velocity (`GatedField`) whose
    divergence is exact. `FlowMatching` trains it on its own weighted samples, every other
    objective through the differential equation. It stands wherever `SplineDecoder` does, but for
    windows of long molecules (`Locality`) and generators that are taken over.

    Args:
        coordinates: Gives the number of coordinates, which are soft, centre and scale.
        n_cvs: Number of collective variables z, may be zero.
        n_soft_units: Ridge functions of the soft block; None takes 256 up to 8 soft coordinates,
            512 beyond.
        n_stiff_units: Ridge functions of the stiff block.
        n_soft_times: Polynomials in time of the soft block.
        n_stiff_times: Polynomials in time of the stiff block; its gates have two at most.
        sharpness: How steep the ridge functions of the soft block begin (`GatedField`); None takes
            1 on circles and 3 on the line, where a narrow state has no harmonic to show it.
        hidden: Hidden widths of the networks that the blocks' contexts pass.
        soft_solver: How the equation of the soft block is solved.
        stiff_solver: How that of the stiff block is.

    Raises:
        ValueError: If soft coordinates are partly on the circle and partly on the line.

    References:
        | Flow matching for generative modeling (Lipman et al., 2023),
          https://arxiv.org/abs/2210.02747
        | Flow matching on general geometries (Chen, Lipman, 2024),
          https://arxiv.org/abs/2302.03660
    """

    def __init__(
        self,
        coordinates: CoordinateMap,
        *,
        n_cvs: int = 0,
        n_soft_units: int | None = None,
        n_stiff_units: int = 256,
        n_soft_times: int = 6,
        n_stiff_times: int = 4,
        sharpness: float | None = None,
        hidden: Sequence[int] = (128, 128),
        soft_solver: Solver = SOFT_SOLVER,
        stiff_solver: Solver = DEFAULT_SOLVER,
    ) -> None:
        space = SoftSpace(coordinates)
        if sharpness is None:
            sharpness = soft_sharpness(space.periodic)
        soft = GatedField(
            torch.full((space.n_soft,), space.periodic),
            n_context=n_cvs,
            n_units=soft_units(space.n_soft) if n_soft_units is None else n_soft_units,
            n_times=n_soft_times,
            sharpness=sharpness,
            hidden=hidden,
        )
        stiff = GatedField(
            torch.zeros(space.n_stiff, dtype=torch.bool),
            n_context=space.n_features + n_cvs,
            n_units=n_stiff_units,
            n_times=n_stiff_times,
            n_gate_times=min(2, n_stiff_times),
            hidden=hidden,
        )
        super().__init__(
            TwoBlockFlow(
                SoftBlock(space, chain=Chain(_layers(soft, soft_solver))),
                StiffBlock(coordinates, space, chain=Chain(_layers(stiff, stiff_solver))),
            )
        )

    @property
    def at_rest(self) -> bool:
        """Whether no velocity was learned yet: nothing moves in either block."""
        layers = [layer for layer in self.modules() if isinstance(layer, ContinuousFlow)]
        return not any(layer.field.moves for layer in layers)


def draw_stiff(stiff: StiffBlock, eps: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""All coordinates y from noise and soft coordinates, with the slope of their density.

    Args:
        stiff: A stiff block of continuous flows without collective variables.
        eps: Standard normal, ``(n, n_stiff)``.
        s: Soft coordinates, ``(n, n_soft)``.

    Returns:
        y ``(n, dim)``, :math:`\log q(v|s)` ``(n,)``, and :math:`\nabla_v \log q(v|s)`
        ``(n, n_stiff)``, without a graph.
    """
    context, v, score = stiff.space.features(s), eps, -eps
    log_q = log_normal(eps) - stiff.scale.log().sum()
    for layer in stiff.chain.layers:
        assert isinstance(layer, ContinuousFlow)
        v, log_det, score = layer.draw_with_score(v, context, score)
        log_q = log_q - log_det
    y = torch.cat([s, v * stiff.scale + stiff.centre], dim=-1)[:, stiff.space.order]
    return y, log_q, score / stiff.scale


@contextmanager
def fewer_steps(model: nn.Module) -> Iterator[None]:
    """Equations solved with half of the fixed steps.

    Densities are off by some hundredths then (docs/flow_matching.md), which a batch of training
    bears and a final sample does not.
    """
    flows = [module for module in model.modules() if isinstance(module, ContinuousFlow)]
    solvers = [flow.solver for flow in flows]
    try:
        for flow in flows:
            if isinstance(flow.solver, FixedSteps):
                flow.solver = replace(flow.solver, n_steps=max(flow.solver.n_steps // 2, 1))
        yield
    finally:
        for flow, solver in zip(flows, solvers, strict=True):
            flow.solver = solver


def solvers_of(model: nn.Module) -> str:
    """How the equations in a model are solved, in words; empty where there are none."""
    flows = [module for module in model.modules() if isinstance(module, ContinuousFlow)]
    return ", ".join(repr(flow.solver) for flow in flows)


def soft_units(n_soft: int) -> int:
    """Ridge functions for so many soft coordinates."""
    return 256 if n_soft <= 8 else 512


def soft_sharpness(periodic: bool) -> float:
    """How steep the soft block's ridge functions begin: on the line no harmonics show a well."""
    return 1.0 if periodic else 3.0


def _layers(field: VelocityField, solver: Solver) -> list[ContinuousFlow]:
    return [ContinuousFlow(field, solver=solver)] if field.dim else []
