"""A collective variable as other programs know it: a function of named torsions and distances."""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gencg.geometry import dihedrals, distances

Quad = tuple[int, int, int, int]
Pair = tuple[int, int]

RESERVED = ("cv", "metad")
"""Labels that input files use themselves."""


@dataclass(frozen=True, eq=False)
class CVFunction:
    r"""Collective variables :math:`\xi(d(x))` of torsions and distances d between given atoms.

    An angle is two columns, its cosine and its sine: where it passes :math:`\pm\pi` both are
    smooth, and no program has to know of it. Torsions reach the module in rad on
    :math:`[-\pi, \pi]`, so it must be the same, with the same slope, at both ends.

    Args:
        torsions: Atoms of each torsion, counted from zero, by name. They are the first arguments.
        distances: Atoms of each distance, by name. They are the arguments after the torsions.
        module: From arguments ``(n, n_args)``, float32 in rad and nm, to columns
            ``(n, n_columns)``.
        columns: Names of the columns.
        n_atoms: Number of atoms of the molecule.
        angles: Angles among the collective variables: the column of the cosine, by name; the
            sine is the next one.
        bounded: Torsions that cannot turn over (in small rings): the module may jump at
            :math:`\pm\pi` of these.
        reference: The same columns from positions ``(n, n_atoms, 3)`` in nm by another way,
            differentiable, float64; what an export is compared with. By default the module itself.

    Raises:
        ValueError: If there is no torsion or distance, an atom does not exist or is twice in one,
            a name is twice there, or `angles` and `bounded` name what is not there.
    """

    torsions: Mapping[str, Quad]
    distances: Mapping[str, Pair]
    module: nn.Module
    columns: tuple[str, ...]
    n_atoms: int
    angles: Mapping[str, int] = field(default_factory=dict)
    bounded: frozenset[str] = frozenset()
    reference: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if not self.torsions and not self.distances:
            raise ValueError("a CVFunction needs at least one torsion or distance, got none")
        if twice := set(self.torsions) & set(self.distances):
            raise ValueError(f"names of torsions and distances must differ, got {min(twice)} twice")
        for size, group in ((4, self.torsions), (2, self.distances)):
            for name, atoms in group.items():
                if len(set(atoms)) != size or len(atoms) != size:
                    raise ValueError(f"{name} must have {size} different atoms, got {atoms}")
                if not all(0 <= i < self.n_atoms for i in atoms):
                    raise ValueError(
                        f"atoms of {name} must lie between 0 and {self.n_atoms - 1}, got {atoms}"
                    )
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ValueError(f"`columns` must be different names, got {self.columns}")
        for name, cosine in self.angles.items():
            if not 0 <= cosine < len(self.columns) - 1:
                raise ValueError(f"angle {name} must be two of the columns, got column {cosine}")
        if unknown := self.bounded - set(self.torsions):
            raise ValueError(f"`bounded` must name torsions, got {min(unknown)}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments, torsions first."""
        return (*self.torsions, *self.distances)

    @property
    def labels(self) -> tuple[str, ...]:
        """The arguments' names in letters, digits and underscores, all different."""
        return labels(self.arguments, taken=RESERVED)

    @property
    def angle_labels(self) -> tuple[str, ...]:
        """Names of the angles in letters, digits and underscores, unlike those of arguments."""
        return labels([f"cv {name}" for name in self.angles], taken=(*RESERVED, *self.labels))

    @property
    def lines(self) -> tuple[int, ...]:
        """The columns that are no cosine or sine of an angle."""
        paired = {k for cosine in self.angles.values() for k in (cosine, cosine + 1)}
        return tuple(k for k in range(len(self.columns)) if k not in paired)

    def descriptors(self, x: Tensor) -> Tensor:
        """Arguments ``(n, n_args)`` of positions ``(n, n_atoms, 3)``: rad, then nm."""
        quads = torch.tensor(list(self.torsions.values()), dtype=torch.long).reshape(-1, 4)
        pairs = torch.tensor(list(self.distances.values()), dtype=torch.long).reshape(-1, 2)
        return torch.cat([dihedrals(x, quads), distances(x, pairs)], dim=-1)

    def __call__(self, x: Tensor) -> Tensor:
        """Columns ``(n, n_columns)`` of positions ``(n, n_atoms, 3)`` in nm, in float32."""
        columns: Tensor = self.module(self.descriptors(x).float())
        return columns

    def true_columns(self, x: Tensor) -> Tensor:
        """Columns that an export is compared with, ``(n, n_columns)``, in float64."""
        if self.reference is not None:
            return self.reference(x.double())
        module = copy.deepcopy(self.module).double()
        columns: Tensor = module(self.descriptors(x.double()))
        return columns


def labels(names: Iterable[str], *, taken: Iterable[str] = ()) -> tuple[str, ...]:
    """Names in letters, digits and underscores, all different and none of those `taken`."""
    found: list[str] = []
    used = set(taken)
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "x"
        stem = stem if stem[0].isalpha() else f"x{stem}"
        label, k = stem, 2
        while label in used:
            label, k = f"{stem}_{k}", k + 1
        used.add(label)
        found.append(label)
    return tuple(found)
