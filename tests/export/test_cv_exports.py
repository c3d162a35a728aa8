"""Collective variables for other programs: what is written is what the model says.

Cannot detect: whether PLUMED or Colvars of some version accept the files; the readers here do what
their documentation and sources say. Whether a collective variable is any good.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openmm
import openmm.app as app
import pytest
import torch
from cv_samples import made_up_cvs, made_up_ensemble
from molecules import MOLECULES
from numpy.testing import assert_allclose
from openmm_systems import build_system
from torch import Tensor, nn
from torch.testing import assert_close

import gencg
from gencg import geometry
from gencg.coordinates.internal import InternalCoordinates
from gencg.export import CVFunction, ExportError, exporting, read_colvar, write_colvar
from gencg.export.checks import model_quantities
from gencg.export.colvars_reader import colvars_quantities
from gencg.export.engine_geometry import distance, mdtraj_descriptors, torsion
from gencg.export.exporting import export_cvs
from gencg.export.openmm_check import _loaded
from gencg.export.plumed_reader import plumed_quantities
from gencg.export.plumed_run import plumed_itself
from gencg.export.soft_cvs import soft_cv_function
from gencg.export.torchscript import column_ranges, column_values, load_torchscript
from gencg.geometry import wrap
from gencg.models.cv_map import CollectiveMap
from gencg.run import CollectiveRun, cv_function
from gencg.run import export as export_module

DIPEPTIDE = gencg.systems.alanine_dipeptide()


@functools.cache
def structures(n: int = 12) -> Tensor:
    """Samples of the dipeptide in its basins and on the barriers."""
    torch.manual_seed(0)
    return made_up_ensemble(DIPEPTIDE, 2000).resample(n).x


def angles() -> CVFunction:
    cv_map = CollectiveMap(torch.eye(5), n_cvs=2, periodic=True, n_steps=0)
    return soft_cv_function(DIPEPTIDE.coordinates, cv_map, names=["phi(ALA2)", "psi(ALA2)"])


def slow_functions() -> CVFunction:
    slow = made_up_cvs(DIPEPTIDE, made_up_ensemble(DIPEPTIDE))
    heads = slow.functions.heads
    return soft_cv_function(
        DIPEPTIDE.coordinates, slow.map, names=["slow 1", "slow 2"], heads=heads
    )


def bent_with_rotors() -> CVFunction:
    """A difference, a rotor, bent by a network: eleven torsions between atoms."""
    matrix = torch.eye(5)[[0, 3, 1, 2, 4]]
    matrix[0, 1] = -1.0
    cv_map = CollectiveMap(matrix, n_cvs=2, periodic=True, n_steps=2)
    for parameter in cv_map.parameters():
        nn.init.normal_(parameter, std=0.3)
    return soft_cv_function(DIPEPTIDE.coordinates, cv_map.float(), names=["phi - psi", "rotor"])


class Network(nn.Module):
    """The encoder to come: a network of cosines and sines of torsions, and of distances."""

    def __init__(self, n_torsions: int, n_distances: int, n_cvs: int = 2) -> None:
        super().__init__()
        self.n_torsions = n_torsions
        self.layers = nn.Sequential(
            nn.Linear(2 * n_torsions + n_distances, 24), nn.Tanh(), nn.Linear(24, n_cvs)
        ).float()

    def forward(self, arguments: Tensor) -> Tensor:
        angle, r = arguments[:, : self.n_torsions], arguments[:, self.n_torsions :]
        return self.layers(torch.cat([angle.cos(), angle.sin(), 5 * r], dim=1))


def network() -> CVFunction:
    return CVFunction(
        torsions={"phi": (4, 6, 8, 14), "psi": (6, 8, 14, 16)},
        distances={"d": (5, 17), "end to end": (1, 18)},
        module=Network(2, 2),
        columns=("first", "second"),
        n_atoms=22,
    )


class OfTorsion(nn.Module):
    """Any function of the arguments."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, arguments: Tensor) -> Tensor:
        return self.function(arguments)


def of_phi(function: Callable[[Tensor], Tensor], columns: tuple[str, ...] = ("cv",)) -> CVFunction:
    torsions = {"phi": (4, 6, 8, 14), "psi": (6, 8, 14, 16)}
    return CVFunction(torsions, {}, OfTorsion(function), columns, 22)


