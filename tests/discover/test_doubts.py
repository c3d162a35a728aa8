"""What slow CVs say of themselves, and what survives writing down.

Cannot detect doubts that the samples hide: a state nobody drew raises none.
"""

import re
from dataclasses import replace

import pytest
import torch
from cv_samples import made_up_cvs, made_up_ensemble
from torch.testing import assert_close

import gencg
from gencg.discover import restore_slow, slow_state
from gencg.objectives.pair_basis import PairBasis
from gencg.objectives.slow_modes import SpectralHeads
from gencg.objectives.slow_network import NetworkCheck


@pytest.fixture(scope="module")
def slow():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    system = gencg.systems.alanine_dipeptide()
    made = made_up_cvs(system, made_up_ensemble(system))
    n = len(made.spectrum.eigenvalues)
    sure = replace(made.spectrum, n_transition=torch.full((n,), 500.0), agreement=torch.ones(n))
    return replace(made, spectrum=sure, support=1.0, frequency=torch.ones(2))


def _network(factor: float, error: float = 0.1) -> NetworkCheck:
    """Networks that find the first function as it is, and the second slower."""
    one = torch.ones(2)
    linear = torch.tensor([1.0, factor])
    return NetworkCheck(linear=linear, network=one, errors=error * one, agreement=one)


def test_what_the_samples_determine_raises_no_doubt(slow) -> None:
    assert slow.doubts == ()
    assert replace(slow, network=_network(1.1)).doubts == ()
    # Slower by a factor of two, give or take e: nothing
    assert replace(slow, network=_network(2.0, 1.0)).doubts == ()
    assert_close(slow.error_bars, torch.zeros(2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"frequency": torch.tensor([1.0, 0.5])},
            r"psi\(ALA2\) is chosen in 50% .* not determined",
        ),
        ({"support": 0.4}, "number of slow processes is the same in 40% of resamplings"),
        # Of one process of many, whatever the mean of all is
        ({"network": _network(1.4)}, "find process 2 slower by a factor of 1.4 than"),
    ],
)
def test_what_they_do_not_is_told(slow, change: dict, words: str) -> None:
    (doubt,) = replace(slow, **change).doubts
    assert re.search(words, doubt)
    assert doubt in repr(replace(slow, **change))


def test_held_out_samples_and_all_torsions_are_told_apart(slow) -> None:
    (faster,) = replace(slow, eigenvalues=2 * slow.eigenvalues).doubts
    assert faster.startswith("2 of 2 slow functions are faster by half or more on held-out")
    own = slow.spectrum.eigenvalues[slow.places]
    (short,) = replace(slow, reference=torch.cat([own[:1], own[1:] / 2])).doubts
    assert short.startswith("1 of 2 slow processes of all soft torsions are not functions of")
    assert replace(slow, reference=own).doubts == ()


def test_functions_that_change_or_that_few_carry_are_told(slow) -> None:
    few = slow.spectrum.n_transition.clone()
    few[slow.places[0]] = 20.0
    changed = slow.spectrum.agreement.clone()
    changed[slow.places[1]] = 0.5
    carried, function = replace(
        slow, spectrum=replace(slow.spectrum, n_transition=few, agreement=changed)
    ).doubts
    assert carried == "only 20 samples carry a slow process"
    assert function.startswith("slow function 2 changes between resamplings (correlation 0.50)")


def test_everything_but_the_samples_comes_back(slow) -> None:
    filled = replace(
        slow,
        network=_network(1.2),
        reference=torch.tensor([1.0, 2.0]),
        shares=torch.rand(2, 5),
    )
    again = restore_slow(slow_state(filled))
    for name in ("frequency", "reference", "shares", "eigenvalues"):
        assert_close(getattr(again, name), getattr(filled, name))
    assert again.support == filled.support
    assert again.network is not None
    assert again.network.gain == pytest.approx(1.2**0.5)
    assert again.doubts == filled.doubts
    assert again.places == filled.places
    s = torch.rand(4, slow.map.n_soft).float()
    assert_close(again.functions(s), filled.functions(s))


def test_a_file_of_before_these_figures_is_read(slow) -> None:
    state = slow_state(slow)
    for name in ("support", "frequency", "reference", "shares", "network"):
        del state[name]
    for name in ("resampled", "agreement"):
        del state["spectrum"][name]
    again = restore_slow(state)
    assert len(again.agreement) == 0
    assert again.doubts == ()


def test_heads_of_several_angles_come_back(slow) -> None:
    basis = PairBasis([3, 2], [(0, 1)], [2])
    vectors = torch.rand(len(basis), 2, dtype=torch.float64)
    found = replace(slow.spectrum, vectors=vectors, centre=torch.zeros(len(basis)))
    heads = SpectralHeads(basis, vectors, found.centre)
    functions = type(slow.functions)(slow.map, heads)
    again = restore_slow(slow_state(replace(slow, functions=functions, spectrum=found)))
    s = torch.rand(4, slow.map.n_soft).float()
    assert_close(again.functions(s), functions(s))
