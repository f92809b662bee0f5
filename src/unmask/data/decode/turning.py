"""Turns arrays upright."""

import numpy as np


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """[h, w, C] as EXIF's and TIFF's orientation, 1 to 8, says it is seen; others change nothing.

    5 to 8 swap height and width.
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    down = {3: -1, 4: -1, 7: -1, 8: -1}.get(orientation, 1)
    across = {2: -1, 3: -1, 6: -1, 7: -1}.get(orientation, 1)
    return array[::down, ::across]