FUNCTIONS = {
    "angles": angles,
    "slow functions": slow_functions,
    "bent, with rotors": bent_with_rotors,
    "network": network,
    # Its gradient is one number in memory, expanded
    "a plain sum": lambda: of_phi(lambda a: a.cos().square().cos().sum(1, keepdim=True)),
}


def export(function: CVFunction, folder: Path, **options: object) -> list[gencg.export.Check]:
    arguments = {"molecule": DIPEPTIDE.molecule, "samples": structures(), **options}
    checks = export_cvs(function, folder, **arguments)
    return [check for check in checks if "PLUMED itself" not in check.file]


@pytest.mark.parametrize("build", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_every_export_is_the_model(build: Callable[[], CVFunction], tmp_path: Path) -> None:
    function = build()
    checks = export(function, tmp_path)
    files = {"cv.pt", "plumed.dat", "colvars.in", "openmm_cv.py"}
    files |= {"colvars_real.in"} if function.distances else set()
    assert {check.file for check in checks} == files
    assert files | {"topology.pdb"} == {path.name for path in tmp_path.iterdir()}
    assert all(check.n_structures == 24 for check in checks)
    assert max(max(check.value, check.gradient) for check in checks) < 1e-4

    # Nothing jumps where a torsion passes 180 degrees: the two sides, a millionth apart
    y = DIPEPTIDE.coordinates.centre.repeat(2, 1)
    phi = DIPEPTIDE.coordinates.names.index("phi(ALA2)")
    y[:, phi] = torch.tensor([math.pi - 5e-7, -math.pi + 5e-7])
    x = DIPEPTIDE.coordinates.inverse(y)[0].numpy()
    for value, gradient in plumed_quantities(tmp_path / "plumed.dat", x).values():
        if np.abs(value).max() < 3:  # neither the torsion itself nor an angle at its end
            assert_allclose(value[0], value[1], atol=2e-5)
        assert_allclose(gradient[0], gradient[1], atol=2e-3 * np.abs(gradient).max() + 1e-4)


def test_a_run_has_its_own_values() -> None:
    """The columns are the encoder's angles, also where the atoms of a rotor are relabelled."""
    function, x = bent_with_rotors(), structures()
    soft = DIPEPTIDE.coordinates.soft.nonzero()[:, 0]
    y, _ = DIPEPTIDE.coordinates.forward(x)
    xi, _ = function.module.function.map(y[:, soft].float())
    expected = torch.stack([xi.cos(), xi.sin()], -1).flatten(1)
    assert_close(function(x), expected, atol=2e-5, rtol=0)
    turned = DIPEPTIDE.coordinates.random_copies(x)
    assert not torch.equal(turned, x)
    assert_close(function(turned), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", MOLECULES)
def test_soft_coordinates_are_sums_of_torsions(name: str) -> None:
    molecule = MOLECULES[name]()
    if molecule.n_atoms < 4:
        return
    coordinates = InternalCoordinates(molecule)
    x = torch.as_tensor(molecule.positions) + 0.01 * torch.randn(6, molecule.n_atoms, 3)
    y, _ = coordinates.forward(x)
    for i in coordinates.soft.nonzero()[:, 0].tolist():
        terms = coordinates.torsion_terms(i)
        phi = geometry.dihedrals(x, torch.tensor([quad for quad, _, _ in terms]))
        middles, factors = (torch.tensor([term[k] for term in terms]) for k in (1, 2))
        total = (wrap(phi - middles) * factors).sum(-1)
        assert_close(wrap(total - y[:, i]), torch.zeros(6), atol=1e-9, rtol=0)


def test_slopes_by_formula_are_those_of_autograd() -> None:
    x = structures().clone().requires_grad_()
    quad, pair = (4, 6, 8, 14), (1, 18)
    for ours, theirs in (
        (torsion(x.detach().numpy(), quad), geometry.dihedrals(x, torch.tensor([quad]))),
        (distance(x.detach().numpy(), pair), geometry.distances(x, torch.tensor([pair]))),
    ):
        gradient = torch.autograd.grad(theirs.sum(), x)[0]
        assert_allclose(ours[0], theirs[:, 0].detach(), atol=1e-12)
        assert_allclose(ours[1], gradient, atol=1e-10)
    by_mdtraj = mdtraj_descriptors(x.detach().numpy(), [quad], [pair])
    assert_allclose(by_mdtraj[:, 0], torsion(x.detach().numpy(), quad)[0], atol=1e-5)


def test_colvars_gets_its_components_by_name_and_in_its_units(tmp_path: Path) -> None:
    function = bent_with_rotors()
    export(function, tmp_path, formats=["colvars"])
    text = (tmp_path / "colvars.in").read_text()
    names = [line.split()[1] for line in text.splitlines() if line.startswith("      name cv0_")]
    assert len(names) == 11
    assert names == sorted(names)
    # In another order of the blocks, the same
    blocks = text.split("    dihedral {\n")
    (tmp_path / "turned.in").write_text(
        "    dihedral {\n".join([blocks[0], blocks[2], blocks[1], *blocks[3:]])
    )
    x = structures().numpy()
    before, after = (colvars_quantities(tmp_path / name, x) for name in ("colvars.in", "turned.in"))
    assert_allclose(before["cv0"][0], after["cv0"][0])
    # Without the factor from degrees it is another function
    (tmp_path / "degrees.in").write_text(text.replace(f"{math.pi / 180!r}", "1.0"))
    wrong = colvars_quantities(tmp_path / "degrees.in", x)["cv0"][0]
    assert np.abs(wrong - before["cv0"][0]).max() > 0.1


WRONG = {
    "two atoms swapped": ("plumed_input", "ATOMS=5,7,9,15", "ATOMS=7,5,9,15"),
    "atoms from zero": ("plumed_input", "ATOMS=5,7,9,15", "ATOMS=4,6,8,14"),
    "arguments swapped": ("plumed_input", "ARG=phi_ALA2,psi_ALA2", "ARG=psi_ALA2,phi_ALA2"),
    "sine for cosine": ("plumed_input", "VAR=s,c", "VAR=c,s"),
    "no period": ("plumed_input", "PERIODIC=-pi,pi", "PERIODIC=NO"),
    "degrees": ("colvars_input", f"{math.pi / 180!r}", "1.0"),
    "another output": ("colvars_input", "output_component 1", "output_component 0"),
}


@pytest.mark.parametrize("writer, old, new", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused_and_stays(
    writer: str, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = getattr(exporting, writer)
    monkeypatch.setattr(exporting, writer, lambda *a, **o: write(*a, **o).replace(old, new))
    with pytest.raises(ExportError, match=r"plumed.dat|colvars.in") as refused:
        export(angles(), tmp_path, formats=["plumed", "colvars"])
    if new not in ("VAR=c,s", "PERIODIC=NO"):
        assert "the largest deviation is" in str(refused.value)
    assert (tmp_path / "plumed.dat").exists()


def test_another_model_in_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = angles()
    other = CVFunction(**{**vars(function), "reference": lambda x: 1.001 * function.reference(x)})
    with pytest.raises(ExportError, match=r"cv.pt does not agree .* in the value of"):
        export(other, tmp_path)


PLUMED = """
import numpy as np

class Plumed:
    def cmd(self, name, value=None):
        if name == "setPositions":
            self.x = value
        elif name == "setForces":
            value += -2 * self.x
        elif name == "getBias":
            value[0] = (self.x**2).sum()
        elif name == "readInputLine" and "PYTORCH_MODEL" in value:
            {what}
"""
KINDS = {
    "able": "pass",
    "without models": """raise RuntimeError('Action "PYTORCH_MODEL" is not known.')""",
    "of another LibTorch": "import os; os.kill(os.getpid(), 11)",
}


@pytest.mark.parametrize("what", KINDS.values(), ids=KINDS.keys())
def test_plumed_itself_is_asked_where_it_is(
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A PLUMED that takes the sum of squares for everything."""
    (tmp_path / "plumed.py").write_text(PLUMED.format(what=what))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if what == "pass":
        with pytest.raises(ExportError, match=r"does not agree with the model"):
            export(network(), tmp_path / "there", formats=["plumed"])
        x = structures().numpy()
        got = plumed_itself(tmp_path / "there" / "plumed.dat", {"first": "cv.node-0"}, x)
        assert got is not None
        assert_allclose(got["first"][0], (x**2).sum((1, 2)))
        assert_allclose(got["first"][1], 2 * x)
    else:
        export(network(), tmp_path / "there", formats=["plumed"])
    # One that is not there is no news, one that breaks down is
    told = [record.getMessage() for record in caplog.records if "PLUMED" in record.getMessage()]
    assert len(told) == ("os.kill" in what)
    for message in told:
        assert f"broke down on {tmp_path / 'there' / 'plumed.dat'} (SIGSEGV)" in message
        assert "not checked by PLUMED itself" in message
    (tmp_path / "plumed.py").write_text(PLUMED.format(what="raise RuntimeError('a line')"))
    with pytest.raises(ExportError, match=r"refused by PLUMED: a line"):
        export(network(), tmp_path / "again", formats=["plumed"])


REFUSED = {
    "a wrapped angle": (of_phi(lambda a: a[:, :1]), "jumps by .* value where phi passes"),
    "a slope that jumps": (of_phi(lambda a: a[:, :1].abs()), "jumps by .* slope where phi passes"),
    "an idle column": (
        of_phi(lambda a: torch.cat([a[:, :1].cos(), 0 * a[:, 1:]], 1), ("one", "two")),
        "column that depends on nothing: two",
    ),
    "not finite at zeros": (of_phi(lambda a: a[:, :1].cos() / a[:, :1].abs()), "finite at zeros"),
    "rows that mix": (of_phi(lambda a: a[:, :1].cos() - a.cos().mean()), "alone than in a batch"),
    "too few columns": (of_phi(lambda a: a.cos(), ("one",)), "must give 1 columns"),
}


@pytest.mark.parametrize("function, why", REFUSED.values(), ids=REFUSED.keys())
def test_what_programs_cannot_load_is_refused(
    function: CVFunction, why: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=why):
        export(function, tmp_path, formats=["torchscript"])


@pytest.mark.parametrize(
    "changed, why",
    [
        ({"torsions": {}, "distances": {}}, "at least one torsion or distance"),
        ({"torsions": {"d": (4, 6, 8, 14)}}, "must differ, got d twice"),
        ({"torsions": {"phi": (4, 6, 8, 8)}}, "4 different atoms"),
        ({"torsions": {"phi": (4, 6, 8, 22)}}, "between 0 and 21"),
        ({"columns": ("a", "a")}, "`columns` must be different"),
        ({"angles": {"phi": 1}}, "must be two of the columns"),
        ({"bounded": frozenset({"chi"})}, "must name torsions, got chi"),
    ],
)
def test_refusals_of_a_function(changed: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        CVFunction(**{**vars(network()), **changed})


def test_refusals_of_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"must be among torchscript.* got 'gromacs'"):
        export(angles(), tmp_path, formats=["gromacs"])
    with pytest.raises(ValueError, match="at least one of"):
        export(angles(), tmp_path, formats=[])
    with pytest.raises(ValueError, match=r"shape \(n, 22, 3\), got \(12, 21, 3\)"):
        export(angles(), tmp_path, samples=structures()[:, 1:])
    (tmp_path / "plumed.dat").touch()
    with pytest.raises(ValueError, match=r"would not fit the new cv.pt; write the format plumed"):
        export(angles(), tmp_path, formats=["colvars"])
    (tmp_path / "plumed.dat").unlink()
    monkeypatch.delattr(openmm, "PythonForce")
    with pytest.raises(ValueError, match=r"needs OpenMM 8\.5 or newer for its PythonForce"):
        export(angles(), tmp_path, formats=["openmm"])
    assert not list(tmp_path.iterdir())


def test_atoms_that_trade_places_are_refused(tmp_path: Path) -> None:
    """The methyls of a tert-butyl group turn with it; the aldehyde beside it does not care."""
    system = gencg.systems.from_smiles("CC(C)(C)CC=O")
    coordinates = system.coordinates
    k, names = 5, ["butyl", "aldehyde", "methyl"]
    cv_map = CollectiveMap(torch.eye(k), n_cvs=3, periodic=True, n_steps=0)
    with pytest.raises(ValueError, match=r"rotor\(MOL1-C1\) is measured from .* no function of"):
        soft_cv_function(coordinates, cv_map, names=names)
    cv_map = CollectiveMap(torch.eye(k), n_cvs=2, periodic=True, n_steps=0)
    function = soft_cv_function(coordinates, cv_map, names=names[:2])
    x = torch.as_tensor(system.molecule.positions).repeat(4, 1, 1)
    export_cvs(function, tmp_path, molecule=system.molecule, samples=x, formats=["plumed"])


def test_a_model_of_one_stage_is_refused() -> None:
    result = SimpleNamespace(system=DIPEPTIDE, model=SimpleNamespace(encoder=None))
    with pytest.raises(ValueError, match="one-stage model see all coordinates"):
        cv_function(CollectiveRun(result, ("z1",), None, None))


def test_metadynamics_of_openmm_runs_on_the_written_file(tmp_path: Path) -> None:
    export(angles(), tmp_path, formats=["openmm"])
    system, x = build_system(), np.array(DIPEPTIDE.molecule.positions)
    with _loaded(tmp_path / "openmm_cv.py") as written:
        variables = written.bias_variables(tmp_path / "cv.pt")
        assert [v.periodic for v in variables] == [True, True]
        meta = app.Metadynamics(
            system, variables, 300 * openmm.unit.kelvin, 8,
            1.2 * openmm.unit.kilojoules_per_mole, 5,
        )  # fmt: skip
        integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
        platform = openmm.Platform.getPlatformByName("Reference")
        topology = app.PDBFile(str(tmp_path / "topology.pdb")).topology
        simulation = app.Simulation(topology, system, integrator, platform)
        simulation.context.setPositions(x)
        meta.step(simulation, 20)
        state = simulation.context.getState(positions=True)
        there = np.array(state.getPositions(asNumpy=True)._value)
        expected = torsion(there[None], (4, 6, 8, 14))[0]
        got = meta.getCollectiveVariables(simulation)
        assert_allclose(got[0], expected[0], atol=1e-5)
        hills = meta.getFreeEnergy().value_in_unit(openmm.unit.kilojoules_per_mole)
        assert hills.min() < -4.0  # four of 1.2, a little apart
        # The molecule anywhere in a larger system, and names that are not there
        all_atoms = written.CollectiveVariables(tmp_path / "cv.pt")
        assert_allclose(all_atoms(there[None], "phi(ALA2)"), expected, atol=1e-5)
        with pytest.raises(ValueError, match="must be one of phi"):
            written.cv_force(tmp_path / "cv.pt", "chi")


def test_more_than_three_variables_are_biased_side_by_side(tmp_path: Path) -> None:
    quads = {"phi": (4, 6, 8, 14), "psi": (6, 8, 14, 16), "a": (1, 4, 6, 8), "b": (8, 14, 16, 18)}
    columns = tuple(quads)
    four = CVFunction(quads, {}, OfTorsion(lambda a: a.cos()), columns, 22)
    export(four, tmp_path, formats=["plumed", "openmm"])
    (line,) = (x for x in (tmp_path / "plumed.dat").read_text().splitlines() if "SIGMA" in x)
    assert "PBMETAD" in line
    words = dict(word.split("=") for word in line.split() if "=" in word)
    assert all(len(words[key].split(",")) == 4 for key in ("ARG", "SIGMA", "FILE"))
    with _loaded(tmp_path / "openmm_cv.py") as written:
        with pytest.raises(ValueError, match=r"one to 3 of phi, psi, a, b.* got 4; choose"):
            written.bias_variables(tmp_path / "cv.pt")
        chosen = written.bias_variables(tmp_path / "cv.pt", names=["b", "phi"])
        low, high, _ = written.CollectiveVariables(tmp_path / "cv.pt").about["ranges"]["b"]
        assert chosen[0].minValue == pytest.approx(low - 0.2 * (high - low))
    export(of_phi(lambda a: a[:, :1].cos()), tmp_path / "one", formats=["plumed"])
    assert ": METAD " in (tmp_path / "one" / "plumed.dat").read_text()


def test_ranges_are_those_of_the_whole_ensemble(tmp_path: Path) -> None:
    """A state of two in a thousand is in the grid of a bias, and among what is compared."""
    system, rare = DIPEPTIDE, 2e-3
    x = structures().repeat(50, 1, 1)
    function = of_phi(lambda a: torch.exp(3.0 * a[:, :1].cos()))
    values = function(x)[:, 0].double()
    weights = torch.where(values >= values.max() - 1e-6, 1.0, 0.0).double()
    weights = torch.where(weights > 0, rare / weights.sum(), (1 - rare) / (1 - weights).sum())
    low, high, spread = column_ranges(function, column_values(function, x), weights)["cv"]
    assert (low, high) == (float(values.min()), float(values.max()))
    mean = float(weights @ values)
    assert spread == pytest.approx(float((weights @ (values - mean) ** 2).sqrt()), rel=1e-5)
    folder = SimpleNamespace(path=tmp_path)
    ensemble = SimpleNamespace(x=x, weights=weights)
    ensemble.valid, ensemble.select = torch.ones(len(x), dtype=torch.bool), lambda _: ensemble
    (tmp_path / "samples.h5").touch()
    run = SimpleNamespace(result=SimpleNamespace(system=system))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "read_samples", lambda _: ensemble)
        seen, ranges = export_module._seen(run, folder, function, 0)
    assert ranges["cv"] == pytest.approx([low, high, spread])
    assert float(function(seen).max()) == high
    export(function, tmp_path / "out", samples=seen, ranges=ranges, formats=["plumed"])
    _, about = load_torchscript(tmp_path / "out" / "cv.pt")
    assert about["ranges"]["cv"] == pytest.approx([low, high, spread])


def test_a_molecule_in_a_larger_system(tmp_path: Path) -> None:
    function = network()
    export(function, tmp_path, formats=["openmm"])
    x = structures()[0].numpy()
    true, slope = model_quantities(function, x[None])["first"]
    system = openmm.System()
    for _ in range(30):
        system.addParticle(1.0)
    with _loaded(tmp_path / "openmm_cv.py") as written:
        system.addForce(written.cv_force(tmp_path / "cv.pt", "first", first_atom=5, n_atoms=30))
        context = openmm.Context(system, openmm.VerletIntegrator(1e-3))
        context.setPositions(np.concatenate([np.ones((5, 3)), x, np.zeros((3, 3))]))
        state = context.getState(energy=True, forces=True)
        assert state.getPotentialEnergy()._value == pytest.approx(true[0], abs=1e-5)
        forces = state.getForces(asNumpy=True)._value
        assert_allclose(forces[5:27], -slope[0], atol=1e-4)
        assert not forces[:5].any()


def test_colvar_files_keep_every_digit(tmp_path: Path) -> None:
    columns = {"time": np.arange(5.0), "cv.node-0": np.random.default_rng(0).normal(size=5)}
    write_colvar(tmp_path / "COLVAR", columns, angles=["cv.node-0"])
    read = read_colvar(tmp_path / "COLVAR")
    assert list(read) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(read[name], values)
    head = (tmp_path / "COLVAR").read_text().splitlines()[:3]
    assert head == [
        "#! FIELDS time cv.node-0",
        "#! SET min_cv.node-0 -pi",
        "#! SET max_cv.node-0 pi",
    ]
    with pytest.raises(ValueError, match="no blanks, got 'a b'"):
        write_colvar(tmp_path / "x", {"a b": [1.0]})
    with pytest.raises(ValueError, match="the same length"):
        write_colvar(tmp_path / "x", {"a": [1.0], "b": [1.0, 2.0]})
    (tmp_path / "x").write_text("time cv\n1 2\n")
    with pytest.raises(ExportError, match="does not begin with"):
        read_colvar(tmp_path / "x")
    (tmp_path / "x").write_text("#! FIELDS time cv\n1 2 3\n")
    with pytest.raises(ExportError, match="names 2 columns and has 3"):
        read_colvar(tmp_path / "x")
