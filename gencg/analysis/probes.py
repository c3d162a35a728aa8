"""Probes: weighted samples of the target that a generator which lost a mode would not draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gencg import parallel
from gencg.analysis.annealing import anneal
from gencg.ensemble import draw
from gencg.fit import FitResult
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.mixture import CoveringModel
from gencg.models.two_block import SoftBlock, TwoBlockFlow

CHAINS = "Chains from anywhere"
COVERING = "Samples of the hot flows"
FEWEST_CHAINS = 20
"""With fewer chains nothing is learned: all calls go into fewer kinds of probes, or none."""
FEWEST_STEPS, STEPS_PER_SOFT = 50, 10
"""Steps of a chain: short chains keep rare wells in sight, more torsions take longer to settle."""


@dataclass(frozen=True, eq=False)
class Probe:
    r"""Samples whose weights are exact whatever the generator lost, :math:`E[W h] = Z E_p[h]`.

    Attributes:
        name: Where they come from.
        soft: Soft coordinates, ``(n, n_soft)``.
        log_weights: Log weights, ``(n,)``; -inf for none.
        n_energy_calls: Energy calls spent.
    """

    name: str
    soft: Tensor
    log_weights: Tensor
    n_energy_calls: int


def probe_modes(result: FitResult, n_calls: int, *, seed: int = 0) -> tuple[Probe, ...]:
    r"""Look for modes of the target beside the generator, for `n_calls` energy calls.

    A tenth goes into samples of the soft flows of hotter stages with cold stiff coordinates
    (`CoveringModel`), the rest into annealed chains (`anneal`) that start with every soft
    coordinate on the uniform torus (on the wide normal of the base, for toys) and with stiff ones
    from the generator's stiff block given them. The first see what the ladder saw, precisely; the
    second also what no stage saw.

    Args:
        result: A trained generator.
        n_calls: Energy calls to spend; too few give fewer probes, or none.
        seed: Seed.

    Returns:
        The probes; none for a decoder without a soft block.
    """
    result = result.leading
    model = result.model
    if not isinstance(model.decoder, TwoBlockDecoder) or model.n_cvs:
        return ()
    space = model.decoder.flow.stiff.space
    if space.n_soft == 0:
        return ()
    n_steps = max(FEWEST_STEPS, STEPS_PER_SOFT * space.n_soft)
    probes = []
    n_covering = n_calls // 10 if result.snapshots else 0
    n_chains = (n_calls - n_covering) // (n_steps + 1)
    if n_covering >= FEWEST_CHAINS:
        probes.append(_covering_probe(result, n_covering, seed))
    if n_chains >= FEWEST_CHAINS:
        probes.append(_annealed_probe(result, n_chains, n_steps, seed))
    return tuple(probes)


def _covering_probe(result: FitResult, n_samples: int, seed: int) -> Probe:
    # Few samples of the generator itself: they keep the weights bounded, and see nothing new
    covering = CoveringModel(result.model, result.snapshots, share=0.1)
    ensemble = draw(covering, result.target, n_samples, seed=seed)  # type: ignore[arg-type]
    soft = ensemble.y[:, result.system.coordinates.soft]
    return Probe(COVERING, soft, ensemble.log_weights, ensemble.n_energy_calls)


def _annealed_probe(result: FitResult, n_chains: int, n_steps: int, seed: int) -> Probe:
    energy, model = result.target.energy, result.model
    before = energy.n_energy_calls
    assert isinstance(model.decoder, TwoBlockDecoder)
    stiff = model.decoder.flow.stiff
    # No layer: the soft coordinates are those of the base, as they were before any training
    untrained = SoftBlock(stiff.space, n_layers=0).to(model.rows(0))
    y, log_weights = anneal(
        TwoBlockFlow(untrained, stiff),
        result.target,
        n_chains=n_chains,
        n_steps=n_steps,
        like=model.rows(0),
        seed=seed,
    )
    soft = y[:, result.system.coordinates.soft]
    n_calls = parallel.total(torch.tensor(energy.n_energy_calls - before))
    return Probe(CHAINS, soft, log_weights, int(n_calls))


def probe_state(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """Probes as plain values and tensors, for checkpoints."""
    return [vars(probe).copy() for probe in probes]


def restore_probes(state: Sequence[dict[str, Any]]) -> tuple[Probe, ...]:
    """The probes that `probe_state` wrote down."""
    return tuple(Probe(**item) for item in state)
