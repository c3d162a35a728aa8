"""Names of collective variables as people read them. Cannot detect a name that is wrong."""

import pytest

from gencg.analysis.cv_names import shorter


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("torsion(MOL1-C1, MOL1-C2, MOL1-C4, MOL1-C5)", "C1–C2–C4–C5"),
        (
            "3.7 [0° < torsion(MOL1-H18, MOL1-O2, MOL1-C13, MOL1-C11) < 90°] - 0.3",
            "3.7 [0° < H18–O2–C13–C11 < 90°] - 0.3",
        ),
        ("torsion(MET2-C, MET2-CA, MET2-CB, MET2-CG)", "C–CA–CB–CG (MET2)"),
        ("torsion(ALA2-C, ALA2-CA, ALA3-N, ALA3-CA)", "torsion(ALA2-C, ALA2-CA, ALA3-N, ALA3-CA)"),
        ("rotor(MOL1-C3)", "rotor C3"),
        ("rotor(ALA2-CB)", "rotor(ALA2-CB)"),
        ("phi(ALA2)", "phi(ALA2)"),
    ],
)
def test_torsions_within_one_residue_are_short(text: str, short: str) -> None:
    assert shorter(text) == short
