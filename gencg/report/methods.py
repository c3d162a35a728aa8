"""Methods of a run in words that can be quoted: its numbers, and the articles behind them."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gencg.ensemble import Ensemble
from gencg.report.collective import plain_name
from gencg.report.pieces import duration, number
from gencg.systems.base import System

ARTICLES = {
    "2020": "M. Schöberl, N. Zabaras, P.-S. Koutsourelakis, Embedded-physics machine learning for "
    "coarse-graining and collective variable discovery without data (2020). "
    "https://arxiv.org/abs/2002.10148",
    "generators": "F. Noé, S. Olsson, J. Köhler, H. Wu, Boltzmann generators (2019). "
    "https://doi.org/10.1126/science.aaw1147",
    "openmm": "P. Eastman et al., OpenMM 8 (2024). https://doi.org/10.1021/acs.jpcb.3c06662",
    "mmff": "P. Tosco, N. Stiefl, G. Landrum, Bringing the MMFF force field to the RDKit (2014). "
    "https://doi.org/10.1186/s13321-014-0037-3",
    "xtb": "C. Bannwarth, S. Ehlert, S. Grimme, GFN2-xTB (2019). "
    "https://doi.org/10.1021/acs.jctc.8b01176",
    "splines": "C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, Neural spline flows (2019). "
    "https://arxiv.org/abs/1906.04032",
    "tori": "D. J. Rezende et al., Normalizing flows on tori and spheres (2020). "
    "https://arxiv.org/abs/2002.02428",
    "affine": "L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using real NVP (2017). "
    "https://arxiv.org/abs/1605.08803",
    "matching": "Y. Lipman et al., Flow matching for generative modeling (2023). "
    "https://arxiv.org/abs/2210.02747",
    "paths": "L. Vaitl et al., Fast and unified path gradient estimators for normalizing flows "
    "(2024). https://arxiv.org/abs/2403.15881",
    "renyi": "Y. Li, R. E. Turner, Rényi divergence variational inference (2016). "
    "https://arxiv.org/abs/1602.02311",
    "chains": "M. Gabrié, G. M. Rotskoff, E. Vanden-Eijnden, Adaptive Monte Carlo augmented with "
    "normalizing flows (2022). https://doi.org/10.1073/pnas.2109420119",
    "pareto": "A. Vehtari et al., Pareto smoothed importance sampling (2024). "
    "https://arxiv.org/abs/1507.02646",
    "annealed": "R. M. Neal, Annealed importance sampling (2001). "
    "https://arxiv.org/abs/physics/9803008",
    "slow": "F. Nüske et al., Variational approach to molecular kinetics (2014). "
    "https://arxiv.org/abs/1211.7103",
}  # fmt: skip
"""What may be cited, by a word."""

ENERGIES = {
    "ForceField": "The force field is read through OpenMM [openmm] and evaluated in batches.",
    "OpenMMEnergy": "Energies are those of OpenMM [openmm].",
    "MMFF": "Terms and parameters of the force field are those of RDKit [mmff], evaluated in "
    "batches.",
    "TbliteEnergy": "Energies are those of tblite, by tight binding [xtb].",
}
DECODERS = {
    "spline": "a spline flow on the torus [splines] [tori] for the soft coordinates and an affine "
    "flow [affine] for all others given these",
    "flow-matching": "continuous flows, matched to their own weighted samples [matching], for the "
    "soft coordinates and for all others given these",
    "gaussian": "a diagonal Gaussian given the collective variables",
    "unimodal": "a flow with one peak for each value of the collective variables",
}
ESTIMATORS = {
    "covering": "by path gradients [paths] of a divergence of order one half [renyi], with "
    "likelihoods of weighted samples and of Markov chains [chains] that keep rare states",
    "path": "by path gradients [paths] of the reverse Kullback-Leibler divergence",
    "plain": "by gradients of the reverse Kullback-Leibler divergence",
}
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
) -> str:
    """One section: a paragraph for each part of a run, then the articles they cite, numbered.

    Args:
        system: What was sampled.
        ensemble: The samples.
        summary: Contents of summary.json.
        settings: The run's settings by name; without them the training has no words.
        versions: Versions of the programs by name.
        history: Log lines of the training.
    """
    settings = settings or {}
    texts = [
        " ".join(_target(system, ensemble, settings)),
        " ".join(_training(summary, settings, history)),
        " ".join(_samples(ensemble, summary)),
        " ".join(_variables(summary)),
        " ".join(_costs(summary, versions or {})),
    ]
    cited: list[str] = []
    body = "".join(f"<p>{_numbered(html.escape(text), cited)}</p>" for text in texts if text)
    items = "".join(f"<li>{_linked(ARTICLES[word])}</li>" for word in cited)
    return f'<section><h2>Methods</h2>{body}<ol class="note">{items}</ol></section>'


def _target(system: System, ensemble: Ensemble, settings: Mapping[str, Any]) -> Iterator[str]:
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
        yield source
    if molecule is not None:
        n_soft = int(coordinates.soft.sum())
        yield (
            f"Its {coordinates.dim} coordinates are bond lengths, angles and torsions, of which "
            f"{n_soft} {'is' if n_soft == 1 else 'are'} soft. Equivalent orientations of rotors "
            "are folded onto one; the handedness of atoms and double bonds is kept."
        )
    decoder = DECODERS.get(str(settings.get("decoder")))
    if decoder is not None:
        yield f"The generator is {decoder}."


def _training(
    summary: Mapping[str, Any], settings: Mapping[str, Any], history: Sequence[Any]
) -> Iterator[str]:
    taken = summary.get("generator")
    if taken:
        calls = number(taken.get("energy_calls"), "{:,}")
        yield f"It was taken over from {taken.get('source')}, trained with {calls} energy calls."
        return
    estimator = ESTIMATORS.get(str(settings.get("estimator")))
    if estimator is None or not history:
        return
    yield (
        f"It was trained {estimator}, in {len(history):,} steps of {settings['batch_size']} "
        f"configurations ({history[-1].energy_calls:,} energy calls; learning rate "
        f"{settings['learning_rate']:g}, seed {settings['seed']})."
    )
    tempering = TEMPERINGS.get(str(settings.get("tempering")))
    if tempering is not None and settings.get("start_temperature") is not None:
        yield f"The temperature {tempering.format(hot=settings['start_temperature'])}."


def _samples(ensemble: Ensemble, summary: Mapping[str, Any]) -> Iterator[str]:
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
        ways = {
            "Samples of the hot flows": "samples of the hotter stages of the generator",
            "Chains from anywhere": "annealed importance sampling [annealed] from uniform torsions",
        }
        names = [ways.get(check["name"], check["name"]) for check in checks]
        yield f"Lost modes were looked for by {' and by '.join(names)} ({calls:,} energy calls)."


def _variables(summary: Mapping[str, Any]) -> Iterator[str]:
    names = summary.get("cv_names")
    if not names:
        return
    one = len(names) == 1
    yield (
        f"The collective variable{'' if one else 's'} {', '.join(map(plain_name, names))} "
        f"{'is that' if one else 'are those'} whose functions are slowest under overdamped "
        "dynamics: minimisers of the Dirichlet form [slow] over weighted samples that also cross "
        "barriers, without a trajectory. Prior, decoder and encoder were then trained around "
        f"{'it' if one else 'them'} as one model [2020]; the weights are those of configurations "
        "and variables together."
    )


def _costs(summary: Mapping[str, Any], versions: Mapping[str, Any]) -> Iterator[str]:
    calls, seconds = summary.get("energy_calls"), summary.get("wall_seconds")
    if calls is not None:
        yield f"All of it took {calls:,} energy calls and {duration(seconds)}."
    known = [
        f"{n} {versions[n]}" for n in ("gencg", "torch", "openmm", "python") if versions.get(n)
    ]
    if known:
        yield f"Programs: {', '.join(known)}."


def _numbered(text: str, cited: list[str]) -> str:
    """The text with numbers for the words in brackets; new words are appended to `cited`."""
    for word in sorted(ARTICLES, key=lambda w: (text.find(f"[{w}]"), w)):
        if f"[{word}]" in text and word not in cited:
            cited.append(word)
    for word in cited:
        text = text.replace(f"[{word}]", f"[{cited.index(word) + 1}]")
    return text


def _linked(article: str) -> str:
    """An article with its address as a link."""
    words, _, address = html.escape(article).rpartition(" ")
    return f'{words} <a href="{address}">{address.removeprefix("https://")}</a>'
