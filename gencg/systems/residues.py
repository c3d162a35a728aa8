"""Peptide sequences in letters: which residues a text means."""

from collections.abc import Iterator
from dataclasses import dataclass

LETTERS = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU",
    "G": "GLY", "H": "HIS", "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE",
    "P": "PRO", "S": "SER", "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL",
}  # fmt: skip
"""The twenty amino acids by their one-letter code."""

PROTONATION = {
    "HID": ("HIS", "HID"), "HIE": ("HIS", "HIE"), "HIP": ("HIS", "HIP"), "ASH": ("ASP", "ASH"),
    "GLH": ("GLU", "GLH"), "LYN": ("LYS", "LYN"), "CYM": ("CYS", "CYX"),
}  # fmt: skip
"""Other states of protonation: the amino acid, and OpenMM's name of the variant."""

USUAL = {"HIS": "HIE", "ASP": "ASP", "GLU": "GLU", "LYS": "LYS", "CYS": "CYS"}
"""Variant of a residue that is written without one."""

DEXTRO = {
    "ALA": "DAL", "ARG": "DAR", "ASN": "DSG", "ASP": "DAS", "CYS": "DCY", "GLN": "DGN",
    "GLU": "DGL", "HIS": "DHI", "ILE": "DIL", "LEU": "DLE", "LYS": "DLY", "MET": "MED",
    "PHE": "DPN", "PRO": "DPR", "SER": "DSN", "THR": "DTH", "TRP": "DTR", "TYR": "DTY",
    "VAL": "DVA",
}  # fmt: skip
"""Names of the mirror images in the Protein Data Bank."""

FIRST_CAPS = ("ACE",)
LAST_CAPS = {"NME": "NME", "NMA": "NME", "NH2": "NH2", "NHE": "NH2"}


@dataclass(frozen=True)
class Residue:
    """One residue of a peptide.

    Attributes:
        name: Name of the amino acid, "ALA", or of the cap.
        variant: OpenMM's name of its state of protonation; None where there is one state only.
        is_dextro: Whether it is the D form.
    """

    name: str
    variant: str | None = None
    is_dextro: bool = False

    @property
    def is_cap(self) -> bool:
        """Whether it is no amino acid."""
        return self.name in FIRST_CAPS or self.name in LAST_CAPS

    @property
    def pdb_name(self) -> str:
        """Its name in structure files, which tells L from D."""
        return DEXTRO[self.name] if self.is_dextro else self.name


def parse_sequence(text: str, *, caps: bool = False) -> tuple[Residue, ...]:
    """Residues of a sequence such as "ACE-ALA-D-ALA-NME" or "AaG".

    Names of three letters are joined with dashes, in capitals or not; ``D-`` before a name, or the
    name of the Protein Data Bank (DAL), means the D form. A text without dashes is the one-letter
    code, where a small letter means the D form. HIS is HIE. Nothing is added: without caps the
    ends are charged.

    Args:
        text: The sequence.
        caps: Add ACE in front and NME behind where no cap is written.

    Raises:
        ValueError: If a residue is not known, a cap stands inside, or the text can be read both
            ways.
    """
    text = text.strip()
    if not text:
        raise ValueError("`sequence` is empty; give one such as ACE-ALA-NME or AAG")
    residues = list(_by_names(text) if "-" in text else _by_letters(text))
    if caps:
        if not residues[0].is_cap:
            residues.insert(0, Residue("ACE"))
        if residues[-1].name not in LAST_CAPS:
            residues.append(Residue("NME"))
    _check_caps(text, residues)
    return tuple(residues)


def _by_letters(text: str) -> Iterator[Residue]:
    if text.upper() in _names():
        letters = "-".join(LETTERS.get(letter, "?") for letter in text.upper())
        other = "" if "?" in letters else f"{letters} for three residues, or "
        raise ValueError(
            f"`sequence` {text!r} is the name of one residue; write {other}"
            f"ACE-{text.upper()}-NME for one with caps"
        )
    for letter in text:
        if letter.upper() not in LETTERS:
            raise ValueError(
                f"`sequence` {text!r} holds {letter!r}, which is no one-letter code; known are "
                f"{''.join(sorted(LETTERS))}, in small letters for D, and names joined with "
                "dashes, such as ACE-ALA-NME"
            )
        yield _amino_acid(LETTERS[letter.upper()], is_dextro=letter.islower())


def _by_names(text: str) -> Iterator[Residue]:
    hand = ""
    for word in text.upper().split("-"):
        if word in ("D", "L") and not hand:
            hand = word
            continue
        if word == "CYX":
            raise ValueError(
                f"`sequence` {text!r} holds CYX, half of a disulfide bond, which is not built from "
                "a sequence; write CYS or CYM, or give a structure file"
            )
        if word not in _names() or (hand and (word in LAST_CAPS or word in FIRST_CAPS)):
            raise ValueError(
                f"`sequence` {text!r} holds {(hand and f'{hand}-') + word!r}, which is no residue "
                f"of a sequence; known are {', '.join(_names())}, and D- before an amino acid"
            )
        yield _named(word, is_dextro=hand == "D")
        hand = ""
    if hand:
        raise ValueError(f"`sequence` {text!r} ends with {hand!r}; a residue must follow")


def _named(word: str, *, is_dextro: bool) -> Residue:
    if word in FIRST_CAPS or word in LAST_CAPS:
        return Residue(LAST_CAPS.get(word, word))
    mirrored = {d: name for name, d in DEXTRO.items()}
    if word in mirrored:
        return _amino_acid(mirrored[word], is_dextro=True)
    name, variant = PROTONATION.get(word, (word, None))
    return _amino_acid(name, variant=variant, is_dextro=is_dextro)


def _amino_acid(name: str, *, is_dextro: bool, variant: str | None = None) -> Residue:
    # Glycine is its own mirror image
    return Residue(name, variant or USUAL.get(name), is_dextro and name != "GLY")


def _names() -> tuple[str, ...]:
    return (
        *sorted(LETTERS.values()), *PROTONATION, *FIRST_CAPS, *LAST_CAPS, *sorted(DEXTRO.values()),
    )  # fmt: skip


def _check_caps(text: str, residues: list[Residue]) -> None:
    for i, residue in enumerate(residues):
        first, last = residue.name in FIRST_CAPS, residue.name in LAST_CAPS
        if (first and i > 0) or (last and i < len(residues) - 1):
            raise ValueError(
                f"`sequence` {text!r} has the cap {residue.name} inside; it stands at the "
                f"{'start' if first else 'end'}"
            )
    if len(residues) == 1:
        raise ValueError(
            f"`sequence` {text!r} is one residue with free ends, which force fields have no "
            f"template for; add caps: ACE-{residues[0].pdb_name}-NME"
            if not residues[0].is_cap
            else f"`sequence` {text!r} is a cap alone; put a residue beside it"
        )
