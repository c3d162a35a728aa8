"""Path gradients: the density of a sample scored with its parameters detached."""

import copy

from pyro.distributions import TorchDistribution
from torch import Size, Tensor

from gencg.distributions.flow import FlowDistribution, Scored, same_sample
from gencg.models.coarse_grained import CoarseGrainedModel


class PathDistribution(TorchDistribution):  # type: ignore[misc]
    r"""Draw from one distribution, score with its twin whose parameters are detached.

    The gradient of :math:`E_q[\log q_\theta(y)]` has a path part, through the sample, and a score
    part whose mean is zero. Leaving the score part out removes its variance; where q equals the
    target, the estimator has no variance at all.

    Args:
        drawn: Distribution to draw from, reparametrised.
        scored: The same distribution with detached parameters.

    References:
        | Sticking the landing (Roeder et al., 2017), https://arxiv.org/abs/1703.09194
        | Gradients should stay on path (Vaitl et al., 2022), https://arxiv.org/abs/2207.08219
    """

    arg_constraints: dict[str, object] = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, drawn: TorchDistribution, scored: TorchDistribution) -> None:
        self.drawn, self.scored = drawn, scored
        self._path: tuple[Tensor, ...] | None = None
        super().__init__(drawn.batch_shape, drawn.event_shape, validate_args=False)

    @property
    def support(self) -> object:
        """Support of the distribution drawn from."""
        return self.drawn.support

    def rsample(self, sample_shape: Size | tuple[int, ...] = ()) -> Tensor:
        """Draw a sample that carries gradient to the live parameters."""
        if isinstance(self.drawn, FlowDistribution) and isinstance(self.drawn.flow, Scored):
            return self._rsample_with_score(self.drawn)
        sample: Tensor = self.drawn.rsample(sample_shape)
        return sample

    def _rsample_with_score(self, drawn: FlowDistribution) -> Tensor:
        """Draw, and keep the log-density as a function whose gradient is known already."""
        y, of_y, of_context = drawn.rsample_with_score()
        self._path = y, drawn.log_prob(y).detach(), of_y, drawn.context, of_context
        return y

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density with detached parameters; gradient flows through `value` alone."""
        if self._path is not None and same_sample(value, self._path[0]):
            _, log_q, of_value, context, of_context = self._path
            # Zero in value, the score in gradient; through `value`, which may be a view of y
            path = ((value - value.detach()) * of_value).sum(-1)
            return log_q + path + ((context - context.detach()) * of_context).sum(-1)
        log_prob: Tensor = self.scored.log_prob(value)
        return log_prob


def frozen_twin(
    model: CoarseGrainedModel, twin: CoarseGrainedModel | None = None
) -> CoarseGrainedModel:
    """A copy of the model that shares its storage and asks for no gradient.

    An optimiser that updates parameters in place updates the twin with them. `twin` is returned
    as it is while it still shares the storage of `model`, and made again otherwise.
    """
    if twin is not None and all(
        p.data_ptr() == q.data_ptr()
        for p, q in zip(twin.parameters(), model.parameters(), strict=True)
    ):
        return twin
    twin = copy.deepcopy(model)
    for p, q in zip(twin.parameters(), model.parameters(), strict=True):
        p.requires_grad_(False)
        p.data = q.data
    return twin
