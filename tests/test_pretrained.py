"""Generators that come with the package reach what their files say, on the energies of now.

Cannot detect: a state that the generator and its own search for lost modes both missed.
"""

import pytest
import torch

import gencg
from gencg import pretrained
from gencg.checkpoint import CheckpointError
from gencg.fit import as_result
from gencg.importance import effective_sample_size, truncated
from gencg.models.build import build_model
from gencg.systems import double_well

NAMES = pretrained.names()
ABOUT = {"command": "gencg run double-well", "seed": 3}


def untrained(n_cvs: int = 0):
    system = double_well()
    model = build_model(system.coordinates, n_cvs=n_cvs)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    target = gencg.BoltzmannTarget(system.energy, system.coordinates, system.temperature)
    return as_result(system, model, target=target)


def test_the_peptides_are_there() -> None:
    assert set(NAMES) >= {f"alanine-{n}peptide" for n in ("di", "tetra", "hexa")}
    assert gencg.pretrained is pretrained


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_generator_reaches_what_its_file_says(name: str) -> None:
    torch.set_default_dtype(torch.float32)
    about, found = pretrained.about(name), pretrained.load(name)
    assert (pretrained.FOLDER / f"{name}.pt").stat().st_size < 5e6
    ensemble = gencg.draw(found.model, found.target, 4000, molecule=found.system.molecule, seed=5)
    # One heavy sample decides the ESS of few
    cut = truncated(ensemble.log_weights, largest=30.0)
    assert effective_sample_size(cut.log()) > about.get("ess_cut", about["ess"]) - 0.1
    # No matter which machine and threads: by its own standard error
    assert abs(ensemble.log_z - about["log_z"]) < 5 * ensemble.log_z_error
    assert ensemble.n_invalid < 0.01 * ensemble.n_samples
    assert "gencg run" in about["command"]


def test_a_file_gives_back_the_density_it_was_written_from(tmp_path, monkeypatch) -> None:
    result = untrained()
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    pretrained.write(result, tmp_path / "double-well.pt", about=ABOUT)
    assert pretrained.names() == ["double-well"]
    assert pretrained.about("double-well") == ABOUT | {"bits": 16}
    again = pretrained.load("double-well")
    assert again.target.temperature == result.target.temperature
    _, y, log_q = result.model.sample(200)
    log_q_again = again.model.decoder(again.model.rows(200)).log_prob(y.float())
    torch.testing.assert_close(log_q_again.double(), log_q.double(), atol=2e-2, rtol=0)
    # Rounded to 16 bits: near, and not the same
    for key, value in result.model.state_dict().items():
        other = again.model.state_dict()[key]
        if value.is_floating_point() and value.ndim > 1:
            assert (other - value).abs().max() <= value.abs().max() / 2**16 * 1.01
        else:
            torch.testing.assert_close(other, value, check_dtype=False)


