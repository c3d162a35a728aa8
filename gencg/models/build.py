"""The default models of a coordinate map: in two stages, and in one."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from gencg.coordinates.base import CoordinateMap
from gencg.models.coarse_grained import CoarseGrainedModel
from gencg.models.collective import FlowPrior
from gencg.models.continuous import FlowMatchingDecoder
from gencg.models.decoders import GaussianDecoder, SplineDecoder
from gencg.models.encoders import GaussianEncoder, SoftEncoder
from gencg.models.mixture import MixtureDecoder
from gencg.models.priors import GaussianPrior
from gencg.models.unimodal import UnimodalFlowDecoder

SOFT = "decoder.flow.soft."
"""Names of the parameters of a soft block begin with this."""
MEMBERS = "decoder.members."
"""Names of the parameters of the members of a mixture begin with this."""
CONTACTS = "decoder.flow.stiff.contacts."
"""Names of the parameters of contacts begin with this."""


def build_model(
    coordinates: CoordinateMap,
    *,
    n_cvs: int = 0,
    contacts: bool | None = None,
    autoregressive: bool | None = None,
) -> CoarseGrainedModel:
    """The recommended model: the spline decoder; with CVs, the Gaussian model of 2020.

    Args:
        coordinates: Coordinates of the molecule or toy.
        n_cvs: Number of collective variables.
        contacts: See `SplineDecoder`.
        autoregressive: See `SplineDecoder`.
    """
    if n_cvs < 0:
        raise ValueError(f"`n_cvs` must not be negative, got {n_cvs}")
    if n_cvs == 0:
        decoder = SplineDecoder(coordinates, contacts=contacts, autoregressive=autoregressive)
        return CoarseGrainedModel(decoder)
    return CoarseGrainedModel(
        GaussianDecoder(coordinates, n_cvs=n_cvs),
        prior=GaussianPrior(n_cvs),
        encoder=GaussianEncoder(coordinates, n_cvs=n_cvs),
        n_cvs=n_cvs,
    )


def sees_contacts(parameters: Iterable[str]) -> bool:
    """Whether parameters of these names are of a stiff block that sees contacts."""
    return any(name.startswith(CONTACTS) for name in parameters)


def choices_of(parameters: Mapping[str, Tensor]) -> dict[str, bool]:
    """What `build_model` has to be told to build the model that has these parameters.

    What is recommended changes from version to version; a model that was trained stays as it is.

    Args:
        parameters: Of a model of `build_model`, by name.
    """
    return {
        "contacts": sees_contacts(parameters),
        "autoregressive": f"{SOFT}chain.layers.0.order" in parameters,
    }


def model_of(coordinates: CoordinateMap, parameters: Mapping[str, Tensor]) -> CoarseGrainedModel:
    """The recommended model, or the mixture of such, that these parameters are of.

    It is built as they were, and does not hold them yet.

    Args:
        coordinates: Coordinates of the molecule or toy.
        parameters: By name.
    """
    n = len({name.split(".")[2] for name in parameters if name.startswith(MEMBERS)})
    if n == 0:
        return build_model(coordinates, **choices_of(parameters))
    members = []
    for k in range(n):
        prefix = f"{MEMBERS}{k}."
        own = {
            f"decoder.{name.removeprefix(prefix)}": value
            for name, value in parameters.items()
            if name.startswith(prefix)
        }
        members.append(build_model(coordinates, **choices_of(own)).decoder)
    return CoarseGrainedModel(MixtureDecoder(members))  # type: ignore[arg-type]


def with_contacts(model: CoarseGrainedModel, coordinates: CoordinateMap) -> CoarseGrainedModel:
    """The model as it is, of the same density, with contacts for its stiff block to learn from.

    Weights of what the contacts become are zero at first. A model that has contacts, or for which
    the recommended one has none, is given back itself.

    Args:
        model: A recommended model without collective variables.
        coordinates: Its coordinates.

    Raises:
        ValueError: If the model is another one.
    """
    theirs = model.state_dict()
    if sees_contacts(theirs):
        return model
    autoregressive = choices_of(theirs)["autoregressive"]
    grown = build_model(coordinates, autoregressive=autoregressive).to(model.rows(0))
    ours = {k: v for k, v in grown.state_dict().items() if not k.startswith(CONTACTS)}
    if len(ours) == len(grown.state_dict()):
        return model
    if ours.keys() != theirs.keys():
        raise ValueError("`model` must be that of build_model, got one of other layers")
    n_new = grown.decoder.flow.stiff.contacts.n_out  # type: ignore[union-attr]
    for name, value in ours.items():
        given = theirs[name]
        if given.shape == value.shape:
            value.copy_(given)
        elif given.ndim == 2 and (len(given), given.shape[1] + n_new) == value.shape:
            # The first layer of a network, which sees contacts last
            value.zero_()
            value[:, : given.shape[1]] = given
        else:
            raise ValueError(
                f"`model` must be that of build_model, got {name} of shape {tuple(given.shape)}"
            )
    return grown


def flow_matching_model(coordinates: CoordinateMap) -> CoarseGrainedModel:
    """The generator with a flow-matching decoder, without collective variables.

    Args:
        coordinates: Coordinates of the molecule or toy.
    """
    return CoarseGrainedModel(FlowMatchingDecoder(coordinates))


def unimodal_model(coordinates: CoordinateMap, *, n_cvs: int) -> CoarseGrainedModel:
    """The one-stage model of a decoder with one peak for each z, angles where the molecule's are.

    The prior is a spline flow: what is multimodal then is a gap in q(z), and decoder and encoder
    stay smooth. They start as each other's inverse, as far as they are linear.

    Args:
        coordinates: Coordinates of the molecule or toy.
        n_cvs: Number of collective variables.

    Raises:
        ValueError: If `n_cvs` is below 1 or above the number of soft coordinates that z can carry.
    """
    periodic = bool(coordinates.periodic.any())
    decoder = UnimodalFlowDecoder(coordinates, n_cvs=n_cvs, periodic=periodic)
    encoder = SoftEncoder(coordinates, n_cvs=n_cvs, periodic=periodic)
    if not periodic:
        encoder.axes.data.copy_(decoder.flow.soft.axes)
    return CoarseGrainedModel(
        decoder, prior=FlowPrior(n_cvs, periodic=periodic), encoder=encoder, n_cvs=n_cvs
    )
