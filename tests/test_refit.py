"""The refit of a shipped generator's soft block: resumed to the same, and taken over by a run.

Cannot detect a fit that is poor: it has six steps here.
"""

import sys

import pytest
import torch

from experiments.peptides import refit
from gencg import pretrained
from gencg.models.build import choices_of
from gencg.run import RunFolder, trained
from gencg.run.generator import _commands, find_generator

WORDS = ["refit", "alanine-dipeptide", "--calls", "1500", "--steps", "6", "--batch-size", "40"]


def _run(monkeypatch, out, *more: str) -> None:
    monkeypatch.setattr(sys, "argv", [*WORDS, "--out", str(out), *more])
    refit.main()


def test_a_refit_goes_on_to_the_same_and_is_taken_over(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(refit, "EVERY", 2)
    _run(monkeypatch, tmp_path / "whole")
    advance = refit.Fit.advance

    def interrupted(self, n: int) -> None:
        if self.step == 3:
            raise KeyboardInterrupt
        advance(self, n)

    monkeypatch.setattr(refit.Fit, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(monkeypatch, tmp_path / "parts")
    assert {"pool.pt", "refit-state.pt"} <= {p.name for p in (tmp_path / "parts").iterdir()}
    monkeypatch.setattr(refit.Fit, "advance", advance)
    _run(monkeypatch, tmp_path / "parts")
    models = []
    for name in ("whole", "parts"):
        folder = RunFolder.open(tmp_path / name)
        assert not (folder.path / "pool.pt").exists()
        models.append(trained(folder.system(), folder).model)
    whole, parts = (model.state_dict() for model in models)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    # The stiff block is the shipped one, the soft block another; the pool was paid for
    before = pretrained.load("alanine-dipeptide").model.state_dict()
    assert choices_of(before)["autoregressive"] is False
    assert choices_of(whole)["autoregressive"] is True
    stiff = [name for name in before if name.startswith("decoder.flow.stiff.")]
    assert len(stiff) > 10
    assert all(torch.equal(whole[name], before[name]) for name in stiff)
    folder = RunFolder.open(tmp_path / "whole")
    _, origin = find_generator(
        RunFolder.create(
            tmp_path / "next",
            refit.RunConfig("alanine-dipeptide", generator=str(folder.path), n_cvs=0).resolve(
                folder.system()
            ),
        ).config,
        folder.system(),
        trained=trained,
    )
    assert origin["energy_calls"] == 1500 + pretrained.about("alanine-dipeptide")["energy_calls"]
    made, refitted = origin["command"].split("; ")
    assert made == pretrained.about("alanine-dipeptide")["command"]
    assert refitted.startswith("python -m experiments.peptides.refit alanine-dipeptide --calls")
    # Neither done twice nor gone on with by other settings
    with pytest.raises(SystemExit) as left:
        _run(monkeypatch, tmp_path / "whole")
    assert left.value.code == 0
    (tmp_path / "begun").mkdir()
    monkeypatch.setattr(refit.Fit, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(monkeypatch, tmp_path / "begun")
    monkeypatch.setattr(refit.Fit, "advance", advance)
    with pytest.raises(ValueError, match="was begun with"):
        _run(monkeypatch, tmp_path / "begun", "--calls", "1600")

    # One that is autoregressive already is where the fit begins
    _run(monkeypatch, tmp_path / "again", "--generator", str(folder.path), "--steps", "1",
         "--learning-rate", "1e-9")  # fmt: skip
    again = RunFolder.open(tmp_path / "again")
    theirs = trained(again.system(), again).model.state_dict()
    assert all(torch.allclose(theirs[name], whole[name], atol=1e-6) for name in whole)
    assert "ess_cut_10" in capsys.readouterr().out


@pytest.mark.parametrize(
    "earlier, own, all_of_them",
    [
        (None, "gencg run a", "gencg run a"),
        ("gencg run a", "gencg run b", "gencg run a; gencg run b"),
        ("gencg run a", "gencg run a; refit", "gencg run a; refit"),
        ("gencg run a", None, None),
    ],
)
def test_commands_that_made_a_generator_are_told_in_their_order(earlier, own, all_of_them) -> None:
    assert _commands(earlier, own) == all_of_them
