"""Slow functions of all soft coordinates by a network: a start and check beyond linear bases."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencg.distributions.networks import MLP, harmonics
from gencg.objectives.dirichlet import SoftSamples, Spectrum, aligned_correlation

ACTIVE = 1e-4
"""Smallest relative variance of a direction that counts in a batch."""
DESCRIPTORS = ("torsions", "distances", "both")
"""What networks may be functions of."""
OWN = 0.5
"""Share of the variance of a product beyond the functions from which on it is one of its own."""


class SlowNetwork(nn.Module):
    r"""A correction to linear slow functions, :math:`f(s) = f_0(s) + h(s)`, and free ones, h alone.

    h is a tanh network of cosines and sines of the soft angles (of the coordinates themselves on
    the line), of distances, or of both; the correction starts at zero, the free functions at
    random.

    Args:
        n_soft: Number of soft coordinates that the network sees; the first of its arguments.
        n_functions: Number of functions that are corrected.
        periodic: Whether the coordinates are angles.
        n_free: Number of free ones, which look for what no linear function leads to.
        hidden: Hidden widths.
        distances: Samples of the distances behind the coordinates, ``(n, d)``: they are shifted and
            scaled by their mean and standard deviation.
        torsions: Whether the network sees the coordinates at all, or distances alone.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        n_soft: int,
        n_functions: int,
        *,
        periodic: bool,
        n_free: int = 2,
        hidden: Sequence[int] = (48, 48),
        distances: Tensor | None = None,
        torsions: bool = True,
    ) -> None:
        super().__init__()
        if distances is None:
            distances = torch.zeros(2, 0)
        self.periodic, self.n_soft, self.torsions = periodic, n_soft, torsions
        n_in = torsions * (4 * n_soft if periodic else n_soft) + distances.shape[1]
        shift = distances.mean(0)
        self.register_buffer("shift", shift)
        spread = (distances - shift).square().mean(0).sqrt()
        self.register_buffer("scale", spread.clamp_min(1e-6))
        self.net = MLP(n_in, n_functions + n_free, hidden=hidden, activation=nn.Tanh)
        last = self.net.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.xavier_normal_(last.weight.data[n_functions:])

    def forward(self, s: Tensor) -> Tensor:
        """h, ``(n, n_functions + n_free)``, at coordinates and distances ``(n, n_soft + d)``."""
        angles, r = s[:, : self.n_soft], (s[:, self.n_soft :] - self.shift) / self.scale
        seen = [harmonics(angles) if self.periodic else angles] if self.torsions else []
        out: Tensor = self.net(torch.cat([*seen, r], dim=1))
        return out


@dataclass(frozen=True)
class NetworkCheck:
    """What networks of all soft coordinates find beyond a linear basis.

    Args:
        linear: Eigenvalues in the span of the linear functions on held-out samples, mean over
            folds, ``(m,)``.
        network: The same with the network's correction, ``(m,)``.
        errors: Standard error over folds of the logarithm of their ratio, ``(m,)``.
        agreement: Correlation of each linear function with the functions of the networks, once
            rotated onto each other; the mean over folds, ``(m,)``.
        descriptors: What the networks see, one of `DESCRIPTORS`.
    """

    linear: Tensor
    network: Tensor
    errors: Tensor
    agreement: Tensor
    descriptors: str = "torsions"

    @property
    def gain(self) -> float:
        """Geometric mean of linear over network eigenvalues: 1 where a network finds nothing."""
        return float((self.linear / self.network).log().mean().exp())

    @property
    def gains(self) -> Tensor:
        """Linear over network eigenvalue of each function, ``(m,)``."""
        return self.linear / self.network

    def beyond(self, factor: float) -> list[int]:
        """Functions that networks find slower by a factor, and by two standard errors."""
        log = self.gains.log()
        # False where either is no number
        return torch.nonzero((log > math.log(factor)) & (log > 2 * self.errors))[:, 0].tolist()


