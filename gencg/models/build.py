"""The default model of a coordinate map."""

from gencg.coordinates.base import CoordinateMap
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.decoders import GaussianDecoder, SplineDecoder
from gencg.models.encoders import GaussianEncoder
from gencg.models.priors import GaussianPrior


def build_model(coordinates: CoordinateMap, *, n_cvs: int = 0) -> CoarseGrainedModel:
    """The recommended model: the spline decoder; with CVs, the Gaussian model of 2020.

    Args:
        coordinates: Coordinates of the molecule or toy.
        n_cvs: Number of collective variables.
    """
    if n_cvs < 0:
        raise ValueError(f"`n_cvs` must not be negative, got {n_cvs}")
    if n_cvs == 0:
        return CoarseGrainedModel(SplineDecoder(coordinates))
    return CoarseGrainedModel(
        GaussianDecoder(coordinates, n_cvs=n_cvs),
        prior=GaussianPrior(n_cvs),
        encoder=GaussianEncoder(coordinates, n_cvs=n_cvs),
        n_cvs=n_cvs,
    )
