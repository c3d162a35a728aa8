"""MMFF94 and MMFF94s equal RDKit, term by term.

Cannot detect: an atom type, charge or parameter that RDKit has wrong; it is the source of them.
"""

import copy
import pickle
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gencg.energies.frame import Frame
from gencg.energies.mmff import ANGSTROM, KCAL, MMFF, VARIANTS
from gencg.energies.mmff_terms import BufferedCoulomb, BufferedVanDerWaals
from gencg.energies.native import NativeForceField
from gencg.testing import check_energy

pytest.importorskip("rdkit")

from rdkit import Chem, rdBase
from rdkit.Chem import AllChem

MOLECULES = {
    "water": "O",
    "methanol": "CO",
    "butane": "CCCC",
    "(E)-2-butene": "C/C=C/C",
    "butadiene": "C=CC=C",
    "allene": "C=C=C",
    "but-2-yne": "CC#CC",
    "propargylamine": "C#CCN",
    "acetonitrile": "CC#N",
    "methyl isocyanide": "C[N+]#[C-]",
    "methyl azide": "CN=[N+]=[N-]",
    "diazomethane": "C=[N+]=[N-]",
    "methyl isothiocyanate": "CN=C=S",
    "cyclopropanecarbonitrile": "C1CC1C#N",
    "cyclopropene": "C1=CC1",
    "fluorocyclobutane": "FC1CCC1",
    "cyclobutene": "C1=CCC1",
    "oxirane": "C1CO1",
    "aziridine": "C1CN1",
    "thiirane": "C1CS1",
    "azetidinone": "O=C1CCN1",
    "bicyclobutane": "C1C2CC12",
    "cubane": "C12C3C4C1C5C2C3C45",
    "norbornane": "C1CC2CCC1C2",
    "methylcyclohexane": "CC1CCCCC1",
    "acetamide": "CC(=O)NC",
    "thioacetamide": "CC(=S)N",
    "urea": "CNC(=O)NC",
    "methyl acetate": "COC(C)=O",
    "trifluoroacetic acid": "O=C(O)C(F)(F)F",
    "acetate": "CC(=O)[O-]",
    "glycine zwitterion": "[NH3+]CC(=O)[O-]",
    "betaine": "C[N+](C)(C)CC([O-])=O",
    "guanidinium": "CNC(N)=[NH2+]",
    "acetoxime": "CC(C)=NO",
    "azobenzene": "c1ccccc1/N=N/c1ccccc1",
    "nitrobenzene": "[O-][N+](=O)c1ccccc1",
    "pyridine N-oxide": "[O-][n+]1ccccc1",
    "aniline": "Nc1ccccc1",
    "phenolate": "[O-]c1ccccc1",
    "trihalotoluene": "FC(F)(F)c1ccc(Cl)cc1Br",
    "iodomethane": "CI",
    "biphenyl": "c1ccc(cc1)-c1ccccc1",
    "pyrrole": "c1cc[nH]c1",
    "furan": "c1ccoc1",
    "thiazole": "c1cscn1",
    "imidazolium": "c1c[nH+]c[nH]1",
    "tetrazole": "c1nnn[nH]1",
    "indole": "c1ccc2[nH]ccc2c1",
    "methyladenine": "Nc1ncnc2c1ncn2C",
    "caffeine": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "benzoquinone": "O=C1C=CC(=O)C=C1",
    "dimethyl sulfide": "CSC",
    "dimethyl disulfide": "CSSC",
    "dimethyl sulfoxide": "CS(C)=O",
    "sulfonium": "C[S+](C)C",
    "benzenesulfonate": "O=S(=O)([O-])c1ccccc1",
    "sulfonamide": "CS(=O)(=O)Nc1ccccc1",
    "dimethyl phosphate": "COP(=O)([O-])OC",
    "ethyl phosphate": "OP(O)(=O)OCC",
    "trimethylphosphine": "CP(C)C",
    "tetramethylsilane": "C[Si](C)(C)C",
    "dialanine": "C[C@H](N)C(=O)N[C@@H](C)C(=O)O",
    "glucose": "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "nicotine": "CN1CCC[C@H]1c1cccnc1",
    "procainamide": "CCN(CC)CCNC(=O)c1ccc(N)cc1",
    "penicillin G": "CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)O",
}
TERMS = {
    "Bond": ("bonds",),
    "Angle": ("angles", "linear_angles"),
    "StretchBend": ("stretch_bends",),
    "Oop": ("out_of_plane",),
    "Torsion": ("torsions",),
    "VdW": ("van_der_waals",),
    "Ele": ("electrostatics",),
}


