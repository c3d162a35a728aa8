"""Slow CVs as plain values and tensors, for checkpoints."""

from typing import Any

import torch

from gencg.discover.slow_cvs import SlowCVs
from gencg.models.cv_map import BENT, CollectiveMap
from gencg.objectives.dirichlet import Basis, FourierBasis, KernelBasis, Spectrum
from gencg.objectives.pair_basis import PairBasis
from gencg.objectives.slow_modes import SlowFunctions, SpectralHeads
from gencg.objectives.slow_network import NetworkCheck

_KEPT = ("eigenvalues", "errors", "populations", "n_transition", "vectors", "centre")
_LATER = ("resampled", "agreement")
"""What files of before these figures do not hold."""
_FIGURES = ("support", "frequency", "reference", "shares")
_NETWORK = ("linear", "network", "errors", "agreement", "descriptors")


def slow_state(slow: SlowCVs) -> dict[str, Any]:
    """Everything needed to use the CVs again; the samples stay behind."""
    heads, cv_map = slow.functions.heads, slow.map
    assert isinstance(heads, SpectralHeads)
    return {
        "map": {
            "state": cv_map.state_dict(),
            "n_cvs": cv_map.n_cvs,
            "periodic": cv_map.periodic,
            "n_steps": len(cv_map.steps),
        },
        "basis": _basis_state(heads.basis),
        "heads": heads.state_dict(),
        "spectrum": {name: getattr(slow.spectrum, name) for name in (*_KEPT, *_LATER)},
        "names": list(slow.names),
        "n_processes": slow.n_processes,
        "gap": slow.gap,
        "eigenvalues": slow.eigenvalues,
        "linear": slow.linear,
        "n_energy_calls": slow.n_energy_calls,
        **{name: getattr(slow, name) for name in _FIGURES},
        "network": None
        if slow.network is None
        else {name: getattr(slow.network, name) for name in _NETWORK},
    }


def restore_slow(state: dict[str, Any]) -> SlowCVs:
    """The CVs that `slow_state` wrote down, without their samples."""
    shape = state["map"]
    cv_map = CollectiveMap(
        shape["state"]["matrix"],
        n_cvs=shape["n_cvs"],
        periodic=shape["periodic"],
        n_steps=shape["n_steps"],
    )
    cv_map.load_state_dict(shape["state"])
    heads = SpectralHeads(
        _basis(state["basis"]), state["heads"]["vectors"], state["heads"]["centre"]
    )
    m = len(state["spectrum"]["eigenvalues"])
    empty = torch.zeros(0, m, dtype=torch.float64)
    return SlowCVs(
        functions=SlowFunctions(cv_map, heads),
        names=tuple(
            # Earlier versions did not say so
            name if state["linear"] or name.startswith(BENT) else f"{BENT}{name}"
            for name in state["names"]
        ),
        spectrum=Spectrum(
            functions=empty, slopes=empty[..., None].expand(0, m, cv_map.n_cvs), **state["spectrum"]
        ),
        n_processes=state["n_processes"],
        gap=state["gap"],
        eigenvalues=state["eigenvalues"],
        linear=state["linear"],
        n_energy_calls=state["n_energy_calls"],
        **{name: state[name] for name in _FIGURES if name in state},
        network=NetworkCheck(**state["network"]) if state.get("network") else None,
    )


def _basis_state(basis: Basis) -> dict[str, Any]:
    if isinstance(basis, FourierBasis):
        return {"kind": "fourier", "combinations": basis.combinations, "order": basis.order}
    if isinstance(basis, PairBasis):
        names = ("orders", "pairs", "pair_orders")
        return {"kind": "pairs", **{n: [*getattr(basis, n)] for n in names}}
    assert isinstance(basis, KernelBasis)
    return {"kind": "normalised kernel", "centres": basis.centres, "width": basis.width}


def _basis(state: dict[str, Any]) -> Basis:
    if state["kind"] == "fourier":
        return FourierBasis(state["combinations"], order=state["order"])
    if state["kind"] == "pairs":
        return PairBasis(state["orders"], state["pairs"], state["pair_orders"])
    if state["kind"] != "normalised kernel":
        raise ValueError(
            f"slow CVs in a basis of kind {state['kind']!r} are of an earlier version; delete "
            "cvs.pt, joint.pt and refit.pt of the run folder and run again"
        )
    return KernelBasis(state["centres"], width=state["width"])
