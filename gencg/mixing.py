"""Mixtures of generators that were trained apart."""

import copy
import math
from collections.abc import Sequence

from gencg.fit import FitResult, as_result
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import TwoBlockDecoder
from gencg.models.mixture import MixtureDecoder, members_of


def mix(results: Sequence[FitResult], *, shares: Sequence[float] | None = None) -> FitResult:
    r"""One generator of several: each draws its share, and the density is that of all.

    .. math:: q(y) = \sum_k a_k\, q_k(y)

    Trainings from other seeds, or annealed anew (`gencg run --anneal-from`), err in other places.
    Where one has too little density, and its weights would be large, another may have more; see
    `MixtureDecoder`. States that any member draws are drawn. `gencg.draw` takes the result as any
    other. What needs one soft and one stiff block, as collective variables do, takes those of the
    first member.

    Args:
        results: Trainings of the same system at the same temperature, without collective
            variables; mixtures count with all their members.
        shares: Share of each in the samples, in any unit; by default as many members as it has.

    Returns:
        A training of no steps, with the soft blocks and the ladder of the first, and the energy
        calls that the results tell of themselves. Those of what they began from, or of a
        generator that comes with gencg, are not among them; ``gencg run`` tells these, too.

    Raises:
        ValueError: If there are less than two, one is of another molecule or temperature or has
            no two blocks, or `shares` are not positive and finite or of another number. Energies
            are not compared: the target is that of the first.

    References:
        | Optimally combining sampling techniques for Monte Carlo rendering (Veach, Guibas, 1995),
          https://doi.org/10.1145/218380.218498
    """
    if len(results) < 2:
        raise ValueError(f"`results` must be two or more, got {len(results)}")
    first = results[0]
    for k, result in enumerate(results):
        _check(result, first, k)
    if shares is None:
        shares = [float(len(members_of(result.model))) for result in results]
    elif len(shares) != len(results) or not all(0 < share < math.inf for share in shares):
        raise ValueError(
            f"`shares` must be {len(results)} positive finite numbers, one for each result, got "
            f"{list(shares)}"
        )
    shares = [share / max(shares) for share in shares]
    members: list[TwoBlockDecoder] = []
    parts: list[float] = []
    for result, share in zip(results, shares, strict=True):
        decoder, own = result.model.decoder, members_of(result.model)
        within = [1.0]
        if isinstance(decoder, MixtureDecoder):
            within = decoder.log_shares.double().exp().tolist()
        members += copy.deepcopy(own)
        parts += [share * part for part in within]
    model = CoarseGrainedModel(MixtureDecoder(members, shares=parts))
    model.to(first.model.rows(0))
    return as_result(
        first.system,
        model,
        target=first.target,
        seed=first.state.seed,
        snapshots=first.state.snapshots,
        ladder=first.ladder,
        energy_calls=sum(result.energy_calls for result in results),
        gradient_calls=sum(result.gradient_calls for result in results),
    )


def _check(result: FitResult, first: FitResult, k: int) -> None:
    """Refuse what cannot be mixed with the first."""
    if result.model.n_cvs or not members_of(result.model):
        raise ValueError(
            f"`results` must have two blocks and no collective variables, number {k} has a "
            f"{type(result.model.decoder).__name__} and {result.model.n_cvs} of these; leave it out"
        )
    theirs, ours = result.system.coordinates, first.system.coordinates
    if theirs.names != ours.names:
        raise ValueError(
            f"`results` must be of one molecule, number {k} is of {result.system.name}, whose "
            f"coordinates are not those of {first.system.name}"
        )
    if result.target.temperature != first.target.temperature:
        raise ValueError(
            f"`results` must be of one temperature, number {k} is of "
            f"{result.target.temperature:g} K and the first of {first.target.temperature:g} K"
        )
