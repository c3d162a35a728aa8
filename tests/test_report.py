"""The report: one page that needs nothing else, with the verdict first.

Cannot detect: how the page looks.
"""

import base64
import dataclasses
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import mdtraj
import numpy as np
import pytest
import torch
from cv_samples import made_up_cvs, made_up_ensemble

from gencg.analysis import assess, find_basins
from gencg.config import RunConfig
from gencg.energies.mmff import MMFF
from gencg.energies.tblite import TbliteEnergy
from gencg.ensemble import Ensemble
from gencg.fit import MATCHING
from gencg.models.build import build_model
from gencg.objectives.bound_gap import BoundGap
from gencg.objectives.build import build_objective
from gencg.objectives.covering_kl import CoveringKL
from gencg.objectives.flow_matching import FlowMatching
from gencg.report import percent, write_atomically, write_report
from gencg.report.methods import methods_section
from gencg.report.pieces import digits_of
from gencg.run.execute import fit_options
from gencg.systems import System, alanine_dipeptide, butane, double_well, from_smiles
from gencg.target import BoltzmannTarget
from gencg.training import Optimisation
from gencg.units import BOLTZMANN_CONSTANT

VOID = {"meta", "img", "br"}


def ensemble_of(system: System, n: int = 1500) -> Ensemble:
    """Samples around the reference, weighted as if drawn from a flat density."""
    coordinates = system.coordinates
    y = coordinates.centre + coordinates.scale * torch.randn(n, coordinates.dim)
    y[:, coordinates.periodic] = (2 * torch.rand(n, int(coordinates.periodic.sum())) - 1) * np.pi
    x, _ = coordinates.inverse(y)
    energy = 10 * torch.rand(n)
    valid = torch.ones(n, dtype=torch.bool)
    valid[0] = False
    return Ensemble(
        x=x, y=y, z=y[:, :0], energy=energy,
        log_weights=-energy / (BOLTZMANN_CONSTANT * system.temperature), valid=valid,
        temperature=system.temperature, molecule=system.molecule,
    )  # fmt: skip


HISTORY = [
    SimpleNamespace(
        energy_calls=100 * k,
        loss=1.0 / (k + 1),
        ess=0.5,
        temperature=300.0,
        n_compressed=3 * (k < 10),
        n_dropped=2,
        n_invalid=0,
    )
    for k in range(30)
]
SUMMARY = {"ess": 0.93, "log_z": -178.6852, "log_z_error": 0.0123, "pareto_k": 0.31,
           "energy_calls": 4_900_000, "wall_seconds": 725.0, "n_cvs": 0}  # fmt: skip


