"""The verbs in the order of the data flow: each is a file here that defines it by its name."""

VERBS = (
    "systems",
    "describe",
    "energy",
    "run",
    "fit",
    "report",
    "check",
    "sample",
    "cv",
    "backmap",
    "states",
    "walk",
    "explain",
    "export",
    "reweight",
    "completion",
)
