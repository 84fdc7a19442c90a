"""Which arrays are images, and where their channels stand: first, as torch has them, whatever the file had.

(n, height, width, channels), with 1 or 3 channels, is what Keras, Pillow and OpenCV write; (n, height, width) of 8 bits
is one channel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = (1, 3)
"""How many an image has: gray, or red, green and blue."""


def is_image(shape: Sequence[int]) -> bool:
    """Whether an example of this shape is an image: (1 or 3 channels, height, width).

    >>> is_image((3, 32, 32)), is_image((32, 32, 3)), is_image((784,))
    (True, False, False)
    """
    return len(shape) == 3 and shape[0] in CHANNELS and min(shape[1:]) > 1


def channels_first(array: NDArray[Any]) -> NDArray[Any]:
    """Images (n, …) with their channels first; other arrays as they are. A view: nothing is copied.

    >>> channels_first(np.zeros((2, 32, 24, 3))).shape, channels_first(np.zeros((2, 28, 28), "uint8")).shape
    ((2, 3, 32, 24), (2, 1, 28, 28))
    """
    shape = array.shape[1:]
    if len(shape) == 2 and array.dtype == np.uint8 and min(shape) > 1:
        return array[:, None]
    last = len(shape) == 3 and shape[2] in CHANNELS and not is_image(shape) and is_image((shape[2], *shape[:2]))
    return np.moveaxis(array, -1, 1) if last else array
