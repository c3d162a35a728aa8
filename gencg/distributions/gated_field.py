"""Ridge functions with gates: a velocity whose divergence costs no more than itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gencg.distributions.networks import MLP
from gencg.distributions.velocity import VelocityField


class GatedField(VelocityField):
    r"""Ridge functions whose gates and offsets the context and the time choose.

    .. math:: u(t, x) = b + (A + \mathrm{diag}\, d)\, x + W_2 \left[g \circ \tanh h\right],
              \qquad h = W_1 F(x) + a

    .. math:: \nabla\cdot u = \mathrm{tr} A + \sum_i d_i
              + \sum_h g_h \tanh'(h_h) \sum_f F'_f\, W_{1,hf}\, W_{2,i(f)h}

    F are the features of x: the entry itself on a line, where alone the linear part acts, and
    cosine and sine of the first harmonics on a circle; feature f is one of entry i(f). The
    divergence is exact and costs no more than the velocity. b, d, g and the context's part of a
    are chosen by a network; b, d, g, the time's part of a, and A are polynomials in time
    (Legendre, on [0, 1]). It starts at zero velocity.

    Args:
        periodic: Which entries of x are angles, ``(dim,)`` bool.
        n_context: Number of context features.
        n_units: Number of ridge functions.
        n_times: Number of polynomials in time.
        n_gate_times: Number of those that the gates have; all of them by default.
        n_harmonics: Harmonics of an angle.
        sharpness: How steep ridge functions begin. With 1 they are as wide as the base, and narrow
            states on lines are learned late (docs/design.md).
        hidden: Hidden widths of the network of the context.

    Raises:
        ValueError: If a number is below 1, `n_gate_times` above `n_times`, or `sharpness` not
            positive.

    References:
        | Neural ordinary differential equations (Chen et al., 2018), section 4: sums of hidden
          units with gates have a cheap trace, https://arxiv.org/abs/1806.07366
    """

    entry: Tensor
    multiple: Tensor
    lines: Tensor
    angles: Tensor

    def __init__(
        self,
        periodic: Tensor,
        *,
        n_context: int = 0,
        n_units: int = 256,
        n_times: int = 4,
        n_gate_times: int | None = None,
        n_harmonics: int = 2,
        sharpness: float = 1.0,
        hidden: Sequence[int] = (128, 128),
    ) -> None:
        super().__init__(periodic)
        n_gate_times = n_times if n_gate_times is None else n_gate_times
        for name, value in (
            ("n_units", n_units), ("n_times", n_times), ("n_gate_times", n_gate_times),
            ("n_harmonics", n_harmonics),
        ):  # fmt: skip
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        if n_gate_times > n_times:
            raise ValueError(
                f"`n_gate_times` must be at most n_times={n_times}, got {n_gate_times}"
            )
        if not sharpness > 0:
            raise ValueError(f"`sharpness` must be positive, got {sharpness}")
        angles, lines = periodic.nonzero()[:, 0], (~periodic).nonzero()[:, 0]
        dim, self.n_units, self.n_times = len(periodic), n_units, n_times
        self.n_gate_times = n_gate_times
        multiples = torch.arange(1, n_harmonics + 1).repeat_interleave(len(angles))
        self.register_buffer("lines", lines)
        self.register_buffer("angles", angles)
        self.register_buffer("multiple", multiples.float())
        # The entry of x that each feature is of
        self.register_buffer("entry", torch.cat([lines, angles.repeat(2 * n_harmonics)]))
        n_features = len(self.entry)
        inner = sharpness * torch.randn(n_units, n_features) / max(n_features, 1) ** 0.5
        self.inner = nn.Parameter(inner)
        self.outer = nn.Parameter(torch.randn(dim, n_units) / max(n_units, 1) ** 0.5)
        self.linear = nn.Parameter(torch.zeros(n_times, len(lines), len(lines)))
        self.offset = nn.Parameter(torch.zeros(n_units, n_times))
        nn.init.normal_(self.offset[:, 0], std=sharpness)
        self.sizes = [dim * n_times, len(lines) * n_times, n_units * self.n_gate_times, n_units]
        self.net = MLP(n_context, sum(self.sizes), hidden=hidden)

    @property
    def hidden_weights(self) -> list[Tensor]:
        """Weights of the layer inside the ridge functions."""
        return [self.inner]

    @property
    def moves(self) -> bool:
        """Whether the velocity is not zero everywhere, as it is when it is made."""
        last = self.net.layers[-1]
        assert isinstance(last, nn.Linear)
        return any(bool(p.any()) for p in (last.weight, last.bias, self.linear))

    def coefficients(self, context: Tensor) -> Tensor:
        """``(n, m)``, or ``(1, m)`` for all rows where there is no context."""
        k: Tensor = self.net(context[:1] if self.net.constant else context)
        return k

    def forward(self, t: Tensor, x: Tensor, k: Tensor) -> Tensor:
        now = self._at(t, k)
        features, _ = self._features(x)
        u = (now.gate * torch.tanh(self._inside(features, now))) @ self.outer.T + now.shift
        return self._with_lines(u, x, now)

    def with_divergence(self, t: Tensor, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        now = self._at(t, k)
        features, slopes = self._features(x)
        value = torch.tanh(self._inside(features, now))
        u = (now.gate * value) @ self.outer.T + now.shift
        bent = now.gate * (1 - value.square())
        divergence = (bent * self._seen(slopes)).sum(-1) + now.trace
        return self._with_lines(u, x, now), divergence

    def with_slope(
        self, t: Tensor, x: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        now = self._at(t, k)
        return self._pulled(x, v, now)[:3]

    def with_pullback(
        self, t: Tensor, x: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        now = self._at(t, k)
        u, divergence, of_x, of_inside, of_gate = self._pulled(x, v, now)
        # In the order of `sizes`: shift, slope, gate, offset
        parts = [v, self._on_lines(x) * self._on_lines(v) + 1, of_gate]
        polynomials = now.times, now.times, now.times[: self.n_gate_times]
        of_k = [
            (part[..., None] * times).flatten(1)
            for part, times in zip(parts, polynomials, strict=True)
        ]
        total = torch.cat([*of_k, of_inside], dim=-1)
        return u, divergence, of_x, total.sum(0, keepdim=True) if len(k) == 1 else total

    def _pulled(
        self, x: Tensor, v: Tensor, now: "_Now"
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """u, divergence, and the gradients by x, by what is inside, and by the gates."""
        features, slopes = self._features(x)
        value = torch.tanh(self._inside(features, now))
        slope, seen = 1 - value.square(), self._seen(slopes)
        bent = now.gate * slope
        u = self._with_lines((now.gate * value) @ self.outer.T + now.shift, x, now)
        divergence = (bent * seen).sum(-1) + now.trace
        of_value = v @ self.outer
        of_inside = bent * (of_value - 2 * value * seen)
        of_x = self._of_x(of_inside, bent, v, features, slopes, now)
        return u, divergence, of_x, of_inside, of_value * value + slope * seen

    def _of_x(
        self,
        of_inside: Tensor,
        bent: Tensor,
        v: Tensor,
        features: Tensor,
        slopes: Tensor,
        now: "_Now",
    ) -> Tensor:
        """Gradient by x from that by what is inside the ridge functions, ``(n, dim)``."""
        of_features = (of_inside @ self.inner) * slopes
        of_x = torch.zeros_like(v).index_add_(1, self.entry, of_features)
        if len(self.angles):
            # The slopes of the features turn with the angle, too
            n = len(self.lines)
            turn = (bent @ self._couplings())[:, n:] * -features[:, n:]
            of_x.index_add_(1, self.entry[n:], turn * self.multiple.square().repeat(2))
        if len(self.lines):
            v_lines = self._on_lines(v)
            matrix = torch.tensordot(now.times, self.linear, dims=1)
            of_x.index_add_(1, self.lines, v_lines @ matrix + now.slope * v_lines)
        return of_x

    def _inside(self, features: Tensor, now: "_Now") -> Tensor:
        return features @ self.inner.T + now.offset

    def _couplings(self) -> Tensor:
        """How each unit's outer weight sees each feature's inner one, ``(n_units, n_features)``."""
        return self.inner * self.outer[self.entry].T

    def _seen(self, slopes: Tensor) -> Tensor:
        """Sum over features of slope times coupling, ``(n, n_units)`` or ``(n_units,)``."""
        couplings = self._couplings()
        return slopes @ couplings.T if len(self.angles) else couplings.sum(-1)

    def _on_lines(self, x: Tensor) -> Tensor:
        return x[:, self.lines] if len(self.angles) else x

    def _with_lines(self, u: Tensor, x: Tensor, now: "_Now") -> Tensor:
        if not len(self.lines):
            return u
        on_lines = self._on_lines(x)
        moved = now.slope * on_lines
        if now.times.ndim == 1:
            moved = moved + on_lines @ torch.tensordot(now.times, self.linear, dims=1).T
        else:
            # No matrix for each row
            every = on_lines @ self.linear.mT  # [time, row, line]
            moved = moved + (now.times.T[..., None] * every).sum(0)
        return u.index_add(1, self.lines, moved) if len(self.angles) else u + moved

    def _at(self, t: Tensor, k: Tensor) -> "_Now":
        times = legendre(t, self.n_times)
        shift, slope, gate, offset = torch.split(k, self.sizes, dim=-1)
        shift, slope = _polynomial(shift, times), _polynomial(slope, times)
        traces = self.linear.diagonal(dim1=1, dim2=2).sum(-1)
        return _Now(
            times=times,
            shift=shift,
            slope=slope,
            gate=_polynomial(gate, times[..., : self.n_gate_times]),
            offset=offset + times @ self.offset.T,
            trace=times @ traces + slope.sum(-1),
        )

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(n, n_features)`` and their slopes by the entry that each is of."""
        if not len(self.angles):
            return x, torch.ones_like(x)
        on_lines, one = x[:, self.lines], x.new_ones(len(x), len(self.lines))
        turned = x[:, self.angles].repeat(1, len(self.multiple) // len(self.angles))
        turned = turned * self.multiple
        cosines, sines = turned.cos(), turned.sin()
        slopes = [one, -self.multiple * sines, self.multiple * cosines]
        return torch.cat([on_lines, cosines, sines], dim=-1), torch.cat(slopes, dim=-1)


@dataclass(frozen=True)
class _Now:
    """What a `GatedField` is at a time: for all rows, or for each."""

    times: Tensor
    shift: Tensor
    slope: Tensor
    gate: Tensor
    offset: Tensor
    trace: Tensor


def _polynomial(k: Tensor, times: Tensor) -> Tensor:
    """Values ``(n, p)`` of polynomials with coefficients ``(n, p * n_times)``."""
    k = k.view(len(k), -1, times.shape[-1])
    return k @ times if times.ndim == 1 else (k @ times[..., None])[..., 0]


def legendre(t: Tensor, n: int) -> Tensor:
    """The first `n` Legendre polynomials of ``2 t - 1``: ``()`` to ``(n,)``, ``(m, 1)`` to (m, n).

    They are orthogonal on [0, 1].
    """
    x = 2 * t - 1
    values = [torch.ones_like(x), x]
    for i in range(1, n - 1):
        values.append(((2 * i + 1) * x * values[i] - i * values[i - 1]) / (i + 1))
    if t.ndim == 0:
        return torch.stack(values[:n])
    return torch.cat(values[:n], dim=-1)
