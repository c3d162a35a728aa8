"""Walkers that begin anew at soft coordinates of hotter stages."""

from typing import Any

import torch
from torch import Tensor

RESTARTED = 0.4
"""Share of the walkers that are in their burn-in."""
BURN_IN = 30
"""Moves after a restart, before samples of the generator may take a walker's place."""
WARM, HOT = 1.4, 3.0
"""Between these factors above the target's temperature coordinates are kept; below, restarts."""
N_KEPT, N_GATHERED = 4096, 8
"""Soft coordinates kept, and walkers looked at for them in a step."""


class Restarts:
    r"""A reservoir of soft coordinates of hotter stages, and who began anew at them of late.

    The reservoir is an even sample of all rows offered (algorithm R of Vitter): row k replaces a
    random one with probability ``N_KEPT / k``. In a move a walker that is not in its burn-in
    begins anew with probability :math:`\sigma / (B (1 - \sigma))`, at most one, B being `BURN_IN`,
    so that in the long run the share :math:`\sigma` of all is within B moves of a restart, or less
    where some are refused.

    Args:
        share: The share :math:`\sigma`, at most B / (B + 1) in effect; 0 restarts and keeps nothing
            and draws no random number.

    Attributes:
        kept: The reservoir, ``(at most N_KEPT, n_soft)``.
        burn_in: Moves left of each walker's burn-in, ``(n,)`` int64.
        n_seen: Rows offered to the reservoir.

    References:
        | Random sampling with a reservoir (Vitter, 1985), https://doi.org/10.1145/3147.3165
        | After the idea of J-walking, without its acceptance: Reducing quasi-ergodic behavior in
          Monte Carlo simulations by J-walking (Frantz, Freeman, Doll, 1990),
          https://doi.org/10.1063/1.458863
    """

    kept: Tensor
    burn_in: Tensor

    def __init__(self, share: float = RESTARTED) -> None:
        self.share = share
        self.n_seen = 0

    def start(self, n: int, like: Tensor) -> None:
        """Begin with `n` walkers, none in its burn-in, and nothing kept of rows as in `like`."""
        self.n_seen = 0
        self.kept = like[:0].clone()
        self.burn_in = torch.zeros(n, dtype=torch.long, device=like.device)

    def offer(self, s: Tensor, heat: float) -> None:
        """Offer soft coordinates of walkers to the reservoir.

        Args:
            s: Of all walkers, ``(n, n_soft)``.
            heat: Temperature over the target's.
        """
        if not self.share or not WARM <= heat <= HOT:
            return
        for row in s[torch.randint(len(s), (N_GATHERED,), device=s.device)]:
            self.n_seen += 1
            place = int(torch.randint(self.n_seen, ()))
            if len(self.kept) < N_KEPT:
                self.kept = torch.cat([self.kept, row[None]])
            elif place < N_KEPT:
                self.kept[place] = row

    def begin_anew(self, chosen: Tensor, heat: float) -> tuple[Tensor, Tensor | None]:
        """Which walkers begin anew, and where.

        Args:
            chosen: Walkers that are asked, ``(n,)`` int64.
            heat: Temperature over the target's.

        Returns:
            Whether each does, ``(n,)`` bool, and soft coordinates ``(n, n_soft)`` drawn from the
            reservoir with replacement, for each; none and None where it is hot or nothing is kept.
        """
        n, device = len(chosen), chosen.device
        if not self.share or heat >= WARM or not len(self.kept):
            return torch.zeros(n, dtype=torch.bool, device=device), None
        rate = self.share / BURN_IN / (1 - self.share)
        anew = (self.burn_in[chosen] == 0) & (torch.rand(n, device=device) < rate)
        return anew, self.kept[torch.randint(len(self.kept), (n,), device=device)]

    def count(self, chosen: Tensor, restarted: Tensor) -> None:
        """Count one move of some walkers.

        Args:
            chosen: Those that were asked, ``(n,)`` int64.
            restarted: Whether each began anew, ``(n,)`` bool.
        """
        left = (self.burn_in[chosen] - 1).clamp(min=0)
        self.burn_in[chosen] = torch.where(restarted, BURN_IN, left)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        # Copies: both change in place
        return {
            "kept": self.kept.clone(),
            "burn_in": self.burn_in.clone(),
            "n_seen": self.n_seen,
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on from `content`."""
        self.kept, self.burn_in = content["kept"].clone(), content["burn_in"].clone()
        self.n_seen = content["n_seen"]
