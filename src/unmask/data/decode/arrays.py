"""Arrays of numbers: which of their axes is which.

Legend: C channels, h x w pixels.
"""

import numpy as np

from unmask.data.decode.pictures import ArrayPicture
from unmask.data.decode.reading import Reading

LAYOUTS = ("height x width", "height x width x channels")
TIE = (
    "its axes may be in any order (shape {shape}): say which is which with --data.axes, as YXC (height, "
    "width, channels) or CYX"
)


def array_picture(array: np.ndarray, *, kind: str, reading: Reading) -> ArrayPicture:
    """A picture of [h, w] or of three axes, in the order that `order_of` finds.

    Raises ValueError if the layout cannot be told.
    """
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"its layout is unknown (shape {_times(array.shape) or 'of one number'}): "
            f"store {LAYOUTS[0]}, or {LAYOUTS[1]}"
        )
    if array.dtype.kind not in "buif":
        raise ValueError(f"its values are of type {array.dtype}: store numbers")
    order = order_of(array.shape, reading)
    height, width, channels = shape_in(array.shape, order)
    return ArrayPicture(
        lambda: np.array(in_order(array, order)),
        kind=kind,
        size=(height, width),
        channels=channels,
        dtype=array.dtype,
    )


Order = tuple[int, ...]
"""Which axis is the height, the width, and the channels if there are any."""


def order_of(shape: tuple[int, ...], reading: Reading) -> Order:
    """The axes of an array that does not name them.

    By `reading.axes`; else the channels are the axis with the asked length; else two axes of equal
    length are height and width; else the channels are the shorter one of first and last.
    Raises ValueError, naming --data.axes, if all are equal.
    """
    if reading.axes is not None:
        return order_by_name(reading.axes, len(shape))
    if len(shape) == 2:
        return (0, 1)
    axis = _channel_axis(shape, reading.channels)
    if axis is None:
        raise ValueError(TIE.format(shape=_times(shape)))
    return (*(i for i in range(3) if i != axis), axis)


def order_by_name(axes: str, dimensions: int) -> Order:
    """The order that letters say, as 'CYX'; of two dimensions the C is ignored.

    Raises ValueError if they name no height and width, or do not fit.
    """
    letters = axes.upper()
    if sorted(letters) not in (sorted("CYX"), sorted("YX")):
        raise ValueError(
            f"--data.axes {axes} is no order of height, width and channels: write Y, X and C in the "
            f"order in which the files store them, as CYX"
        )
    if dimensions == 2:
        letters = letters.replace("C", "")
    if len(letters) != dimensions:
        raise ValueError(
            f"it has {dimensions} axes and --data.axes {axes} names {len(letters)}: store one image per "
            f"file, or choose other --data.axes"
        )
    return tuple(letters.index(name) for name in "YXC" if name in letters)


def in_order(array: np.ndarray, order: Order) -> np.ndarray:
    """[h, w, C], without a copy."""
    turned = array.transpose(order)
    return turned[..., None] if turned.ndim == 2 else turned


def shape_in(shape: tuple[int, ...], order: Order) -> tuple[int, int, int]:
    """Height, width and channels."""
    height, width, *channels = (shape[axis] for axis in order)
    return height, width, channels[0] if channels else 1


def _channel_axis(shape: tuple[int, ...], channels: int | None) -> int | None:
    asked = [axis for axis in (0, 2) if shape[axis] == channels] or [1] * (shape[1] == channels)
    if len(asked) == 1:
        return asked[0]
    for axis in (0, 2, 1):
        others = [length for i, length in enumerate(shape) if i != axis]
        if others[0] == others[1] != shape[axis]:
            return axis
    return None if len(set(shape)) == 1 else min((0, 2), key=lambda axis: shape[axis])


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