def network_check(
    samples: SoftSamples,
    start: Spectrum,
    index: Tensor,
    *,
    n_folds: int = 3,
    n_steps: int = 200,
    batch_size: int = 6000,
    learning_rate: float = 1e-2,
    patience: int = 4,
    seed: int = 0,
    descriptors: str = "torsions",
) -> NetworkCheck:
    r"""Let networks of all soft coordinates improve linear slow functions, cross-validated.

    .. math:: \max_h\; \mathrm{tr}\big[(C + A/\lambda_0)^{-1} C\big] = \sum_k
              \frac{1}{1 + \lambda_k/\lambda_0}, \quad C = \mathrm{cov}_p(f),
              \quad A = E_p[\nabla f^T G\, \nabla f], \quad f = f_0 + h

    with :math:`\lambda_0` the fastest of the linear eigenvalues, so that fast functions, of which
    there are always more, count little.

    What products of the functions hold beyond them is projected out of f: the product of two
    independent slow functions is slow, too, and no process of its own. For each fold a network
    is trained on four fifths of the other folds and stopped by the last fifth; the fold itself
    only tells.

    Args:
        samples: Weighted samples in random sequence.
        start: Linear functions at these samples.
        index: Which of them to improve, ``(m,)``.
        n_folds: Number of folds.
        n_steps: Steps at most.
        batch_size: Samples per step, drawn without regard to weight.
        learning_rate: Adam's rate, falling along a cosine.
        patience: Checks (every 20 steps) without improvement before stopping.
        seed: Seed of networks and batches.
        descriptors: What the networks see: "torsions" (all soft coordinates), "distances" or
            "both". The Dirichlet form is that of all of them, by their joint metric, so that it
            is exact for functions of distances too.

    Raises:
        ValueError: If `descriptors` is no such word, or the samples have no distances.
    """
    if descriptors not in DESCRIPTORS:
        raise ValueError(
            f"`descriptors` must be one of {', '.join(DESCRIPTORS)}, got {descriptors!r}"
        )
    n_soft = samples.n_soft
    f, slopes = start.functions[:, index].float(), start.slopes[:, index].float()
    if descriptors != "torsions":
        samples = samples.with_distances()
        # The linear functions do not depend on them
        slopes = nn.functional.pad(slopes, (0, samples.n_soft - n_soft))
    fixed, fixed_slopes = _products(f, slopes, samples.weights.float())
    rate = float(start.eigenvalues[index].max())
    scene = _Scene(samples, f, slopes, fixed, fixed_slopes, rate)
    folds = torch.arange(len(f)).chunk(n_folds)
    linear, network, agreement = [], [], []
    for k, held_out in enumerate(folds):
        train = torch.cat([part for j, part in enumerate(folds) if j != k])
        with torch.random.fork_rng():
            torch.manual_seed(seed + k)
            net = SlowNetwork(
                n_soft,
                len(index),
                periodic=samples.periodic,
                distances=samples.s[:, n_soft:],
                torsions=descriptors != "distances",
            ).float()
        n_train = int(0.8 * len(train))
        moving, stopping = train[:n_train], train[n_train:]
        net = _train(net, scene, moving, stopping, n_steps, batch_size, learning_rate, patience,
                     torch.Generator().manual_seed(seed + k))  # fmt: skip
        linear.append(scene.ritz(None, held_out)[0])
        values, correlation = scene.ritz(net, held_out)
        network.append(values)
        agreement.append(aligned_correlation(correlation, start.eigenvalues[index]))
    one, two = torch.stack(linear), torch.stack(network)
    errors = (one / two).log().std(0) / math.sqrt(n_folds)
    correlations = torch.stack(agreement).mean(0)
    return NetworkCheck(one.mean(0), two.mean(0), errors, correlations, descriptors)


