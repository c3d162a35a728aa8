"""The optimiser against torch's own Muon and Adam. Cannot detect a poor learning rate."""

import copy

import pytest
import torch
from torch.testing import assert_close

from gencg.distributions.networks import MLP
from gencg.optimisers import MuonAdam, hidden_weights, orthogonalised


def _net(dtype: torch.dtype = torch.float32) -> MLP:
    net = MLP(12, 5, hidden=(24, 24, 16)).to(dtype)
    torch.nn.init.normal_(net.layers[-1].weight, std=0.1)
    return net


def _train(net: MLP, *optimisers: torch.optim.Optimizer, n_steps: int = 20) -> None:
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
    x = x.to(next(net.parameters()))
    for _ in range(n_steps):
        for optimiser in optimisers:
            optimiser.zero_grad()
        (net(x) - x[:, :5].cos()).square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_parameter_moves_as_with_torchs_own_optimisers(dtype) -> None:
    ours = _net(dtype)
    theirs = copy.deepcopy(ours)
    _train(ours, MuonAdam(ours, lr=2e-3))
    matrices = hidden_weights(theirs)
    assert [tuple(p.shape) for p in matrices] == [(24, 12), (24, 24), (16, 24)]
    others = [p for p in theirs.parameters() if all(p is not m for m in matrices)]
    muon = torch.optim.Muon(
        matrices, lr=2e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw", momentum=0.95
    )
    _train(theirs, muon, torch.optim.Adam(others, lr=2e-3))
    # The iteration is in eight bits, in one order or another
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(a, b, atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6), (3, 7, 9)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape, size) -> None:
    matrix = torch.randn(shape) * size
    near = orthogonalised(matrix)
    assert near.shape == matrix.shape
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    middle = left.mT @ near.to(left) @ right.mT
    diagonal = middle.diagonal(dim1=-2, dim2=-1)
    assert ((diagonal > 0.4) & (diagonal < 1.3)).all()
    assert_close(middle, torch.diag_embed(diagonal), atol=3e-2, rtol=0)


def test_a_matrix_without_gradient_is_not_moved_and_zero_stays_zero() -> None:
    net = _net()
    before = copy.deepcopy(net.state_dict())
    optimiser = MuonAdam(net, lr=1e-2)
    optimiser.step()
    for p in hidden_weights(net):
        p.grad = torch.zeros_like(p)
    optimiser.step()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_vanishing_matrix_stays_finite() -> None:
    for size in (0.0, 1e-30, 1e-25, 1e-20):
        assert orthogonalised((torch.randn(8, 8) * size).float()).isfinite().all()


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    whole = _net()
    stopped = copy.deepcopy(whole)
    one, two = MuonAdam(whole, lr=1e-2), MuonAdam(stopped, lr=1e-2)
    _train(whole, one, n_steps=6)
    _train(stopped, two, n_steps=3)
    resumed = copy.deepcopy(stopped)
    three = MuonAdam(resumed, lr=1.0)
    three.load_state_dict(copy.deepcopy(two.state_dict()))
    _train(resumed, three, n_steps=3)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="`closure` must be None"):
        MuonAdam(_net(), lr=1e-3).step(lambda: 0.0)