class Page(HTMLParser):
    """Balanced tags, what the page asks for from elsewhere, and what it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.images: list[bytes] = []
        self.downloads: dict[str, bytes] = {}

    def handle_starttag(self, tag, attrs) -> None:
        given = dict(attrs)
        if tag == "a" and "download" in given:
            kind, _, data = given.pop("href").partition(",")
            assert kind == "data:chemical/x-pdb;base64"
            self.downloads[given["download"]] = base64.b64decode(data)
        elif tag == "a":
            # An article, for the reader to follow
            assert given.pop("href").startswith(("https://arxiv.org/", "https://doi.org/"))
        for name, value in given.items():
            if name == "src" and value.startswith("data:image/png;base64,"):
                self.images.append(base64.b64decode(value.partition(",")[2]))
            elif name in ("src", "href"):
                self.outside.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        if tag != "p" or self.open[-1] == "p":
            assert self.open.pop() == tag


@pytest.mark.parametrize("build", [double_well, butane, alanine_dipeptide])
def test_the_page_needs_nothing_else(build, tmp_path: Path) -> None:
    system = build()
    path = write_report(
        tmp_path, ensemble_of(system), system=system, summary=SUMMARY, history=HISTORY,
        settings={"seed": 3, "forcefield": ("a.xml", "b.xml"), "threads": None},
        versions={"torch": "<2.13>"},
    )  # fmt: skip
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.outside == []
    assert not re.search(r"url\(|@import|<script", text)

    # The embedded figures are the files beside the page
    files = sorted(p.read_bytes() for p in (tmp_path / "figures").iterdir())
    assert files == sorted(page.images)
    assert len(files) >= 4

    # Verdict first, then numbers and settings; foreign text is escaped
    assert text.index("Effective sample size") < text.index("<img")
    assert "-178.69 ± 0.01" in text
    assert "4,900,000" in text
    assert "12 min 5 s" in text
    assert "a.xml b.xml" in text
    assert "&lt;2.13&gt;" in text
    assert "threads" not in text
    assert "prefers-color-scheme: dark" in text
    assert "Collective variables" not in text
    assert (
        "Of a training batch, on average: 1 samples had their energy compressed (0 in the last "
        "tenth), 2 were left out as the worst (2 in the last tenth), 0 were not finite"
    ) in text


def test_the_figures_of_a_peptide(tmp_path: Path) -> None:
    system = alanine_dipeptide()
    write_report(tmp_path, ensemble_of(system), system=system, summary=SUMMARY, history=HISTORY)
    names = {p.stem for p in (tmp_path / "figures").iterdir()}
    assert names == {"ramachandran_ALA2", "free_energy_ALA2", "populations",
                     "energy_and_weights", "training"}  # fmt: skip


def test_methods_are_told_with_their_numbers_and_articles(tmp_path: Path) -> None:
    system = alanine_dipeptide()
    settings = {"decoder": "spline", "estimator": "covering", "batch_size": 64, "seed": 7,
                "learning_rate": 0.003, "tempering": "geometric",
                "start_temperature": 1200.0}  # fmt: skip
    checks = [{"name": "Samples of the hot flows", "n_energy_calls": 1000}]
    summary = SUMMARY | {"mode_checks": checks, "cv_names": ["phi(ALA2)"], "n_contacts": 17,
                         "autoregressive": True, "variance": 1.0, "stiff_order": 0.25}  # fmt: skip
    path = write_report(
        tmp_path, ensemble_of(system), system=system, summary=summary, history=HISTORY,
        settings=settings, versions={"gencg": "1.2", "torch": "2.6", "openmm": None},
        optimisation=Optimisation(),
    )  # fmt: skip
    text = html.unescape(path.read_text()).partition("<h2>Methods</h2>")[2]
    for words in (
        "(22 atoms) at 300 K", "of which 5 are soft", "in 30 steps of 64 configurations",
        "learning rate 0.003, seed 7", "The molecule's 60 coordinates",
        "rotors are folded", "an autoregressive spline flow on the torus",
        "geometrically from 1200 K", "1,500 samples were drawn, of which 1 was without weight",
        ", 0.25 for the stiff coordinates, with likelihoods",
        "with likelihoods and log-densities of weighted samples and of Markov chains",
        "hotter stages of the generator (1,000 energy calls)",
        "The collective variable φ(ALA2) is that", "4,900,000 energy calls and 12 min 5 s",
        "Programs: gencg 1.2, torch 2.6.", "and the 17 distances between atoms that follow.",
    ):  # fmt: skip
        assert words in text
    # Numbered in the order of the text, each with its article
    numbers = [int(n) for n in re.findall(r"\[(\d+)\]", text)]
    first = [n for k, n in enumerate(numbers) if n not in numbers[:k]]
    assert first == list(range(1, len(first) + 1))
    assert text.count("<li>") == len(first) > 8
    assert "[2020]" not in text


CHAINED = "of Markov chains"


@pytest.mark.parametrize("build", [double_well, alanine_dipeptide])
@pytest.mark.parametrize("estimator", ["covering", "path", "plain"])
@pytest.mark.parametrize("decoder, n_cvs", [
    ("spline", "auto"), ("flow-matching", 0), ("gaussian", 1), ("unimodal", 2),
])  # fmt: skip
def test_methods_tell_the_training_that_was(decoder, n_cvs, estimator, build) -> None:
    system = build()
    config = RunConfig(
        system.name, decoder=decoder, n_cvs=n_cvs, estimator=estimator, temperature=300.0,
        start_temperature=300.0,
    )  # fmt: skip
    options = fit_options(system, config)
    model = options["model"] or build_model(system.coordinates, n_cvs=options["n_cvs"])
    objective = build_objective(
        estimator, model, BoltzmannTarget(system.energy, system.coordinates, 300.0),
        n_samples=16, n_steps=10, matching=MATCHING,
    )  # fmt: skip
    matched = isinstance(objective, FlowMatching)
    last = objective.after if matched else objective
    optimisation = options["optimisation"]
    section = methods_section(
        system, replace(ensemble_of(system, 50), temperature=300.0), {},
        settings=dataclasses.asdict(config), history=HISTORY, optimisation=optimisation,
    )  # fmt: skip
    assert (CHAINED in section) == isinstance(last, CoveringKL)
    half = isinstance(last, CoveringKL) or last.order > 0
    assert ("order one half" in section) == half
    assert ("of the reverse Kullback" in section) == (not half)
    assert ("path gradients" in section) == (estimator != "plain")
    assert ("in the first 90% of its steps by matching" in section) == matched
    stiff = not bool(system.coordinates.soft.all())
    assert ("and the forces there" in section) == (matched and stiff)
    assert f", learning rate {optimisation.learning_rate:g}, " in section
    assert ("Adam, learning" in section) == (optimisation.optimiser == "adam")
    assert ("as one model from the start" in section) == bool(options["n_cvs"])
    # No ladder from 300 K to 300 K
    assert "The temperature was the final one throughout" in section


@pytest.mark.parametrize("settings, summary, words", [
    (None, {}, "The Boltzmann distribution of two wells in the plane"),
    ({"decoder": "gaussian", "estimator": "plain", "tempering": "kl", "start_temperature": 9.0,
      "batch_size": 2, "seed": 0, "n_cvs": 1}, {}, "growth of the divergence [1]"),
    ({"decoder": "spline", "estimator": "path"}, {"generator": {"source": "runs/a",
      "energy_calls": 1234}, "energy_calls": 7, "wall_seconds": 1.0},
     "All after that took 7 energy calls"),
    ({"decoder": "spline"}, {"mode_checks": [{"name": "Chains from anywhere",
      "n_energy_calls": 5}]}, "from a wide normal distribution (5 energy calls)"),
])  # fmt: skip
def test_methods_tell_what_is_known(settings, summary, words) -> None:
    system = double_well()
    section = methods_section(
        system, ensemble_of(system), summary, settings=settings, history=HISTORY
    )
    assert words in section
    assert "without weight, being broken" in section
    assert ("It was trained" in section) == (settings is not None and not summary)
    taken = "taken over from runs/a, trained with 1,234 energy calls"
    assert (taken in section) == ("generator" in summary)
    # Of a toy without angles
    assert "torus" not in section
    assert "torsions" not in section
    assert ("a spline flow on the line" in section) == (
        settings is not None and settings["decoder"] == "spline"
    )


def test_methods_tell_a_further_training() -> None:
    system = double_well()
    config = RunConfig(
        "double-well", generator="runs/a", further_calls=50_000, learning_rate=6e-3, batch_size=64,
        seed=7,
    ).resolve(system)  # fmt: skip
    summary = {"generator": {"source": "runs/a", "energy_calls": 1234}, "energy_calls": 70_000,
               "wall_seconds": 1.0}  # fmt: skip
    section = methods_section(
        system, replace(ensemble_of(system), temperature=300.0), summary,
        settings=dataclasses.asdict(config), history=HISTORY, optimisation=config.optimisation(),
    )  # fmt: skip
    assert "taken over from runs/a, trained with 1,234 energy calls. It was trained further at " \
        "300 K by path gradients" in section  # fmt: skip
    calls = f"({HISTORY[-1].energy_calls:,} energy calls; Muon"
    assert f"in {len(HISTORY):,} steps of 64 configurations {calls}" in section
    assert "learning rate 0.002, seed 7)." in section
    assert "The temperature" not in section
    assert "All from the further training on took 70,000 energy calls" in section


def test_methods_name_the_program_of_the_energy() -> None:
    versions = dict.fromkeys(("torch", "openmm", "rdkit", "tblite"), "1")
    peptide = alanine_dipeptide()
    method = SimpleNamespace(method="GFN1-xTB")
    energies = {
        "": (double_well().energy, "torch 1"),
        "GFN1-xTB (2017)": (TbliteEnergy.__new__(TbliteEnergy), "torch 1, tblite 1"),
        "The force field, as it was given, is": (peptide.energy, "torch 1, openmm 1"),
        "those of RDKit": (MMFF.__new__(MMFF), "torch 1, rdkit 1"),
    }
    vars(energies["GFN1-xTB (2017)"][0])["settings"] = method
    for words, (energy, programs) in energies.items():
        system = replace(peptide, energy=energy, description="")
        section = methods_section(system, ensemble_of(system, 50), {}, versions=versions)
        assert words in section
        assert f"Programs: {programs}." in section
        assert "GFN2" not in section
    assert "as it was given" not in methods_section(peptide, ensemble_of(peptide, 50), {})


def test_rotors_that_are_not_folded_are_not_told() -> None:
    system = from_smiles("CC", fold_rotors=False)
    section = methods_section(system, ensemble_of(system, 50), {})
    assert "coordinates are bond lengths" in section
    assert "rotors" not in section


def test_collective_variables_have_their_place(tmp_path: Path) -> None:
    system = double_well()
    summary = SUMMARY | {"n_cvs": 2, "joint_ess": 0.81, "bound_gap": None}
    path = write_report(tmp_path, ensemble_of(system), system=system, summary=summary)
    assert "Collective variables" in path.read_text()
    assert "81.0%" in path.read_text()


GAP = BoundGap(lower=0.0361, upper=0.0432, error=0.002, n_inner=4, bounds={1: 0.09, 4: 0.0432})


def test_slow_variables_are_told_in_words_tables_figures_and_structures(tmp_path: Path) -> None:
    system = alanine_dipeptide()
    ensemble = made_up_ensemble(system)
    slow = made_up_cvs(system, ensemble)
    summary = SUMMARY | {"n_cvs": 2, "ess": 0.91, "joint_ess": 0.85}
    path = write_report(tmp_path, ensemble, system=system, summary=summary, slow=slow, gap=GAP)
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert page.open == page.outside == []

    # Words: names, number of processes, what times are not, efficiency, bound gap
    assert "Two collective variables: φ(ALA2) and ψ(ALA2)." in text
    assert "Two slow processes stand out" in text
    assert "3.1 times as fast" in text
    assert "they are not physical times" in text
    assert "85.0%, that of the configurations alone 91.0%" in text
    assert "between 0.036 and 0.043 kT (± 0.002): the encoder is exact" in text

    # The figures lie beside the page; CVs that are torsions need no comparison with these
    names = {p.stem for p in (tmp_path / "figures").iterdir()}
    assert {"cv_free_energy", "slow_functions", "cv_spectrum"} < names
    assert "cv_torsions" not in names
    assert len(page.images) == len(names)

    # One structure for each basin, with its torsions where the table says
    basins = find_basins(ensemble.z, ensemble.log_weights, periodic=True)
    files = sorted((tmp_path / "basins").iterdir())
    assert [f.name for f in files] == [f"basin{k + 1}.pdb" for k in range(4)]
    assert page.downloads["structures.pdb"] == (tmp_path / "structures.pdb").read_bytes()
    for file, basin in zip(files, basins, strict=True):
        assert f">basins/{file.name}</a>" in text
        assert page.downloads[file.name] == file.read_bytes()
        assert percent(basin.population, basin.error) in text
        frame = mdtraj.load(str(file))
        angles = [mdtraj.compute_phi(frame)[1][0, 0], mdtraj.compute_psi(frame)[1][0, 0]]
        offset = (np.subtract(angles, basin.centre) + np.pi) % (2 * np.pi) - np.pi
        # z is blurred by 0.1 rad around the torsions; 4.5 standard deviations and the grid
        assert np.abs(offset).max() < 0.6


def test_formulas_carriers_and_doubts_are_told(tmp_path: Path) -> None:
    system = alanine_dipeptide()
    ensemble = made_up_ensemble(system)
    shares = torch.tensor([[0.9, 0.08, 0.02, 0.0, 0.0], [0.3, 0.7, 0.0, 0.0, 0.0]])
    slow = dataclasses.replace(
        made_up_cvs(system, ensemble),
        reference=torch.tensor([4.5, 5.7]),
        shares=shares,
        frequency=torch.tensor([1.0, 0.25]),
        support=0.93,
    )
    found = {"found": True, "formula": "1.7 [0° < phi(ALA2) < 120°]", "verdict": "1 term, R² 0.97"}
    lost = {"found": False, "formula": "no short formula", "attempt": "2 cos psi(ALA2)"}
    explanations = [
        {"name": "slow 1", **found},
        {"name": "slow 2", **lost, "verdict": "below 0.8"},
        {"name": "cos phi(ALA2)", **found},
    ]
    path = write_report(
        tmp_path, ensemble, system=system, summary=SUMMARY | {"n_cvs": 2}, slow=slow, gap=GAP,
        explanations=explanations,
    )  # fmt: skip
    text = html.unescape(path.read_text())
    assert "1.7 [0° < φ(ALA2) < 120°]" in text
    assert "no short formula (the nearest: 2 cos ψ(ALA2))" in text
    assert "cos φ(ALA2)" not in text
    # What carries a process, from a twentieth on
    assert "φ(ALA2) 90%, ψ(ALA2) 8%<" in text
    assert "ψ(ALA2) 70%, φ(ALA2) 30%" in text
    assert "93% of resamplings" in text
    assert "psi(ALA2) is chosen in 25% of parts of the samples only" in text


def test_variables_of_several_torsions_are_held_against_these(tmp_path: Path) -> None:
    system = alanine_dipeptide()
    matrix = torch.eye(5)
    matrix[0, 1] = -1.0
    ensemble = made_up_ensemble(system, n_cvs=1, matrix=matrix)
    slow = made_up_cvs(system, ensemble, names=("1 phi(ALA2) -1 psi(ALA2)",), matrix=matrix)
    text = write_report(
        tmp_path, ensemble, system=system, summary={"n_cvs": 1}, slow=slow, basins=()
    ).read_text()
    assert "One collective variable: φ(ALA2) − ψ(ALA2)." in text
    assert (tmp_path / "figures" / "cv_torsions.png").exists()
    assert not (tmp_path / "basins").exists()
    assert "bound gap" not in text


def test_variables_need_samples_of_the_joint_model(tmp_path: Path) -> None:
    system = alanine_dipeptide()
    ensemble = made_up_ensemble(system, 1000)
    slow = made_up_cvs(system, ensemble)
    alone = ensemble_of(system, 200)
    with pytest.raises(ValueError, match="`ensemble` must come from the joint model and hold 2"):
        write_report(tmp_path, alone, system=system, summary=SUMMARY, slow=slow)


@pytest.mark.parametrize(
    "value, error, text",
    [(0.0892, 0.0027, "0.0892 ± 0.0027"), (13.38, 0.93, "13.38 ± 0.93"), (250.0, 31.0, "250 ± 31"),
     (5.218, float("nan"), "5.22")],
)  # fmt: skip
def test_eigenvalues_keep_two_digits_of_their_error(value, error, text) -> None:
    assert digits_of(value, error) == text


def test_a_handful_of_samples_still_gives_a_page(tmp_path: Path) -> None:
    system = alanine_dipeptide()
    ensemble = ensemble_of(system, 40)
    text = write_report(tmp_path, ensemble, system=system, summary=SUMMARY).read_text()
    assert "Do not rely on these numbers yet" in text


def test_an_ensemble_without_weight_is_refused() -> None:
    system = double_well()
    samples = ensemble_of(system, 10)
    broken = Ensemble(**{**vars(samples), "valid": torch.zeros(10, dtype=torch.bool)})
    with pytest.raises(ValueError, match="none of the 10 samples carries weight"):
        assess(system, broken)


@pytest.mark.parametrize(
    "value, error, text",
    [(0.00193, 0.00014, "0.193 ± 0.014"), (0.5, 0.02, "50.0 ± 2.0"), (1.0, 0.0, "100.00 ± 0.00"),
     (1.0, 1e-17, "100.00 ± 0.00"),
     (0.25, 0.3, "25 ± 30")],
)  # fmt: skip
def test_errors_decide_the_digits(value: float, error: float, text: str) -> None:
    assert percent(value, error) == text


def test_a_state_that_was_not_seen_is_bounded(tmp_path: Path) -> None:
    assert percent(0.0, 0.0, n_effective=1000.0) == "not seen (< 0.3 %)"
    assert percent(0.5, 0.02, n_effective=1000.0, unit=" %") == "50.0 ± 2.0 %"

    system, n = double_well(), 1000
    x = -1 - torch.rand(n, 2)
    samples = Ensemble(
        x=x, y=x, z=x[:, :0], energy=system.energy(x), log_weights=torch.zeros(n),
        valid=torch.ones(n, dtype=torch.bool), temperature=system.temperature,
    )  # fmt: skip
    text = write_report(tmp_path, samples, system=system, summary=SUMMARY).read_text()
    assert text.count("not seen (&lt; 0.3 %)") == 2
    assert "Not seen: right (&lt; 0.3 %). The generator may have dropped these states." in text
    assert "0.00 ± 0.00" not in text.replace("100.00 ± 0.00", "")


def test_a_file_is_old_or_new_never_half(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("gencg.files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