@dataclass(frozen=True)
class _Scene:
    """Samples with linear functions, and functions to be projected out, at them."""

    samples: SoftSamples
    f: Tensor
    slopes: Tensor
    fixed: Tensor
    fixed_slopes: Tensor
    rate: float

    def forms(self, net: SlowNetwork | None, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Covariance and Dirichlet form of the functions, and the functions' overlap with f."""
        part = self.samples.take(index)
        weights, metric = part.weights.float(), part.metric.float()
        f, slopes = self.f[index], self.slopes[index]
        if net is not None:
            s = part.s.float().detach().requires_grad_()
            h = net(s)
            rows = [
                torch.autograd.grad(h[:, i].sum(), s, create_graph=True)[0]
                for i in range(h.shape[1])
            ]
            rates = torch.stack(rows, dim=1)
            m = f.shape[1]
            f = torch.cat([f + h[:, :m], h[:, m:]], dim=1)
            slopes = torch.cat([slopes + rates[:, :m], rates[:, m:]], dim=1)
        f, slopes = self._project(f, slopes, index, weights)
        covariance = (weights[:, None] * f).T @ f
        dirichlet = torch.einsum("n,nai,nij,nbj->ab", weights, slopes, metric, slopes)
        start = self.f[index] - (weights[:, None] * self.f[index]).sum(0)
        return covariance, dirichlet, (weights[:, None] * start).T @ f

    def _project(
        self, f: Tensor, slopes: Tensor, index: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        f = f - (weights[:, None] * f).sum(0)
        if not self.fixed.shape[1]:
            return f, slopes
        p, slopes_p = self.fixed[index], self.fixed_slopes[index]
        p = p - (weights[:, None] * p).sum(0)
        gram = (weights[:, None] * p).T @ p
        ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
        c = torch.linalg.solve(gram + ridge, (weights[:, None] * p).T @ f)
        return f - p @ c, slopes - torch.einsum("npi,pm->nmi", slopes_p, c)

    def loss(self, net: SlowNetwork, index: Tensor) -> Tensor:
        covariance, dirichlet, _ = self.forms(net, index)
        # The ridge in the denominator alone: what hardly varies scores nothing
        ridge = ACTIVE * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
        whole = covariance + ridge + dirichlet / self.rate
        out: Tensor = -torch.linalg.solve(whole, covariance).trace()
        return out

    def ritz(self, net: SlowNetwork | None, index: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues on samples, and the correlation of f with the functions, rotated."""
        covariance, dirichlet, overlap = (part.detach().double() for part in self.forms(net, index))
        # Of the functions' correlations, so that a large one does not hide the others
        size = covariance.diagonal().clamp_min(1e-300).rsqrt()
        active = covariance.diagonal() > ACTIVE * covariance.diagonal()[: self.f.shape[1]].mean()
        size = torch.where(active, size, torch.zeros_like(size))
        values, directions = torch.linalg.eigh(size[:, None] * covariance * size)
        kept = values > ACTIVE * values[-1]
        whitening = size[:, None] * directions[:, kept] * values[kept].rsqrt()
        eigenvalues, rotation = torch.linalg.eigh(whitening.T @ dirichlet @ whitening)
        weights = self.samples.take(index).weights.double()
        f = self.f[index].double()
        centred = f - (weights[:, None] * f).sum(0)
        scale = (weights[:, None] * centred.square()).sum(0).sqrt()
        correlation = (overlap @ whitening @ rotation) / scale[:, None]
        m = f.shape[1]
        missing = eigenvalues.new_full((max(m - len(eigenvalues), 0),), math.inf)
        return torch.cat([eigenvalues, missing])[:m], correlation[:, :m]


def _train(
    net: SlowNetwork,
    scene: _Scene,
    train: Tensor,
    held_out: Tensor,
    n_steps: int,
    batch_size: int,
    learning_rate: float,
    patience: int,
    generator: torch.Generator,
) -> SlowNetwork:
    optimiser = torch.optim.Adam(net.parameters(), lr=learning_rate)
    best = float(scene.loss(net, held_out).detach())
    kept, since = {k: v.clone() for k, v in net.state_dict().items()}, 0
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        batch = train[torch.randperm(len(train), generator=generator)[:batch_size]]
        optimiser.zero_grad(set_to_none=True)
        value = scene.loss(net, batch)
        if torch.isfinite(value):
            value.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimiser.step()
        if step % 20 == 19:
            score, since = float(scene.loss(net, held_out).detach()), since + 1
            if score < best - 1e-3 * abs(best):
                best, since = score, 0
                kept = {k: v.clone() for k, v in net.state_dict().items()}
            if since >= patience:
                break
    net.load_state_dict(kept)
    return net


def _products(f: Tensor, slopes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What products of two different functions hold beyond the functions, and its slopes.

    Between three states the product of two functions is a sum of them again: nothing is left.
    """
    first, second = torch.triu_indices(f.shape[1], f.shape[1], 1)
    values = f[:, first] * f[:, second]
    rates = f[:, first, None] * slopes[:, second] + f[:, second, None] * slopes[:, first]
    centred, p = (g - (weights[:, None] * g).sum(0) for g in (f, values))
    gram = (weights[:, None] * centred).T @ centred
    c = torch.linalg.solve(gram, (weights[:, None] * centred).T @ p)
    left = p - centred @ c
    variance, before = ((weights[:, None] * g.square()).sum(0) for g in (left, p))
    own = variance > OWN * before
    return left[:, own], (rates - torch.einsum("nmi,mp->npi", slopes, c))[:, own]