def molecule(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def structures(mol: Chem.Mol, *, n: int = 2, noises: tuple[float, ...] = (0, 0.01)) -> Tensor:
    """Conformers as embedded and distorted, in nm, ``(n * len(noises), n_atoms, 3)``."""
    mol = Chem.Mol(mol)
    with rdBase.BlockLogs():
        AllChem.EmbedMultipleConfs(mol, n, randomSeed=1)
    x = ANGSTROM * np.array([conformer.GetPositions() for conformer in mol.GetConformers()])
    noise = np.random.default_rng(0).normal(size=x.shape)
    return torch.as_tensor(np.concatenate([x + scale * noise for scale in noises]))


def rdkit_energies(mol: Chem.Mol, x: Tensor, variant: str, term: str = "") -> tuple[Tensor, Tensor]:
    """Energies in kcal/mol and gradients in kcal/mol/Å, of one term or of all."""
    mol = Chem.Mol(mol)
    mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
    parameters = AllChem.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
    for name in TERMS:
        getattr(parameters, f"SetMMFF{name}Term")(term in ("", name))
    field = AllChem.MMFFGetMoleculeForceField(mol, parameters)
    energies, gradients = [], []
    for row in (x / ANGSTROM).flatten(1).tolist():
        # In this order: a gradient takes the distances of the last energy
        energies.append(field.CalcEnergy(row))
        gradients.append(field.CalcGrad(row))
    return torch.tensor(energies), torch.tensor(gradients).reshape_as(x)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("smiles", MOLECULES.values(), ids=MOLECULES.keys())
def test_energy_and_gradient_equal_rdkit(smiles, variant) -> None:
    mol = molecule(smiles)
    x = structures(mol)
    energy, gradient = rdkit_energies(mol, x, variant)
    ours, our_gradient = MMFF(mol, variant=variant).energy_and_gradient(x)
    assert_close(ours / KCAL, energy, atol=1e-7, rtol=0)
    # RDKit's own are this far from the differences of its energies
    assert_close(our_gradient * ANGSTROM / KCAL, gradient, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["propargylamine", "oxirane", "acetamide", "penicillin G"])
def test_every_term_equals_rdkit(name) -> None:
    mol = molecule(MOLECULES[name])
    x = structures(mol)
    ours = MMFF(mol).terms(x)
    assert set(ours) <= {name for names in TERMS.values() for name in names}
    for theirs, names in TERMS.items():
        total = sum((ours[name] for name in names if name in ours), torch.zeros(len(x)))
        assert_close(total / KCAL, rdkit_energies(mol, x, "MMFF94", theirs)[0], atol=1e-8, rtol=0)


def test_the_variants_differ_in_nitrogen_alone() -> None:
    aniline, butane = molecule("Nc1ccccc1"), molecule("CCCC")
    x = structures(aniline)
    first, second = (MMFF(aniline, variant=variant).terms(x) for variant in VARIANTS)
    changed = {name for name in first if not torch.allclose(first[name], second[name])}
    assert changed == {"out_of_plane", "torsions"}
    x = structures(butane)
    assert_close(*(MMFF(butane, variant=variant)(x) for variant in VARIANTS))


def test_buffered_pairs_at_their_radius_far_away_and_where_they_meet() -> None:
    def pair(r: Tensor) -> Frame:
        x = torch.zeros(2, 3, len(r))
        x[1, 0] = r
        return Frame(x)

    table = np.ones((2, 2))
    walls, charges = BufferedVanDerWaals(0.4 * table, depth=0.3 * table), BufferedCoulomb(table)
    r = torch.linspace(0.3, 0.5, 2001)
    value = walls(pair(r))
    assert_close(value[1000], torch.tensor(-0.3))
    # The buffers shift the least energy a little
    assert r[value.argmin()] == pytest.approx(0.4, rel=0.01)
    assert value.min() == pytest.approx(-0.3, rel=0.01)
    # Where atoms meet they are taken to be 0.002 nm apart
    top = 0.3 * (1.07 / 0.075) ** 7 * (1.12 / 0.12 - 2)
    ends = walls(pair(torch.tensor([0.0, 50.0])))
    assert_close(ends, torch.tensor([top, 0.0]), atol=1e-12, rtol=1e-9)
    # One charge each: 1 / (r + 0.005 nm)
    assert_close(charges(pair(r)), 1 / (r + 0.005))


def test_energies_and_gradients_are_consistent() -> None:
    for name in ("cyclopropanecarbonitrile", "aspirin"):
        mol = molecule(MOLECULES[name])
        check_energy(MMFF(mol), structures(mol))


@pytest.mark.parametrize("name", ["propargylamine", "aspirin", "dimethyl phosphate"])
def test_machine_code_and_torch_are_one_force_field(name) -> None:
    mol = molecule(MOLECULES[name])
    x = structures(mol, n=3, noises=(0, 0.003, 0.01, 0.03))
    compiled, plain = MMFF(mol), MMFF(mol, compile=False)
    value, gradient = compiled.energy_and_gradient(x)
    assert isinstance(compiled._native[x.dtype], NativeForceField)
    expected, expected_gradient = plain.energy_and_gradient(x)
    assert_close(value, expected, atol=1e-9, rtol=1e-12)
    assert_close(compiled(x), expected, atol=1e-9, rtol=1e-12)
    largest = expected_gradient.norm(dim=(1, 2), keepdim=True)
    assert_close(gradient / largest, expected_gradient / largest, atol=1e-10, rtol=0)
    # Either part of the pairs alone
    for left_out in ("van_der_waals", "electrostatics"):
        terms = [m for n, m in compiled.modules.items() if n != left_out]
        alone, _ = NativeForceField(terms, mol.GetNumAtoms(), x.dtype)(x, gradient=False)
        assert_close(alone, expected - plain.terms(x)[left_out], atol=1e-9, rtol=1e-12)


@pytest.mark.parametrize("compile", [False, True])
def test_float32_is_accurate_near_a_minimum(compile) -> None:
    mol = molecule(MOLECULES["penicillin G"])
    energy, x = MMFF(mol, compile=compile), structures(mol)
    value, gradient = energy.energy_and_gradient(x)
    value32, gradient32 = energy.energy_and_gradient(x.float())
    assert value32.dtype == torch.float32
    assert_close(value32.double(), value, atol=2e-2, rtol=1e-6)
    assert (gradient32 - gradient).norm() / gradient.norm() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compile", [False, True])
def test_straight_flat_and_clashing_atoms_stay_finite(dtype, compile) -> None:
    # H-C-C-H of acetylene on a line; but-2-yne with its carbons on it; benzene in a plane
    line = torch.zeros(1, 4, 3)
    line[0, :, 0] = torch.tensor([0, 0.12, -0.106, 0.226])
    yne, benzene = molecule("CC#CC"), molecule("c1ccccc1")
    straight = structures(yne, n=1, noises=(0,))
    straight[:, :4, 1:] = 0
    flat = structures(benzene, n=1, noises=(0,))
    flat[:, :, 2] = 0
    clashes = structures(molecule("CC(=O)NC"), n=1, noises=(0,)).repeat(4, 1, 1)
    clashes[0, 5] = clashes[0, 0]  # one atom on another
    clashes[1] *= 0.02  # everything in a point
    clashes[2, :, 1:] = 0  # on a line
    clashes[3] = 0  # in one point
    cases = (("C#C", line), ("CC#CC", straight), ("c1ccccc1", flat), ("CC(=O)NC", clashes))
    for smiles, x in cases:
        energy = MMFF(molecule(smiles), compile=compile)
        value, gradient = energy.energy_and_gradient(x.to(dtype))
        assert value.isfinite().all(), smiles
        assert gradient.isfinite().all(), smiles
    # Nothing pulls a straight or a flat molecule out of line or plane
    acetylene = MMFF(molecule("C#C"), compile=compile)
    assert acetylene.energy_and_gradient(line)[1][:, :, 1:].abs().max() < 1e-9
    flat_gradient = MMFF(benzene, compile=compile).energy_and_gradient(flat)[1]
    assert flat_gradient[:, :, 2].abs().max() < 1e-9


def test_rigid_motion_and_exchange_of_equal_atoms_change_nothing() -> None:
    mol = molecule("CC(=O)[O-]")
    energy, x = MMFF(mol), structures(mol)
    rotation = torch.linalg.qr(torch.randn(3, 3))[0]
    rotation = rotation * torch.linalg.det(rotation).sign()
    assert_close(energy(x @ rotation + 3), energy(x), atol=1e-8, rtol=1e-9)
    # The charge of a carboxylate is on both of its oxygens, and a mirror is no other energy
    assert_close(energy(x[:, [0, 1, 3, 2, 5, 6, 4]]), energy(x), atol=1e-8, rtol=1e-9)
    assert_close(energy(-x), energy(x), atol=1e-8, rtol=1e-9)


def test_the_order_of_the_atoms_does_not_matter() -> None:
    for name in ("penicillin G", "imidazolium", "sulfonamide"):
        mol = molecule(MOLECULES[name])
        order = np.random.default_rng(0).permutation(mol.GetNumAtoms()).tolist()
        x = structures(mol)
        shuffled = MMFF(Chem.RenumberAtoms(mol, order))
        assert_close(shuffled(x[:, order]), MMFF(mol)(x), atol=1e-9, rtol=1e-12)


def test_torsion_barriers_tell_stiff_bonds_from_soft_ones() -> None:
    def barrier(smiles: str, *bond: int) -> float:
        mol = molecule(smiles)
        x = structures(mol, n=1, noises=(0,))[0]
        return float(MMFF(mol).torsion_barriers(x.numpy(), [bond])[0])

    assert barrier("CC(=O)NC", 1, 3) > 80  # amide
    assert barrier("C/C=C/C", 1, 2) > 150
    assert barrier("CNC(N)=[NH2+]", 1, 2) > 60
    assert 40 < barrier("COC(C)=O", 1, 2) < 60  # ester
    assert barrier("CCCC", 1, 2) < 20
    assert barrier("c1ccc(cc1)-c1ccccc1", 3, 6) < 40
    assert barrier("CC#N", 0, 1) == 0


def test_a_copy_and_a_pickle_evaluate_the_same() -> None:
    mol = molecule("CC(=O)NC")
    energy, x = MMFF(mol, variant="MMFF94s"), structures(mol)
    expected = energy(x)
    for other in (copy.deepcopy(energy), pickle.loads(pickle.dumps(energy))):
        assert_close(other(x), expected)
        assert other.variant == "MMFF94s"
        assert other.n_energy_calls == 2 * len(x)
    assert repr(energy).startswith("MMFF(n_atoms=12, variant='MMFF94s', terms=[bonds, angles, ")


def test_the_molecule_is_left_as_it_is() -> None:
    mol = molecule("c1ccc2[nH]ccc2c1")
    before = [bond.GetBondType() for bond in mol.GetBonds()]
    MMFF(mol)
    assert [bond.GetBondType() for bond in mol.GetBonds()] == before
    assert not mol.HasProp("_MMFFSanitized")


@pytest.mark.parametrize(
    "smiles, message",
    [
        ("CB(O)O", r"MMFF94 has no type for B \(atom 2\); it knows Br, C.*leave the group out"),
        ("C[Se]C", r"MMFF94 has no type for Se \(atom 2\)"),
        ("C*", r"MMFF94 has no type for \* \(atom 2\)"),
        ("[CH3]", r"no unpaired electrons, got a radical at C \(atom 1\).*add the missing bond"),
        ("CS(F)(F)(F)(F)F", r"no type for some atom of CS\(F\)\(F\)\(F\)\(F\)F.*check valences"),
    ],
)
def test_what_mmff_cannot_describe(smiles, message, capfd) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        MMFF(molecule(smiles))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"`mol` lacks 10 hydrogens; add them with Chem.AddHs"):
        MMFF(Chem.MolFromSmiles("CCCC"))
    with pytest.raises(ValueError, match=r"`mol` must be an RDKit molecule.*got 'CCCC'; gencg"):
        MMFF("CCCC")
    with pytest.raises(ValueError, match="`variant` must be one of MMFF94, MMFF94s, got 'UFF'"):
        MMFF(molecule("CCCC"), variant="UFF")


def test_without_rdkit_the_extra_is_named(monkeypatch) -> None:
    mol = molecule("CCCC")
    monkeypatch.delattr(rdBase, "CaptureErrorLog")
    with pytest.raises(ValueError, match=r"RDKit must be of 2026.03 or newer, got .*--upgrade"):
        MMFF(mol)
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ValueError, match=r"RDKit, which is not installed; pip install 'gencg\[mol"):
        MMFF(mol)
