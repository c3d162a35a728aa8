"""Methods of a run in words that can be quoted: its numbers, and the articles behind them."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gencg.analysis.probes import CHAINS, COVERING
from gencg.energies.tblite import TbliteEnergy
from gencg.ensemble import Ensemble
from gencg.fit import MATCHING
from gencg.objectives.covering_kl import ORDER
from gencg.report.articles import ARTICLES, linked, numbered
from gencg.report.collective import plain_name
from gencg.report.pieces import duration, number
from gencg.systems.base import System
from gencg.training import Optimisation

ENERGIES = {
    "ForceField": "The force field{given} is read through OpenMM [openmm] and evaluated in "
    "batches.",
    "OpenMMEnergy": "Energies of the force field{given} are those of OpenMM [openmm].",
    "MMFF": "Terms and parameters of the force field are those of RDKit [mmff], evaluated in "
    "batches.",
    "TbliteEnergy": "Energies are those of tblite, by {method} [{method}].",
}
PROGRAMS = {
    "ForceField": "openmm",
    "OpenMMEnergy": "openmm",
    "MMFF": "rdkit",
    "TbliteEnergy": "tblite",
}
"""Where an energy comes from."""
ONE_STAGE = {
    "gaussian": "a diagonal Gaussian given the collective variables",
    "unimodal": "a flow with one peak for each value of the collective variables",
}
"""Decoders that are trained with collective variables from the start."""
ESTIMATORS = {
    "covering": "by path gradients [paths] of a divergence of order one half [renyi], with "
    "likelihoods of weighted samples and of Markov chains [chains] that keep rare states",
    "half": "by path gradients [paths] of a divergence of order one half [renyi]",
    "path": "by path gradients [paths] of the reverse Kullback-Leibler divergence",
    "plain": "by gradients of the reverse Kullback-Leibler divergence",
}
OPTIMISERS = {"muon": "Muon [muon]", "adam": "Adam"}
TEMPERINGS = {
    "geometric": "fell geometrically from {hot:g} K over the first half",
    "ess": "fell from {hot:g} K by steps that keep the effective sample size",
    "kl": "fell from {hot:g} K by steps that bound the growth of the divergence [2020]",
    "none": "was the final one throughout",
}


def methods_section(
    system: System,
    ensemble: Ensemble,
    summary: Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    history: Sequence[Any] = (),
    optimisation: Optimisation | None = None,
) -> str:
    """One section: a paragraph for each part of a run, then the articles they cite, numbered.

    Args:
        system: What was sampled.
        ensemble: The samples.
        summary: Contents of summary.json.
        settings: The run's settings by name; without them the training has no words.
        versions: Versions of the programs by name.
        history: Log lines of the training.
        optimisation: How the parameters moved; the decoder decides it beside the settings.
    """
    settings = settings or {}
    texts = [
        " ".join(_target(system, ensemble, summary, settings)),
        " ".join(_training(system, ensemble, summary, settings, history, optimisation)),
        " ".join(_samples(system, ensemble, summary)),
        " ".join(_variables(summary, settings)),
        " ".join(_costs(system, summary, settings, versions or {})),
    ]
    cited: list[str] = []
    body = "".join(f"<p>{numbered(html.escape(text), cited)}</p>" for text in texts if text)
    items = "".join(f"<li>{linked(ARTICLES[word])}</li>" for word in cited)
    return f'<section><h2>Methods</h2>{body}<ol class="note">{items}</ol></section>'


def _target(
    system: System,
    ensemble: Ensemble,
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Iterator[str]:
    molecule, coordinates = system.molecule, system.coordinates
    what = system.description or system.name
    size = "" if molecule is None else f" ({molecule.n_atoms} atoms)"
    yield (
        f"The Boltzmann distribution of {what}{size} at {ensemble.temperature:g} K was sampled "
        "without simulation data: a generator whose density is known was trained on the energy "
        "alone [2020] [generators]."
    )
    source = ENERGIES.get(type(system.energy).__name__)
    if source is not None:
        given = ", as it was given," if system.description in ("", system.name) else ""
        method = system.energy.settings.method if isinstance(system.energy, TbliteEnergy) else ""
        yield source.format(given=given, method=method)
    if molecule is not None:
        n_soft = int(coordinates.soft.sum())
        yield (
            f"The molecule's {coordinates.dim} coordinates are bond lengths, angles and torsions, "
            f"of which {n_soft} {'is' if n_soft == 1 else 'are'} soft."
        )
        if getattr(coordinates, "rotors", ()):
            yield "Equivalent orientations of rotors are folded onto one."
        yield "The handedness of atoms and double bonds is kept."
    generator = _generator(system, str(settings.get("decoder")), summary)
    n_members = summary.get("n_members") or 1
    if generator is not None and n_members > 1:
        yield (
            f"The generator is a mixture of {n_members} generators [mixture], the first of them "
            f"{generator}."
        )
    elif generator is not None:
        yield f"The generator is {generator}."


def _generator(system: System, decoder: str, summary: Mapping[str, Any]) -> str | None:
    """The decoder in words; of two blocks only those that the system has."""
    soft, periodic = system.coordinates.soft, system.coordinates.periodic
    if decoder == "spline":
        space = "torus [splines] [tori]" if periodic[soft].any() else "line [splines]"
        kind = "an autoregressive" if summary.get("autoregressive") else "a"
        first, second = f"{kind} spline flow on the {space}", "an affine flow [affine]"
    elif decoder == "flow-matching":
        first = second = "a continuous flow"
    else:
        return ONE_STAGE.get(decoder)
    if not soft.any():
        return f"{second} for all coordinates"
    if soft.all():
        return f"{first} for all coordinates, which are soft"
    n_contacts = summary.get("n_contacts") or 0
    seen = f" and the {n_contacts} distances between atoms that follow" if n_contacts else ""
    return f"{first} for the soft coordinates and {second} for all others given these{seen}"


def _training(
    system: System,
    ensemble: Ensemble,
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
    history: Sequence[Any],
    optimisation: Optimisation | None,
) -> Iterator[str]:
    taken = summary.get("generator")
    if taken:
        calls = number(taken.get("energy_calls"), "{:,}")
        one = len(taken.get("members", ())) < 2
        yield (
            f"{'It was' if one else 'They were'} taken over from {taken.get('source')}, trained "
            f"with {calls} energy calls."
        )
        if not settings.get("further_calls"):
            return
    estimator = _estimator(system, str(settings.get("decoder")), str(settings.get("estimator")))
    if estimator is None or not history:
        return
    if summary.get("variance"):
        estimator = estimator.replace("with likelihoods", "with likelihoods and log-densities")
    stiff = summary.get("stiff_order")
    if stiff not in (None, ORDER):
        estimator = estimator.replace("[renyi],", f"[renyi], {stiff:g} for the stiff coordinates,")
    moved = ""
    if optimisation is not None:
        optimiser = OPTIMISERS[optimisation.optimiser]
        moved = f"{optimiser}, learning rate {optimisation.learning_rate:g}, "
    annealed = settings.get("anneal_from")
    further = " further" if taken else ""
    if taken and not annealed:
        further += f" at {ensemble.temperature:g} K"
    yield (
        f"It was trained{further} {estimator}, in {len(history):,} steps of "
        f"{settings['batch_size']} configurations ({history[-1].energy_calls:,} energy calls; "
        f"{moved}seed {settings['seed']})."
    )
    hot = annealed if taken else settings.get("start_temperature")
    if hot is not None:
        ladder = "none" if hot == ensemble.temperature else str(settings.get("tempering"))
        yield f"The temperature {TEMPERINGS[ladder].format(hot=hot)}."


def _estimator(system: System, decoder: str, estimator: str) -> str | None:
    """What trains, as `gencg.objectives.build_objective` chooses it."""
    if estimator == "covering" and decoder == "flow-matching":
        estimator = "half"
    elif estimator == "covering" and (decoder in ONE_STAGE or not system.coordinates.soft.any()):
        estimator = "path"
    words = ESTIMATORS.get(estimator)
    if words is None or decoder != "flow-matching":
        return words
    # Soft coordinates are matched without
    forces = "" if system.coordinates.soft.all() else " and the forces there [forces]"
    return (
        f"in the first {MATCHING:.0%} of its steps by matching its velocities to its own weighted "
        f"samples [matching]{forces}, then {words}"
    )


def _samples(system: System, ensemble: Ensemble, summary: Mapping[str, Any]) -> Iterator[str]:
    broken = ensemble.n_invalid
    are = "was" if broken == 1 else "were"
    counted = f", of which {broken:,} {are} without weight, being broken" if broken else ""
    yield (
        f"{ensemble.n_samples:,} samples were drawn{counted}. Each is weighted by its Boltzmann "
        "factor over its density, so that averages are those of the Boltzmann distribution "
        "whatever the generator missed in part; what it misses altogether is in no average. The "
        f"effective sample size is {ensemble.ess:.1%}, the shape of the tail of the weights "
        f"{ensemble.pareto_k:.2f} [pareto]. Errors are one standard error."
    )
    checks = summary.get("mode_checks") or ()
    calls = sum(check["n_energy_calls"] for check in checks)
    if calls:
        coordinates = system.coordinates
        turns = bool(coordinates.periodic[coordinates.soft].any())
        start = "uniform torsions" if turns else "a wide normal distribution"
        ways = {
            COVERING: "samples of the hotter stages of the generator",
            CHAINS: f"annealed importance sampling [annealed] from {start}",
        }
        names = [ways.get(check["name"], check["name"]) for check in checks]
        yield f"Lost modes were looked for by {' and by '.join(names)} ({calls:,} energy calls)."


def _variables(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    names = summary.get("cv_names")
    joint = "the weights are those of configurations and variables together."
    if settings.get("decoder") in ONE_STAGE:
        n_cvs = int(settings["n_cvs"])
        yield (
            f"Prior, decoder and encoder of {n_cvs} collective variable{'' if n_cvs == 1 else 's'} "
            f"were trained as one model from the start [2020]; {joint}"
        )
    if not names:
        return
    one = len(names) == 1
    yield (
        f"The collective variable{'' if one else 's'} {', '.join(map(plain_name, names))} "
        f"{'is that' if one else 'are those'} whose functions are slowest under overdamped "
        "dynamics: minimisers of the Dirichlet form [slow] over weighted samples that also cross "
        "barriers, without a trajectory. Prior, decoder and encoder were then trained around "
        f"{'it' if one else 'them'} as one model [2020]; {joint}"
    )
    if (summary.get("n_members") or 1) > 1:
        yield "They and the samples of that model are of the first generator of the mixture alone."


def _costs(
    system: System,
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
    versions: Mapping[str, Any],
) -> Iterator[str]:
    calls, seconds = summary.get("energy_calls"), summary.get("wall_seconds")
    if calls is not None:
        what = "All after that" if summary.get("generator") else "All of it"
        if settings.get("further_calls"):
            what = "All from the further training on"
        yield f"{what} took {calls:,} energy calls and {duration(seconds)}."
    programs = ("gencg", "torch", PROGRAMS.get(type(system.energy).__name__), "python")
    known = [f"{name} {versions[name]}" for name in programs if name and versions.get(name)]
    if known:
        yield f"Programs: {', '.join(known)}."
