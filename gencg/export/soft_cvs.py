"""Collective variables of soft torsions as functions of plain torsions between atoms."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gencg.coordinates.internal import InternalCoordinates
from gencg.export.cv_function import CVFunction, Quad
from gencg.geometry import wrap
from gencg.models.cv_map import CollectiveMap


class CVColumns(nn.Module):
    r"""Columns of soft coordinates s: :math:`\cos\xi_i(s), \sin\xi_i(s), \dots`, or heads.

    Args:
        cv_map: The map :math:`\xi`.
        heads: Functions of :math:`\xi` to give in its place, such as the slow functions.
    """

    def __init__(self, cv_map: CollectiveMap, heads: nn.Module | None = None) -> None:
        super().__init__()
        self.map, self.heads = cv_map, heads

    def forward(self, s: Tensor) -> Tensor:
        xi, _ = self.map(s)
        if self.heads is not None:
            columns: Tensor = self.heads(xi)
            return columns
        return torch.stack([xi.cos(), xi.sin()], dim=-1).flatten(1)


class SoftTorsions(nn.Module):
    r"""Functions of soft coordinates, as a function of the dihedral angles they are made of.

    .. math:: s_i = \mathrm{wrap}\Bigl(\sum_k c_{ki} \, \mathrm{wrap}(\phi_k - m_k)\Bigr)

    See `InternalCoordinates.torsion_terms`. Soft coordinates without influence are zero.

    Args:
        middles: m, ``(n_args,)``.
        factors: c, ``(n_args, n_soft)``.
        function: Module of s ``(n, n_soft)``.
    """

    middles: Tensor
    factors: Tensor

    def __init__(self, middles: Tensor, factors: Tensor, function: nn.Module) -> None:
        super().__init__()
        self.register_buffer("middles", middles)
        self.register_buffer("factors", factors)
        self.function = function

    def forward(self, torsions: Tensor) -> Tensor:
        columns: Tensor = self.function(wrap(wrap(torsions - self.middles) @ self.factors))
        return columns


def soft_cv_function(
    coordinates: InternalCoordinates,
    cv_map: CollectiveMap,
    *,
    names: Sequence[str],
    heads: nn.Module | None = None,
) -> CVFunction:
    """Collective variables of soft torsions as a function that other programs can load.

    Args:
        coordinates: Coordinates of the molecule.
        cv_map: Map of its soft coordinates, all of them angles.
        names: A name for each collective variable, or for each output of `heads`.
        heads: Functions of the collective variables to export in their place.

    Raises:
        ValueError: If a soft coordinate that matters is measured from atoms which trade places
            in a rotor: it is no function of fixed atoms.
    """
    cv_map, heads = copy.deepcopy(cv_map).cpu(), copy.deepcopy(heads)
    columns = CVColumns(cv_map, heads.cpu() if heads is not None else None).eval()
    for parameter in columns.parameters():
        parameter.requires_grad_(False)
    soft = coordinates.soft.nonzero()[:, 0].tolist()
    quads: list[Quad] = []
    labels: list[str] = []
    middles: list[float] = []
    rows: list[list[float]] = []
    bounded: list[str] = []
    for i in _that_matter(columns, len(soft)):
        _check_atoms_stay(coordinates, soft[i])
        for k, (quad, middle, factor) in enumerate(coordinates.torsion_terms(soft[i])):
            name = coordinates.names[soft[i]] + (f" {k + 1}" if k else "")
            quads.append(quad)
            labels.append(name)
            middles.append(middle)
            rows.append([factor if i == j else 0.0 for j in range(len(soft))])
            if factor != round(factor):
                bounded.append(name)
    exact = copy.deepcopy(columns).double()
    index = torch.tensor(soft)

    def reference(x: Tensor) -> Tensor:
        y, _ = coordinates.forward(x)
        values: Tensor = exact(y[:, index])
        return values

    circles = [f"{f} {name}" for name in names for f in ("cos", "sin")]
    return CVFunction(
        torsions=dict(zip(labels, quads, strict=True)),
        distances={},
        module=SoftTorsions(torch.tensor(middles).float(), torch.tensor(rows).float(), columns),
        columns=tuple(circles if heads is None else names),
        n_atoms=coordinates.event_shape[0],
        angles={name: 2 * k for k, name in enumerate(names)} if heads is None else {},
        bounded=frozenset(bounded),
        reference=reference,
    )


def _that_matter(columns: nn.Module, n_soft: int) -> list[int]:
    """Soft coordinates on which the columns depend."""
    generator = torch.Generator().manual_seed(0)
    s = (6.2 * torch.rand(64, n_soft, generator=generator) - 3.1).float().requires_grad_()
    values = columns(s)
    slopes = [torch.autograd.grad(v.sum(), s, retain_graph=True)[0] for v in values.unbind(1)]
    return (torch.stack(slopes) != 0).any(1).any(0).nonzero()[:, 0].tolist()


def _check_atoms_stay(coordinates: InternalCoordinates, index: int) -> None:
    """Refuse a coordinate of atoms that a rotor other than its own relabels."""
    quads = [quad for quad, _, _ in coordinates.torsion_terms(index)]
    atoms = {i for quad in quads for i in quad}
    for rotor in coordinates.rotors:
        own = {quad[0] for quad in quads} >= set(rotor.atoms)
        if not own and atoms & {i for orbit in rotor.orbits for i in orbit}:
            raise ValueError(
                f"{coordinates.names[index]} is measured from atoms of a rotor that trade places, "
                "so that it is no function of fixed atoms; choose other collective variables"
            )
