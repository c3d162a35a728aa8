"""`gencg reweight`: samples of a run for a quantum-chemical energy.

Cannot detect: whether the first energy was any good.
"""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from molecules import MOLECULES

from gencg import cli
from gencg.config import RunConfig
from gencg.ensemble import Ensemble
from gencg.export import read_samples, write_samples
from gencg.run import RunFolder
from gencg.systems import load
from gencg.units import inverse_temperature

pytest.importorskip("tblite")


@pytest.fixture
def gencg(capfd, tmp_path, monkeypatch):
    """Run the command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(arg) for arg in args])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def water(tmp_path: Path) -> Path:
    """A folder with 60 samples of water, weighted for an energy of nothing but noise."""
    molecule = MOLECULES["water"]()
    x = torch.as_tensor(molecule.positions) + 0.001 * torch.randn(60, 3, 3)
    energy = torch.rand(60)
    write_samples(
        tmp_path / "run",
        Ensemble(
            x=x,
            y=x.flatten(1),
            z=x.new_zeros(60, 0),
            energy=energy,
            log_weights=-inverse_temperature(300.0) * energy,
            valid=torch.ones(60, dtype=torch.bool),
            temperature=300.0,
            molecule=molecule,
            name="water",
        ),
    )
    return tmp_path / "run"


def test_samples_get_weights_for_quantum_chemistry(water, gencg) -> None:
    code, out, _ = gencg("reweight", water, "-n", 20, "--json", "--quiet")
    assert code == 0
    numbers = json.loads(out)
    folder = water / "draws" / "gfn2_seed0_n20"
    assert {p.name for p in folder.iterdir()} == {
        "samples.h5", "topology.pdb", "reweighting.json", "energies.pt",
    }  # fmt: skip
    found = read_samples(folder)
    assert found.n_samples == numbers["n_samples"] == numbers["energy_calls"] == 20
    assert found.ess == pytest.approx(numbers["ess"])
    assert numbers["offset"] == pytest.approx(-13312.3, abs=0.1)
    assert math.isfinite(numbers["free_energy_difference"])
    saved = json.loads((folder / "reweighting.json").read_text())
    assert saved | {"files": numbers["files"]} == numbers

    # Nothing is written over; other arguments, other numbers
    code, _, err = gencg("reweight", water, "-n", 20)
    assert (code, err.count("\n")) == (2, 1)
    assert "samples.h5 exists; choose another --seed or --out" in err
    code, out, _ = gencg(
        "reweight", water / "samples.h5", "-n", 20, "--override", "--energy", "gfn1", "--solvent",
        "water", "--charge", 1, "--unpaired", 1, "--out", folder, "--processes", 2,
    )  # fmt: skip
    assert code == 0
    assert "TbliteEnergy('GFN1-xTB', n_atoms=3, charge=1, n_unpaired=1, solvent='water'" in out
    assert "free-energy difference" in out


def test_it_goes_on_where_it_was_stopped(water, gencg) -> None:
    assert gencg("reweight", water, "-n", 20, "--out", "new", "--quiet")[0] == 0
    Path("new/samples.h5").unlink()
    code, out, _ = gencg("reweight", water, "-n", 20, "--out", "new", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["energy_calls"] == 21
    Path("new/samples.h5").unlink()
    code, _, err = gencg("reweight", water, "-n", 20, "--out", "new", "--energy", "gfn1")
    assert code == 2
    assert "of another energy" in err


def test_samples_of_a_run_are_shifted_first(gencg, tmp_path) -> None:
    MOLECULES["water"]().to_mdtraj().save_pdb("water.pdb")
    text = Path("water.pdb").read_text().replace("MOL", "HOH")
    Path("water.pdb").write_text(text)
    system = load("water.pdb", forcefield=["tip3p.xml"])
    config = RunConfig(target="water.pdb", forcefield=("tip3p.xml",), n_samples=200)
    folder = RunFolder.create("run", config.resolve(system))
    # Independent Gaussians about the minimum are near enough to the force field
    c = folder.system().coordinates
    width = torch.tensor([0.0024, 0.0024, 0.083])
    y = c.centre + width * torch.randn(200, 3)
    x, log_det = c.inverse(y)
    energy = system.energy(x)
    log_q = -0.5 * (((y - c.centre) / width) ** 2).sum(-1)
    log_weights = log_det - log_q - inverse_temperature(300.0) * energy
    ensemble = Ensemble(x, y, y[:, :0], energy, log_weights, c.valid(x), 300.0, system.molecule)
    assert ensemble.ess > 0.5
    write_samples("run", ensemble)

    found = {}
    for name, options in {"moved": [], "still": ["--no-shift"]}.items():
        code, out, err = gencg("reweight", "run", "-n", 50, "--json", "--out", name, *options)
        assert code == 0, err
        found[name] = json.loads(out)
        assert found[name]["shifted"] == (name == "moved")
    assert found["still"]["energy_calls"] == 50 < found["moved"]["energy_calls"]
    assert found["moved"]["ess"] > found["still"]["ess"]
    moved = read_samples("moved")
    again, _ = c.forward(moved.x)
    assert torch.allclose(again, moved.y)


def test_a_bar_counts_the_samples(water, gencg) -> None:
    assert "sample 20 of 20" in gencg("reweight", water, "-n", 20)[2]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--charge", "1"], "`charge` 1 leaves 7 valence electrons, an odd number"),
        (["--unpaired", "1"], "does not go with `n_unpaired` 1"),
        (["--solvent", "beer"], "`solvent` must be"),
        (["--energy", "b3lyp"], "'b3lyp' is not one of 'gfn2', 'gfn1'"),
        (["-n", "0"], "`n_samples` must be at least 1"),
        (["--processes", "0"], "`n_processes` must be positive"),
    ],
)
def test_bad_input_is_one_line(options, words, water, gencg) -> None:
    code, out, err = gencg("reweight", water, *options, "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not (water / "draws").exists()


def test_a_folder_without_samples_and_a_toy_are_refused(gencg) -> None:
    Path("empty").mkdir()
    code, _, err = gencg("reweight", "empty")
    assert (code, err.count("\n")) == (2, 1)
    assert "no samples at empty/samples.h5; write them with `gencg sample`" in err
    x = torch.zeros(5, 2)
    ones = torch.ones(5)
    toy = Ensemble(x, x, x[:, :0], ones, ones, ones.bool(), 300.0, name="double-well")
    write_samples("toy", toy)
    code, _, err = gencg("reweight", "toy")
    assert (code, err.count("\n")) == (2, 1)
    assert "needs a molecule, double-well is none" in err


def test_without_tblite_the_cure_is_told(water, gencg, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite", None)
    code, _, err = gencg("reweight", water)
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install 'gencg[qm]'" in err
