"""The renderer of molecules: what is near hides what is far, clear where nothing is.

Cannot detect: whether a picture is good to look at.
"""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gencg.plots.render import COLOURS, Frame, Style, blend, over, render
from gencg.plots.structures import ensemble_picture, frame_pictures, plot_ensemble, turned
from gencg.systems import load

FRAME = Frame((-0.1, -0.1), (0.1, 0.1), near=0.1, far=-0.1)
NO_BONDS = np.zeros((0, 2), dtype=np.int64)
STYLE = Style(pixels=60)


def hue(pixel: np.ndarray) -> int:
    """Which of red, green and blue is largest."""
    return int(np.argmax(pixel[:3]))


def test_the_nearer_ball_hides_the_farther() -> None:
    oxygen_in_front = np.array([[0.0, 0.0, 0.05], [0.0, 0.0, -0.05]])
    for x, largest in ((oxygen_in_front, 0), (oxygen_in_front[::-1], 2)):
        picture = render(x, ["O", "N"], NO_BONDS, FRAME, style=STYLE)
        assert picture.shape == (60, 60, 4)
        assert hue(picture[30, 30]) == largest
        assert picture[30, 30, 3] == 1
        # Clear where nothing is; opacity between only at the rim
        assert (picture[:3, :, 3] == 0).all()
        rim = (picture[..., 3] > 0) & (picture[..., 3] < 1)
        assert 0 < rim.sum() < 0.2 * (picture[..., 3] == 1).sum()


def test_pictures_stand_upright_and_sticks_join_atoms() -> None:
    # The second axis points up: the first row of the array is the top
    x = np.array([[0.0, 0.07, 0.0], [0.0, -0.07, 0.0]])
    picture = render(x, ["O", "N"], np.array([[0, 1]]), FRAME, style=STYLE)
    assert hue(picture[9, 30]) == 0
    assert hue(picture[51, 30]) == 2
    # Halves of the stick have the colours of their atoms
    assert (picture[12:48, 30, 3] == 1).all()
    assert (hue(picture[26, 30]), hue(picture[34, 30])) == (0, 2)
    # A stick seen along itself is hidden by its balls, and is no error
    render(np.array([[0, 0, 0.07], [0, 0, -0.07]]), ["O", "N"], np.array([[0, 1]]), FRAME)


def test_the_lit_side_is_lighter_and_the_far_ball_paler() -> None:
    x = np.zeros((1, 3))
    ball = render(x, ["O"], NO_BONDS, FRAME, style=Style(pixels=120, balls=2.0))
    assert ball[45, 45, :3].sum() > ball[75, 75, :3].sum()
    near, far = (
        render(x + np.array([0, 0, z]), ["O"], NO_BONDS, FRAME, style=STYLE)[30, 30]
        for z in (0.05, -0.09)
    )
    assert far[2] > near[2]
    # Carbon takes the colour asked for, an unknown element is grey
    green = render(x, ["C"], NO_BONDS, FRAME, style=Style(carbon="#009E73", pixels=60))
    assert hue(green[30, 30]) == 1
    strange = render(x, ["Xx"], NO_BONDS, FRAME, style=STYLE)[30, 30, :3]
    assert np.ptp(strange) < 0.02
    assert to_rgb(COLOURS["O"])[0] > 0.5


def test_a_blend_knows_no_order_and_an_opaque_front_hides_all() -> None:
    rng = np.random.default_rng(0)
    pictures = list(rng.random((3, 4, 5, 4)))
    opacities = np.array([0.2, 0.5, 0.9])
    one = blend(pictures, opacities)
    other = blend(pictures[::-1], opacities[::-1])
    assert one == pytest.approx(other)
    clear = np.prod([1 - a * p[..., 3] for a, p in zip(opacities, pictures, strict=True)], axis=0)
    assert one[..., 3] == pytest.approx(1 - clear)
    front = pictures[0].copy()
    front[..., 3] = 1
    assert over(front, pictures[1]) == pytest.approx(front)
    front[..., 3] = 0
    assert over(front, pictures[1])[..., :3] == pytest.approx(pictures[1][..., :3])


def test_the_haze_is_where_the_weight_is() -> None:
    molecule = load("alanine-dipeptide").molecule
    turn = turned(molecule.positions, 40.0)
    moved = molecule.positions.copy()
    moved[:8] += 0.15
    x = np.stack([molecule.positions, moved, turn])
    light, frame = ensemble_picture(x, molecule, weights=[1.0, 0.0], pixels=80)
    none, _ = ensemble_picture(x, molecule, weights=[0.0, 1.0], pixels=80, frame=frame)
    # The third is the first, turned: superposed it hides behind it
    assert (light[..., 3] > 0).sum() > 1.05 * (none[..., 3] > 0).sum()
    assert frame.extent[0] < 0 < frame.extent[1]
    with pytest.raises(ValueError, match="`weights` must be 2 numbers with a positive sum"):
        ensemble_picture(x, molecule, weights=[1.0])
    ax = plot_ensemble(x[:1], molecule, pixels=60)
    assert ax.images

    # Frames to play keep their place and have one view
    pictures, _ = frame_pictures(np.stack([molecule.positions] * 2), molecule, pixels=60)
    assert np.array_equal(*pictures)
    assert turned(np.array([1.0, 2.0, 3.0]), 360.0) == pytest.approx([1, 2, 3])
    assert np.linalg.norm(turned(moved, 33.0), axis=1) == pytest.approx(
        np.linalg.norm(moved, axis=1)
    )
