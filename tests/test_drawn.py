"""A draw in parts is the draw without them, however often it was killed.

Cannot detect: a machine whose arithmetic changes between two starts.
"""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_fit import tiny_fit

from gencg.checkpoint import load_checkpoint
from gencg.drawn import Parts
from gencg.ensemble import Ensemble, draw
from gencg.export import read_samples
from gencg.fit import FitResult
from gencg.run import draws
from gencg.run.draws import END, PARTS, draw_into, is_shorter

NAMES = ("x", "y", "z", "energy", "log_weights", "valid")


@pytest.fixture(scope="module")
def result() -> FitResult:
    torch.set_default_dtype(torch.float32)
    return tiny_fit()


def drawn(result: FitResult, n: int, *, parts: Parts | None = None, seed: int = 5) -> Ensemble:
    return draw(result.model, result.target, n, seed=seed, batch_size=10, name="w", parts=parts)


def same(a: Ensemble, b: Ensemble) -> bool:
    counts = a.n_energy_calls == b.n_energy_calls
    return counts and all(torch.equal(getattr(a, n), getattr(b, n)) for n in NAMES)


@pytest.mark.parametrize("at", range(1, 6))
def test_a_kill_in_a_draw_loses_nothing_that_was_kept(
    at: int, result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawn(result, 45)
    sample, asked = result.model.sample, []

    def killed(n: int):
        asked.append(n)
        if len(asked) == at:
            raise KeyboardInterrupt
        return sample(n)

    with monkeypatch.context() as patch:
        patch.setattr(result.model, "sample", killed)
        with pytest.raises(KeyboardInterrupt):
            drawn(result, 45, parts=Parts(tmp_path, seconds=0))
    parts = Parts(tmp_path, seconds=0)
    assert same(drawn(result, 45, parts=parts), whole)
    assert parts.n_taken == 10 * (at - 1)
    # Once more from all whole batches, and a longer draw too
    assert same(drawn(result, 45, parts=Parts(tmp_path, seconds=0)), whole)
    longer = Parts(tmp_path, seconds=0)
    assert same(drawn(result, 70, parts=longer), drawn(result, 70))
    assert longer.n_taken == 40


def test_parts_of_another_draw_or_damaged_ones_are_drawn_again(
    result: FitResult, tmp_path: Path
) -> None:
    drawn(result, 40, parts=Parts(tmp_path, seconds=0))
    other = Parts(tmp_path, seconds=60)
    assert same(drawn(result, 40, parts=other, seed=6), drawn(result, 40, seed=6))
    assert other.n_taken == 0
    second = tmp_path / "part00001.pt"
    second.write_bytes(second.read_bytes()[:-1])
    half = Parts(tmp_path, seconds=0)
    assert same(drawn(result, 40, parts=half), drawn(result, 40))
    assert half.n_taken == 10
    shorter = Parts(tmp_path, seconds=60)
    assert same(drawn(result, 25, parts=shorter), drawn(result, 25))
    assert shorter.n_taken == 20
    # What was not taken is written over, not left in the way
    for path in sorted(tmp_path.glob("part*"))[1:]:
        path.unlink()
    wide = Parts(tmp_path, seconds=0)
    assert same(drawn(result, 5, parts=wide), drawn(result, 5))
    assert (wide.n_taken, wide._number) == (0, 0)


def test_a_longer_draw_takes_over_a_shorter_one(
    result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(result: FitResult, n: int, *, seed: int, parts: Parts | None = None) -> Ensemble:
        return drawn(result, n, seed=seed, parts=parts)

    monkeypatch.setattr(draws, "sample", small)
    told: list[str] = []
    first, files = draw_into(tmp_path / "seed5_n25", result, 25, seed=5, announce=told.append)
    assert [path.name for path in files] == ["samples.h5"]
    assert told == []
    assert same(first, drawn(result, 25))
    # Beside it, and in its own place
    for out in (tmp_path / "seed5_n47", tmp_path / "seed5_n25"):
        assert is_shorter(out, result, 47, 5) == (out.name == "seed5_n25")
        longer, _ = draw_into(out, result, 47, seed=5, announce=told.append)
        assert same(longer, drawn(result, 47))
        assert same(read_samples(out), longer)
        assert not (out / PARTS).exists()
    assert told == ["20 of 47 samples were there already", "40 of 47 samples were there already"]
    assert not is_shorter(tmp_path / "seed5_n25", result, 47, 5)
    assert not is_shorter(tmp_path / "seed5_n25", result, 99, 6)
    assert load_checkpoint(tmp_path / "seed5_n25" / END)["n_samples"] == 47
    # Other formats that are there are written again
    monkeypatch.setattr(draws, "write_samples", lambda out, _, formats: list(formats))
    (tmp_path / "seed5_n25" / "samples.xtc").touch()
    assert draw_into(tmp_path / "seed5_n25", result, 60, seed=5)[1] == ["h5", "xtc"]
    monkeypatch.undo()
    monkeypatch.setattr(draws, "sample", small)
    # Without what tells of the draw nothing is taken over, and nothing breaks
    shutil.rmtree(tmp_path / "seed5_n47")
    (tmp_path / "seed5_n25" / END).write_bytes(b"")
    assert same(draw_into(tmp_path / "new", result, 47, seed=5)[0], longer)
