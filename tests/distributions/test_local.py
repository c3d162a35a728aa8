"""Layers along a chain: exact, invertible, blind beyond their reach, linear in its length.

Cannot detect a neighbourhood too small for a molecule.
"""

import pytest
import torch
from torch.testing import assert_close

from gencg.distributions.couplings import (
    Affine,
    CircularSpline,
    Coupling,
    LineSpline,
    UnitTriangular,
)
from gencg.distributions.flow import Chain, FlowDistribution, Scored
from gencg.distributions.local import BlockTriangular, LocalCoupling
from gencg.distributions.torus import TorusNormal
from gencg.distributions.windows import WindowMLP

DIM, N_CONTEXT = 13, 7
POSITION = torch.randperm(DIM, generator=torch.Generator().manual_seed(3)).double()
CONTEXT_POSITION = torch.linspace(0, DIM, N_CONTEXT).double()
CONTEXT_POSITION[2] = torch.nan
HALF = POSITION % 2 == 0


def _coupling(transform=None, moved=HALF, n_windows=4, reach=2.0, n_summary=0, hidden=(6, 5)):
    return LocalCoupling(
        transform or Affine(),
        moved,
        position=POSITION,
        context_position=CONTEXT_POSITION,
        n_windows=n_windows,
        reach=reach,
        hidden=hidden,
        n_summary=n_summary,
    )


LAYERS = {
    "affine": _coupling,
    "affine with summary": lambda: _coupling(n_summary=2),
    "one hidden layer with summary": lambda: _coupling(n_summary=2, hidden=(6,)),
    "spline on the line": lambda: _coupling(LineSpline(n_bins=4), n_summary=1),
    "spline on the circle": lambda: _coupling(CircularSpline(n_bins=4)),
    "everything moved": lambda: _coupling(moved=torch.ones(DIM, dtype=torch.bool)),
    "one window": lambda: _coupling(n_windows=1),
    "as many windows as entries": lambda: _coupling(n_windows=99),
    "triangles": lambda: BlockTriangular(POSITION, block=4),
    "shifted triangles": lambda: BlockTriangular(POSITION, block=4, shift=2),
}


def _shaken(layer):
    torch.manual_seed(0)
    layer = layer.double()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(name: str) -> None:
    layer = _shaken(LAYERS[name]())
    x, context = torch.randn(5, DIM), torch.randn(5, N_CONTEXT)
    if "circle" in name:
        x = torch.remainder(x, 2 * torch.pi) - torch.pi

    # The inverse undoes it, with the opposite log-determinant
    y, log_det = layer(x, context)
    back, log_det_back = layer.inverse(y, context)
    assert_close(back, x)
    assert_close(log_det_back, -log_det)

    # The log-determinant is that of the Jacobian
    for i in range(5):
        jacobian = torch.func.jacrev(lambda v, i=i: layer(v[None], context[i, None])[0][0])(x[i])
        assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[i])

    # The score is the gradient of the density through the inverse
    assert isinstance(layer, Scored)
    n_angles = DIM if "circle" in name else 0
    base = TorusNormal(n_angles, DIM - n_angles, like=context)
    y, of_y, of_context = FlowDistribution(base, layer, context).rsample_with_score()
    y_leaf, c_leaf = y.detach().requires_grad_(), context.clone().requires_grad_()
    log_q = FlowDistribution(base, layer, c_leaf).log_prob(y_leaf)
    by_y, by_context = torch.autograd.grad(
        log_q.sum(), (y_leaf, c_leaf), allow_unused=True, materialize_grads=True
    )
    assert_close(of_y, by_y, atol=1e-8, rtol=1e-7)
    assert_close(of_context, by_context, atol=1e-8, rtol=1e-7)

    # One sample is what it is in a batch, in the dtype of the layer
    assert_close(layer(x[1:2], context[1:2])[0], layer(x, context)[0][1:2])
    assert layer.float()(x.float(), context.float())[0].dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in LAYERS if "spline" not in name])
def test_every_untrained_layer_is_the_identity(name: str) -> None:
    layer, x = LAYERS[name]().double(), torch.randn(3, DIM)
    y, log_det = layer(x, torch.randn(3, N_CONTEXT))
    assert_close(y, x)
    assert_close(log_det, torch.zeros(3))


