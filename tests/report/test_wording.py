"""How numbers and images are shown: bounds on their safe side, gradients white at zero."""

import base64
import io
import math

import matplotlib.image
import numpy as np
import pytest

from tightlip.report.pictures import diverging, gradient_norm, picture
from tightlip.report.wording import (
    bound_up,
    decimals,
    duration,
    fixed,
    percent,
    round_down,
    round_nearest,
    round_up,
    scalar,
)


def bare(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def decode(uri):
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def test_a_gradient_is_red_above_zero_blue_below_and_white_at_zero():
    pixels = decode(diverging(np.array([[[1.0, 0.0, -0.5]]])))[0]
    red, blue = pixels[:, 0], pixels[:, 2]
    assert red[0] > 2 * blue[0]
    assert blue[2] > 1.5 * red[2]
    assert pixels[1].min() > 0.95


def test_an_image_keeps_its_pixels():
    gray = np.array([[[0.0, 0.2, 1.0]]])
    assert np.allclose(decode(picture(gray))[0, :, :3], gray[0, 0][:, None], atol=0.003)
    color = np.random.default_rng(0).random((3, 2, 4))
    assert np.allclose(np.moveaxis(decode(picture(color))[..., :3], -1, 0), color, atol=0.003)
    assert np.allclose(decode(picture(np.array([[[-1.0, 7.0, np.nan]]])))[0, :, 0], [0, 1, 0])


def test_gradient_norms():
    gradient = np.array([[[3.0, -4.0]]])
    assert [gradient_norm(gradient, norm) for norm in ("1", "2", "inf")] == [7, 5, 4]


@pytest.mark.parametrize("value", [0.99999999999, 1.00000001, 1 / 3, 1e-9, 123456789.5, 0.0])
def test_bounds_are_printed_on_their_safe_side(value):
    assert float(round_up(value)) >= value >= float(round_down(value))
    assert float(round_up(value)) == pytest.approx(value, rel=1e-7)


def test_wording():
    shares = [bare(percent(x)) for x in (0.929, 0.9706, 1.0, math.nan)]
    assert shares == ["92.9 %", "97.06 %", "100.0 %", "–"]
    times = [bare(duration(x)) for x in (0.344, 48.12, 59.97, 187.2, 7500, math.nan)]
    assert times == ["0.34 s", "48.1 s", "1 min 00 s", "3 min 07 s", "2 h 05 min", "–"]
    assert [round_up(x) for x in (1.0, 1000.0, math.inf, math.nan)] == ["1", "1000", "∞", "–"]
    scalars = [scalar(x) for x in (None, True, [1, "a"], [], 0.1, {"a": [1]})]
    assert scalars == ["none", "yes", "1, a", "(empty)", "0.1", "a 1"]


def test_a_rounding_error_above_one_is_shown_as_such():
    values = (1.0000000000000044, 1.0000009, 1.0001, 1.0, 0.99999994, math.inf, math.nan)
    assert [bound_up(x, 4) for x in values] == ["1 + 5e-15", "1 + 9e-7", "1.001", "1", "1", "∞", "–"]


@pytest.mark.parametrize(("value", "wanted"), [(0.87, 2), (1.0, 0), (120, 0), (1e-9, 6), (0.1 + 0.2, 6), (0, 0)])
def test_decimals_that_a_number_needs(value, wanted):
    assert decimals(value) == wanted


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.5, "0.50"), (-0.125, "-0.12"), (3, "3.00"), (float("nan"), "–"), (1e12, "1e+12")]
)
def test_fixed_decimals(value, wanted):
    assert fixed(value, 2) == wanted


def test_zero_has_no_sign():
    assert round_nearest(-0.0) == "0"
