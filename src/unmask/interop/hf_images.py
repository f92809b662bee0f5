"""How Hugging Face's image processors make a model's input: preprocessor_config.json, both ways."""

from typing import Any, NamedTuple

from unmask.config.image import crop_share, resized_side
from unmask.core.spec import Size
from unmask.interop.description import Description

BICUBIC = 3
"""Pillow's number of the filter, which the files use."""


class Seen(NamedTuple):
    """What a file says of a model's input; None if it does not."""

    size: Size | None
    """Height and width of the input."""
    crop: float
    """Share of an image's side that is cropped."""
    statistics: tuple[Any, Any] | None
    """Mean and standard deviation per channel, on the scale 0 to 1."""
    notes: tuple[str, ...]
    """In what evaluation here differs."""


def hf_preprocessor(description: Description) -> dict[str, Any]:
    """preprocessor_config.json, for images as evaluation sees them.

    The shorter side is resized and the centre cropped, which only square models allow: those of other
    shapes are given whole images.
    """
    image = description.image
    height, width = image.size
    geometry: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
    }
    if height == width:
        geometry = {
            "image_processor_type": "BitImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": resized_side(height, image.eval_crop)},
            "do_center_crop": True,
            "crop_size": {"height": height, "width": width},
        }
    return {
        **geometry,
        "do_convert_rgb": image.channels == 3,
        "resample": BICUBIC,
        "do_rescale": image.dtype == "uint8",
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": image.mean,
        "image_std": image.std,
    }


def read_preprocessor(settings: dict[str, Any]) -> Seen:
    """What a preprocessor_config.json says; what it leaves open is as ViTImageProcessor has it."""
    resized, notes = _size(settings.get("size")), list[str]()
    edge = _edge(settings.get("size"))
    size, crop = resized, 1.0
    if settings.get("do_center_crop") and (cropped := _size(settings.get("crop_size"))):
        size, before = cropped, edge or (resized[0] if resized else 0)
        crop = crop_share(cropped[0], before) if before > cropped[0] else 1.0
    if settings.get("do_resize", True) and resized and edge is None:
        h, w = resized
        notes.append(
            f"its image processor squeezes whole images into {h} x {w}, and evaluation here takes the "
            f"largest centre part of the input's shape"
        )
    if settings.get("resample", BICUBIC) != BICUBIC:
        notes.append("its image processor resamples in another way than bicubically, as here")
    return Seen(size, crop, _statistics(settings), tuple(notes))


def _statistics(settings: dict[str, Any]) -> tuple[Any, Any] | None:
    """On our scale: theirs if pixels are divided by 255, which the files may say otherwise."""
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if mean is None or std is None or not (_numbers(mean) and _numbers(std)):
        return None
    if not settings.get("do_normalize", True):
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    scale = 255 * factor if isinstance(factor, int | float) and factor > 0 else 1.0
    if abs(scale - 1) < 1e-6:
        return mean, std
    return [value / scale for value in mean], [value / scale for value in std]


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) for value in values)


def _edge(size: Any) -> int | None:
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    return edge if isinstance(edge, int) and edge > 0 else None


def _size(size: Any) -> Size | None:
    """Height and width; None if only a side is given, or nothing."""
    if isinstance(size, int):
        return size, size
    if not isinstance(size, dict):
        return None
    height, width = size.get("height"), size.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
