"""Cards of results in notebooks: figures, a verdict in words, and nothing foreign unescaped.

Cannot detect: how a card looks.
"""

import dataclasses
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cv_samples import made_up_cvs, made_up_ensemble

import gencg
from gencg import html
from gencg.analysis import metastable_states
from gencg.ensemble import Ensemble
from gencg.fit import FitResult, as_result
from gencg.models.build import build_model
from gencg.systems import System, alanine_dipeptide, double_well
from gencg.target import BoltzmannTarget


class Balanced(HTMLParser):
    """Every tag that opens closes, and no foreign one is among them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> str:
    page = Balanced()
    page.feed(text)
    assert page.open == []
    assert page.seen <= {"div", "b", "table", "tr", "td", "th"}
    # The colours of the page, dark or light, and nothing from elsewhere
    assert "inherit" in text
    assert "http" not in text
    return text


def ensemble_of(log_weights: torch.Tensor, name: str = "toy") -> Ensemble:
    n = len(log_weights)
    x = torch.zeros(n, 2)
    return Ensemble(
        x=x, y=x, z=x[:, :0], energy=x[:, 0], log_weights=log_weights,
        valid=torch.ones(n, dtype=torch.bool), temperature=300.0, name=name,
    )  # fmt: skip


def test_a_good_and_a_bad_ensemble_say_so() -> None:
    good = checked(ensemble_of(0.1 * torch.randn(5000))._repr_html_())
    assert "ESS 99" in good
    assert "weighted averages are good" in good
    assert html.COLOURS["good"] in good.partition("<table")[0]

    # Weights of a Pareto tail of shape 0.9: a large ESS would be luck
    tail = 0.9 * -torch.log(torch.rand(5000))
    ensemble = ensemble_of(tail)
    assert ensemble.pareto_k > 0.7
    bad = checked(ensemble._repr_html_())
    assert "unreliable" in bad or "do not trust" in bad
    assert html.COLOURS["poor"] in bad.partition("<table")[0]

    few = torch.full((5000,), -50.0)
    few[:20] = torch.linspace(0.0, 0.5, 20)
    assert "A handful of samples carries every average" in checked(ensemble_of(few)._repr_html_())


def test_foreign_text_is_escaped() -> None:
    text = checked(ensemble_of(torch.zeros(2000), "<script>alert(1)</script>&")._repr_html_())
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
    card = html.card("<b>", [("<i>", "<u>")], verdicts=[("poor", "<s>")], note="<hr>")
    assert not any(part in card for part in ("<i>", "<u>", "<s>", "<hr>"))
    assert "&lt;" in html.table(["<b>"], [["<i>"]])


def test_a_fit_tells_what_only_samples_can_judge() -> None:
    system = double_well()
    target = BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    result = as_result(system, build_model(system.coordinates), target=target)
    assert "not trained here" in checked(result._repr_html_())

    def trained(ess: float, step: int = 10) -> FitResult:
        state = result.state
        state.history = [SimpleNamespace(ess=ess, energy_calls=1, gradient_calls=1)] * 10
        state.step, state.n_steps = step, 10
        return dataclasses.replace(result, state=state)

    assert trained(0.03).verdicts[0][0] == "poor"
    assert "ESS of the last batches 0.90" in checked(trained(0.9)._repr_html_())
    assert ("fair", "stopped at step 4 of 10") in trained(0.9, step=4).verdicts


def test_systems_molecules_and_what_was_found_have_cards() -> None:
    torch.manual_seed(0)
    system: System = alanine_dipeptide()
    assert "phi(ALA2)" in checked(system._repr_html_())
    assert "C6H12N2O2" in checked(system.molecule._repr_html_())
    checked(double_well()._repr_html_())

    ensemble = made_up_ensemble(system, 1500)
    slow = made_up_cvs(system, ensemble)
    assert "psi(ALA2)" in checked(slow._repr_html_())
    explorer = gencg.explore(ensemble)
    assert "Pareto k" in checked(explorer._repr_html_())
    selection = explorer.at(explorer.surface.minimum)
    assert "effective structures carry" in checked(selection._repr_html_())
    route = explorer.path([explorer.states[0].centre, explorer.states[1].centre], n_points=4)
    assert "frames differ by" in checked(route._repr_html_())

    rng = np.random.default_rng(0)
    g = np.where(rng.random(4000) < 0.1, 3.0, -1 / 3)[:, None] + 0.05 * rng.normal(size=(4000, 1))
    assert "crispness" in checked(metastable_states(g)._repr_html_())


@pytest.mark.parametrize(
    "value, error, text",
    [(12.34567, 0.0123, "12.346 ± 0.012"), (88.9, 0.1, "88.90 ± 0.10"), (3.0, 25.0, "3 ± 25"),
     (1.0, 0.0, "1 ± 0"), (1.5, float("inf"), "1.5 ± inf")],
)  # fmt: skip
def test_values_are_told_to_the_digits_of_their_errors(value, error, text) -> None:
    assert html.measured(value, error) == text
