"""How shares, times and images are shown: words for what is not finite, gradients white at zero."""

import base64
import io
import math

import matplotlib.image
import numpy as np

from tightlip.report.pictures import diverging, gradient_norm, picture
from tightlip.report.wording import duration, percent, scalar


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


def test_wording():
    shares = [bare(percent(x)) for x in (0.929, 0.9706, 1.0, math.nan)]
    assert shares == ["92.9 %", "97.06 %", "100.0 %", "–"]
    times = [bare(duration(x)) for x in (0.344, 48.12, 59.97, 187.2, 7500, math.nan)]
    assert times == ["0.34 s", "48.1 s", "1 min 00 s", "3 min 07 s", "2 h 05 min", "–"]
    scalars = [scalar(x) for x in (None, True, [1, "a"], [], 0.1, {"a": [1]})]
    assert scalars == ["none", "yes", "1, a", "(empty)", "0.1", "a 1"]