@pytest.mark.parametrize("bits", pretrained.BITS[1:])
def test_a_large_generator_is_written_with_fewer_bits(tmp_path, monkeypatch, bits: int) -> None:
    result = untrained()
    matrices = [p for p in result.model.state_dict().values() if p.ndim > 1 and min(p.shape) > 1]
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.setattr(pretrained, "BITS", (bits,))
    pretrained.write(result, tmp_path / "double-well.pt", about=ABOUT)
    again = pretrained.load("double-well").model.state_dict()
    largest = 0.0
    for key, value in result.model.state_dict().items():
        if value.is_floating_point() and value.ndim > 1 and min(value.shape) > 1:
            off = (again[key] - value).abs() / value.abs().amax(-1, keepdim=True)
            largest = max(largest, float(off.max()))
        else:
            torch.testing.assert_close(again[key], value, check_dtype=False)
    # Half of a step at most, and nearly so somewhere
    assert 0.9 / (2**bits - 2) < largest < 1.001 / (2**bits - 2)
    # A bit is a bit: the rest is names, and the largest of each row
    n = sum(p.numel() for p in matrices)
    rows = sum(p.numel() // p.shape[-1] for p in matrices)
    size = (tmp_path / "double-well.pt").stat().st_size
    monkeypatch.setattr(pretrained, "BITS", (16, bits))
    monkeypatch.setattr(pretrained, "LARGEST_FILE", size)
    pretrained.write(result, tmp_path / "again.pt", about=ABOUT)
    assert (tmp_path / "again.pt").stat().st_size == size
    monkeypatch.setattr(pretrained, "LARGEST_FILE", 5_000_000)
    pretrained.write(result, tmp_path / "whole.pt", about=ABOUT)
    saved = (tmp_path / "whole.pt").stat().st_size - size
    assert saved == pytest.approx((16 - bits) * n / 8 - 4 * rows, abs=4000)


def test_a_mixture_is_written_with_all_its_members(tmp_path, monkeypatch) -> None:
    torch.manual_seed(0)
    mixed = gencg.mix([untrained(), untrained()], shares=[1, 3])
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    pretrained.write(mixed, tmp_path / "double-well.pt", about=ABOUT)
    again = pretrained.load("double-well").model
    torch.manual_seed(1)
    with torch.no_grad():
        z, y, log_q = mixed.model.sample(200)
        found = again.double().log_prob(z, y)
    torch.testing.assert_close(found, log_q, atol=2e-2, rtol=0)
    torch.testing.assert_close(
        again.decoder.log_shares.exp().float(), torch.tensor([0.25, 0.75]).float()
    )


def test_bits_of_a_stack_with_a_row_of_zeros() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 4, 5)
    stack[1, 2] = 0
    read = pretrained._unpacked(*pretrained._packed(stack, 9))
    steps = (read - stack).abs() / stack.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    assert steps.max() <= 0.5001 / 255
    assert bool((read[1, 2] == 0).all())
    assert read.shape == stack.shape


def test_what_cannot_be_loaded_or_written_is_told(tmp_path, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"`name` must be one of alanine-.*, got 'benzene'"):
        pretrained.load("benzene")
    with pytest.raises(ValueError, match="`result` must have no collective variables, got 1"):
        pretrained.write(untrained(n_cvs=1), tmp_path / "a.pt", about=ABOUT)
    with pytest.raises(ValueError, match="`about` must hold command and seed, lacks seed"):
        pretrained.write(untrained(), tmp_path / "a.pt", about={"command": "gencg run"})
    (tmp_path / "a.pt").write_bytes(b"a good one")
    monkeypatch.setattr(pretrained, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="`result` must fit into 1,000 bytes, got "):
        pretrained.write(untrained(), tmp_path / "a.pt", about=ABOUT)
    assert (tmp_path / "a.pt").read_bytes() == b"a good one"
    (tmp_path / "a.pt").unlink()

    monkeypatch.setattr(pretrained, "LARGEST_FILE", 10**7)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    result = untrained()
    monkeypatch.setattr(result.system.coordinates, "names", ("a", "b"))
    pretrained.write(result, tmp_path / "double-well.pt", about=ABOUT)
    with pytest.raises(CheckpointError, match="made for other coordinates; train it again with"):
        pretrained.load("double-well")


def test_each_matrix_of_a_stack_is_rounded_by_its_own_largest_entry() -> None:
    stack = torch.randn(3, 4, 5) * torch.tensor([1.0, 1e-3, 0.0])[:, None, None]
    read = pretrained._unpacked(*pretrained._packed(stack, 16))
    largest = stack.abs().amax((1, 2))
    assert ((read - stack).abs().amax((1, 2)) <= 0.51 * largest / (2**15 - 1)).all()
    for kept in (torch.randn(3, 4, 1), torch.randn(4), torch.arange(6).view(2, 3)):
        assert torch.equal(pretrained._unpacked(*pretrained._packed(kept, 16)), kept)
