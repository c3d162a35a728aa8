"""`gencg check`: a good run passes, and each planted fault fails its own item.

Cannot detect: a state that training lost, which leaves every stored number as it should be.
"""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gencg import cli, systems
from gencg.analysis.energy_ratio import energy_ratio
from gencg.config import RunConfig
from gencg.ensemble import Ensemble
from gencg.export import read_samples, write_samples
from gencg.run import check, sample, train
from gencg.run.check import Finding, check_run
from gencg.run.folder import RunFolder
from gencg.run.record import write_json
from gencg.systems.energies import program_energies


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the double well, hardly trained: the weights make up for it."""
    torch.set_default_dtype(torch.float32)
    system = systems.double_well()
    config = RunConfig(
        "double-well", n_cvs=0, energy_calls=10_000, n_samples=4000, batch_size=200,
        coverage_calls=0,
    )  # fmt: skip
    folder = RunFolder.create(tmp_path_factory.mktemp("run") / "well", config.resolve(system))
    ensemble = sample(train(system, folder), 4000, seed=0)
    torch.set_default_dtype(torch.float64)
    write_samples(folder.path, ensemble)
    # Of the summary this alone is looked at; a report would take longer than all the rest
    write_json(folder.path / "summary.json", {"ess": ensemble.ess, "log_z": ensemble.log_z})
    return folder.path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    """A copy of it to spoil."""
    return RunFolder.open(shutil.copytree(finished, tmp_path / "run"))


def failed(folder: RunFolder) -> set[str]:
    return {finding.name for finding in check_run(folder) if not finding.passed}


def rewrite(folder: RunFolder, **changes: object) -> None:
    write_samples(folder.path, dataclasses.replace(read_samples(folder.path), **changes))


def test_a_good_run_passes(run: RunFolder) -> None:
    findings = check_run(run)
    assert [finding.name for finding in findings] == [
        "inputs", "summary", "energies", "stereo", "weights", "temperature",
    ]  # fmt: skip
    assert [str(finding) for finding in findings if not finding.passed] == []


def test_each_fault_fails_its_item(run: RunFolder) -> None:
    good = read_samples(run.path)
    summary = json.loads((run.path / "summary.json").read_text())
    (run.path / "summary.json").write_text(json.dumps(summary | {"log_z": summary["log_z"] + 0.1}))
    assert failed(run) == {"summary"}
    (run.path / "summary.json").write_text(json.dumps(summary))

    rewrite(run, energy=good.energy + 0.01)
    assert failed(run) == {"energies"}

    noise = 0.05 * torch.randn(good.n_samples, generator=torch.Generator().manual_seed(0))
    rewrite(run, energy=good.energy, log_weights=good.log_weights + noise)
    assert failed(run) == {"summary", "weights"}

    # Weights for another temperature than the run's
    beta = 1 / (0.00831446261815324 * good.temperature)
    rewrite(run, log_weights=good.log_weights + 0.5 * beta * good.energy)
    assert failed(run) == {"summary", "weights", "temperature"}

    x = good.x.clone()
    x[good.log_weights.argmax()] = math.nan
    rewrite(run, x=x, log_weights=good.log_weights)
    assert "stereo" in failed(run)


def test_the_command_prints_and_fails(run: RunFolder, capsys) -> None:
    cli.main(["check", str(run.path)])
    assert capsys.readouterr().out.count("passed  ") == 6
    (run.path / "summary.json").write_text(
        json.dumps(json.loads((run.path / "summary.json").read_text()) | {"ess": 1.0})
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", str(run.path), "--json"])
    assert stop.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert [f["name"] for f in found["findings"] if not f["passed"]] == ["summary"]
    (run.path / "summary.json").unlink()
    with pytest.raises(ValueError, match="is not finished; finish it with `gencg run`"):
        check_run(run)


def test_changed_input_files_are_all_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path(systems.__file__).parent / "data" / "alanine_dipeptide.pdb"
    shutil.copy(source, "my.pdb")
    config = RunConfig("my.pdb").resolve(systems.load("my.pdb"))
    folder = RunFolder.create("run", config)
    (folder.path / "summary.json").write_text("{}")
    copy = folder.inputs["my.pdb"]
    copy.write_text(copy.read_text() + "\n")
    (finding,) = check_run(folder)
    assert (finding.name, finding.passed) == ("inputs", False)
    assert "checksum differs" in finding.text


def made_up(system: systems.System, x: torch.Tensor) -> Ensemble:
    n = len(x)
    return Ensemble(
        x=x, y=torch.zeros(n, 1), z=torch.zeros(n, 0), energy=system.energy(x),
        log_weights=torch.zeros(n), valid=torch.ones(n, dtype=torch.bool), temperature=300.0,
        molecule=system.molecule,
    )  # fmt: skip


def shaken(system: systems.System, n: int = 8) -> torch.Tensor:
    x, _ = system.coordinates.inverse(system.coordinates.centre[None])
    generator = torch.Generator().manual_seed(0)
    return x + 0.002 * torch.randn(n, *x.shape[1:], generator=generator)


@pytest.mark.parametrize("target", ["alanine-dipeptide", "smiles:CC(O)CN"])
def test_another_program_finds_the_energies(target: str) -> None:
    if "smiles" in target:
        pytest.importorskip("rdkit")
    system = systems.load(target)
    ensemble = made_up(system, shaken(system))
    folder = SimpleNamespace(config=RunConfig(target), inputs={})
    found = check._energies(folder, system, ensemble, 0)
    assert found.passed, found
    assert found.numbers["by"] == ("RDKit" if "smiles" in target else "OpenMM")
    wrong = dataclasses.replace(ensemble, energy=ensemble.energy * 4.184)
    assert not check._energies(folder, system, wrong, 0).passed
    values, _ = program_energies(system, target, ensemble.x)
    torch.testing.assert_close(values, ensemble.energy, atol=1e-6, rtol=0)


def test_hands_and_clashes_are_seen() -> None:
    system = systems.alanine_dipeptide()
    x = shaken(system)
    assert check._stereo(system, made_up(system, x)).passed
    mirrored = torch.cat([x, x[:1] * torch.tensor([1.0, 1.0, -1.0])])
    found = check._stereo(system, made_up(system, mirrored))
    assert (found.passed, found.numbers["n_wrong"]) == (False, 1)
    near = x.clone()
    near[0, 21] = near[0, 0] + 0.05
    assert not check._stereo(system, made_up(system, near)).passed


def harmonic(beta: float, n: int, seed: int) -> torch.Tensor:
    """Energies of six harmonic degrees of freedom at a temperature: chi squared over 2 beta."""
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.square().sum(-1) / (2 * beta)


def test_the_slope_of_the_energy_ratio_is_the_difference_of_inverse_temperatures() -> None:
    even = torch.zeros(20_000)
    slopes = []
    for seed in range(8):
        a, b = harmonic(1.0, 20_000, seed), harmonic(0.7, 20_000, 100 + seed)
        found = energy_ratio(a, even, b, even, expected=0.3)
        slopes.append(found.slope)
        assert found.deviation < 4
        # The same energies asked for another temperature
        assert energy_ratio(a, even, b, even, expected=0.2).deviation > 10
    # The error is that of the scatter: of 8, within a factor of two at 1 in 100
    scatter = float(torch.tensor(slopes).std())
    assert 0.5 < scatter / found.error < 2
    assert sum(slopes) / 8 == pytest.approx(0.3, abs=4 * found.error / math.sqrt(8))

    # Weights count: the hot heap, weighed back, is the cold one
    back = energy_ratio(a, even, b, -0.3 * b, expected=0.0)
    assert back.deviation < 4
    with pytest.raises(ValueError, match="must hold a sample with weight"):
        energy_ratio(a, even - math.inf, b, even, expected=0.0)


def test_a_finding_is_a_line() -> None:
    assert str(Finding("energies", False, "far off", {})) == "FAILED  energies: far off"
