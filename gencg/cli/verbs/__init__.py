"""The verbs in the order of the data flow: each is a file here that defines it by its name."""

VERBS = (
    "run",
    "fit",
    "sample",
    "cv",
    "backmap",
    "export",
    "energy",
    "describe",
    "systems",
    "reweight",
    "explain",
    "report",
)