def _dependence(layer) -> tuple[torch.Tensor, torch.Tensor]:
    """Which outputs depend on which inputs and which features of the context."""
    x, context = torch.randn(DIM), torch.randn(N_CONTEXT)
    by_x, by_context = torch.func.jacrev(
        lambda x, c: layer(x[None], c[None])[0][0], argnums=(0, 1)
    )(x, context)
    return by_x != 0, by_context != 0


def test_an_output_does_not_depend_on_what_is_beyond_its_reach() -> None:
    layer = _shaken(_coupling())
    by_x, by_context = _dependence(layer)
    distance = (POSITION[:, None] - POSITION).abs()
    # Windows hold every other of 13 entries, at most two of them: 4 places, and see 4 of 6 kept
    # entries, which end within 8 places
    assert not by_x[distance > 8].any()
    assert by_x.any(1).all()
    farther = (POSITION[:, None] - CONTEXT_POSITION).abs() > 8
    assert not by_context[farther].any()

    # What belongs nowhere along the chain is seen by all that move
    assert torch.equal(by_context[:, 2], HALF)

    # A summary joins the windows: everything that moves sees all kept entries
    by_x, by_context = _dependence(_shaken(_coupling(n_summary=2)))
    assert by_x[HALF][:, ~HALF].all()
    assert by_context[HALF].all()


def test_blocks_join_what_shares_a_block() -> None:
    by_x, _ = _dependence(_shaken(BlockTriangular(POSITION, block=4)))
    block = POSITION // 4
    before = POSITION[:, None] >= POSITION
    assert torch.equal(by_x, (block[:, None] == block) & before)
    pair = Chain([BlockTriangular(POSITION, block=4), BlockTriangular(POSITION, block=4, shift=2)])
    by_x, _ = _dependence(_shaken(pair))
    assert not by_x[(POSITION[:, None] - POSITION).abs() > 7].any()
    # Neighbours that the first map leaves apart
    assert by_x[POSITION == 4, POSITION == 3].all()


def test_one_window_is_the_full_layer() -> None:
    local, full = (
        _shaken(_coupling(n_windows=1)),
        Coupling(Affine(), HALF, n_context=N_CONTEXT, hidden=(6, 5)),
    )
    linear = [layer for layer in full.net.layers if isinstance(layer, torch.nn.Linear)]
    # The window has its entries in order of the chain
    rows = torch.argsort(torch.argsort(POSITION[HALF])).mul(2)
    rows = torch.stack([rows, rows + 1], dim=1).flatten()
    for k, layer in enumerate(linear):
        weight, bias = local.net.weights[k][0], local.net.biases[k][0, :, 0]
        if k == 2:
            weight, bias = weight[rows], bias[rows]
        if k == 0:
            kept = list(range(6))
            others = [6 + i for i in (0, 1, 3, 4, 5, 6, 2)]
            weight = torch.empty_like(weight).index_copy_(1, torch.tensor(kept + others), weight)
        layer.weight.data, layer.bias.data = weight.data, bias.data
    x, context = torch.randn(4, DIM), torch.randn(4, N_CONTEXT)
    assert_close(local(x, context)[0], full(x, context)[0])

    blocks = BlockTriangular(torch.arange(DIM), block=DIM).double()
    matrix = UnitTriangular(DIM).double()
    blocks.entries.data.normal_()
    matrix.entries.data = blocks.entries.data[0]
    assert_close(blocks(x, context)[0], matrix(x, context)[0])


def test_parameters_grow_linearly_with_the_chain() -> None:
    def size(n: int) -> int:
        position, context = torch.arange(8 * n).double(), torch.linspace(0, 8 * n, 3 * n).double()
        coupling = LocalCoupling(
            Affine(),
            position % 2 == 0,
            position=position,
            context_position=context,
            n_windows=n,
            reach=3,
            hidden=(9, 7),
            n_summary=4,
        )
        layers = [coupling, BlockTriangular(position, block=8)]
        return sum(p.numel() for layer in layers for p in layer.parameters())

    assert size(40) - size(20) == 2 * (size(20) - size(10))


def test_each_window_has_hidden_layers_of_its_own_for_the_optimiser() -> None:
    shapes = [weight.shape for weight in _coupling().net.hidden_weights]
    assert shapes == [(4, 6, 7), (4, 5, 6)]


def test_bad_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="`moved` must mark at least one entry, got none"):
        _coupling(moved=torch.zeros(DIM, dtype=torch.bool))
    with pytest.raises(ValueError, match="`hidden` must name at least one width, got none"):
        WindowMLP(2, 3, 4, hidden=())
