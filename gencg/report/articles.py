"""Articles that a report may cite, by a word, and their numbers in the order of the text."""

import html

ARTICLES = {
    "2020": "M. Schöberl, N. Zabaras, P.-S. Koutsourelakis, Embedded-physics machine learning for "
    "coarse-graining and collective variable discovery without data (2020). "
    "https://arxiv.org/abs/2002.10148",
    "generators": "F. Noé, S. Olsson, J. Köhler, H. Wu, Boltzmann generators (2019). "
    "https://doi.org/10.1126/science.aaw1147",
    "openmm": "P. Eastman et al., OpenMM 8 (2024). https://doi.org/10.1021/acs.jpcb.3c06662",
    "mmff": "P. Tosco, N. Stiefl, G. Landrum, Bringing the MMFF force field to the RDKit (2014). "
    "https://doi.org/10.1186/s13321-014-0037-3",
    "GFN2-xTB": "C. Bannwarth, S. Ehlert, S. Grimme, GFN2-xTB (2019). "
    "https://doi.org/10.1021/acs.jctc.8b01176",
    "GFN1-xTB": "S. Grimme, C. Bannwarth, P. Shushkov, GFN1-xTB (2017). "
    "https://doi.org/10.1021/acs.jctc.7b00118",
    "splines": "C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, Neural spline flows (2019). "
    "https://arxiv.org/abs/1906.04032",
    "tori": "D. J. Rezende et al., Normalizing flows on tori and spheres (2020). "
    "https://arxiv.org/abs/2002.02428",
    "affine": "L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using real NVP (2017). "
    "https://arxiv.org/abs/1605.08803",
    "mixture": "E. Veach, L. J. Guibas, Optimally combining sampling techniques for Monte Carlo "
    "rendering (1995). https://doi.org/10.1145/218380.218498",
    "matching": "Y. Lipman et al., Flow matching for generative modeling (2023). "
    "https://arxiv.org/abs/2210.02747",
    "forces": "V. De Bortoli et al., Target score matching (2024). "
    "https://arxiv.org/abs/2402.08667",
    "paths": "L. Vaitl et al., Fast and unified path gradient estimators for normalizing flows "
    "(2024). https://arxiv.org/abs/2403.15881",
    "renyi": "Y. Li, R. E. Turner, Rényi divergence variational inference (2016). "
    "https://arxiv.org/abs/1602.02311",
    "chains": "M. Gabrié, G. M. Rotskoff, E. Vanden-Eijnden, Adaptive Monte Carlo augmented with "
    "normalizing flows (2022). https://doi.org/10.1073/pnas.2109420119",
    "muon": "J. Liu et al., Muon is scalable for LLM training (2025). "
    "https://arxiv.org/abs/2502.16982",
    "pareto": "A. Vehtari et al., Pareto smoothed importance sampling (2024). "
    "https://arxiv.org/abs/1507.02646",
    "annealed": "R. M. Neal, Annealed importance sampling (2001). "
    "https://arxiv.org/abs/physics/9803008",
    "slow": "F. Noé, F. Nüske, A variational approach to modeling slow processes in stochastic "
    "dynamical systems (2013). https://arxiv.org/abs/1211.7103",
}  # fmt: skip
"""What may be cited, by a word."""


def numbered(text: str, cited: list[str]) -> str:
    """The text with numbers for the words in brackets; new words are appended to `cited`.

    Args:
        text: Words of `ARTICLES` in brackets, such as ``[2020]``, where they are cited.
        cited: The words cited so far, in the order of their numbers.
    """
    for word in sorted(ARTICLES, key=lambda w: (text.find(f"[{w}]"), w)):
        if f"[{word}]" in text and word not in cited:
            cited.append(word)
    for word in cited:
        text = text.replace(f"[{word}]", f"[{cited.index(word) + 1}]")
    return text


def linked(article: str) -> str:
    """An article with its address as a link."""
    words, _, address = html.escape(article).rpartition(" ")
    return f'{words} <a href="{address}">{address.removeprefix("https://")}</a>'
