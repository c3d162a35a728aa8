"""An input file for PLUMED around a TorchScript file of collective variables."""

from collections.abc import Mapping, Sequence

from gencg.export.cv_function import CVFunction

MODEL = "cv"
"""Label of the model's action; its columns are cv.node-0, cv.node-1, ..."""
MOST_TOGETHER = 3
"""Variables that one bias of metadynamics can fill; more get one bias each, side by side."""


def plumed_nodes(function: CVFunction) -> dict[str, str]:
    """PLUMED's name of each column and angle."""
    nodes = {column: f"{MODEL}.node-{k}" for k, column in enumerate(function.columns)}
    return nodes | dict(zip(function.angles, function.angle_labels, strict=True))


def plumed_input(
    function: CVFunction,
    *,
    model_file: str,
    temperature: float,
    spreads: Mapping[str, float],
    title: str = "a molecule",
    stride: int = 500,
) -> str:
    r"""Text of a plumed.dat that computes the columns and angles and prints them.

    PLUMED declares the outputs of a model to be without period, so that an angle comes out of it
    as cosine and sine; `CUSTOM` makes of them :math:`\mathrm{atan2}(s, c)` with the period.

    Args:
        function: The collective variables.
        model_file: Name of the TorchScript file.
        temperature: In K, for the example of metadynamics.
        spreads: Standard deviation of each column, for the same.
        title: Of what.
        stride: Steps between lines of the output file.
    """
    arguments = list(zip(function.labels, _descriptors(function), strict=True))
    nodes = plumed_nodes(function)
    lines = [
        f"# Collective variables of {title}, written by gencg.",
        "# Units of PLUMED (nm, kJ/mol, rad, ps); atoms as in topology.pdb, counted from 1.",
        "# PLUMED needs its pytorch module: configure --enable-libtorch --enable-modules=pytorch",
        "",
        *(f"{label}: {text}" for label, text in arguments),
        f"{MODEL}: PYTORCH_MODEL FILE={model_file} ARG={','.join(label for label, _ in arguments)}",
        *(f"# {nodes[column]}: {column}" for column in function.columns),
    ]
    for name, k in function.angles.items():
        cosine, sine = (nodes[function.columns[i]] for i in (k, k + 1))
        lines += [
            f"# {name}, in rad",
            f"{nodes[name]}: CUSTOM ARG={sine},{cosine} VAR=s,c FUNC=atan2(s,c) PERIODIC=-pi,pi",
        ]
    biased = [*function.angles, *(function.columns[k] for k in function.lines)]
    lines += [
        f"PRINT ARG={','.join(nodes.values())} STRIDE={stride} FILE=COLVAR",
        "",
        "# Well-tempered metadynamics: take the number sign away, and choose the widths",
        f"# {_metadynamics(function, biased, nodes, temperature, spreads)}",
    ]
    return "\n".join(lines) + "\n"


def _descriptors(function: CVFunction) -> list[str]:
    def atoms(group: Sequence[int]) -> str:
        return ",".join(str(i + 1) for i in group)

    torsions = [f"TORSION ATOMS={atoms(quad)}" for quad in function.torsions.values()]
    return torsions + [f"DISTANCE ATOMS={atoms(pair)}" for pair in function.distances.values()]


def _metadynamics(
    function: CVFunction,
    biased: Sequence[str],
    nodes: Mapping[str, str],
    temperature: float,
    spreads: Mapping[str, float],
) -> str:
    widths = ["0.35" if n in function.angles else f"{0.2 * spreads[n]:.3g}" for n in biased]
    names = [nodes[name] for name in biased]
    together = len(names) <= MOST_TOGETHER
    files = "HILLS" if together else ",".join(f"HILLS.{name}" for name in names)
    text = (
        f"metad: {'METAD' if together else 'PBMETAD'} ARG={','.join(names)} "
        f"SIGMA={','.join(widths)} HEIGHT=1.2 PACE=500 BIASFACTOR=8 TEMP={temperature:g} "
        f"FILE={files}"
    )
    if len(biased) == len(function.angles):
        n = len(biased)
        text += f" GRID_MIN={','.join(['-pi'] * n)} GRID_MAX={','.join(['pi'] * n)}"
    return text
