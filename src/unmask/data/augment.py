"""RandAugment, random erasing (paper, Tables 9 and 11) and colour jitter (Table 1e).

Legend: C channels, H x W pixels. Every draw comes from the generator that is passed in.
"""

import math
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unmask.core.spec import Size
from unmask.data.transforms import Box

POLICY = "rand-m9-mstd0.5-inc1"
"""RandAugment (9, 0.5) in timm's words: magnitude 9, its standard deviation, worse with magnitude."""

ERASED_SHARE = (0.02, 1 / 3)
"""Share of the image's area that is erased: least, most."""
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Height over width."""


def rand_augment(
    image: Tensor, mean: tuple[float, ...], rng: np.random.Generator, policy: str = POLICY
) -> Tensor:
    """timm's RandAugment, bicubic; takes and returns uint8 [C, H, W] of one or three channels.

    What moves in from outside has the colour `mean`, on the scale 0 to 1. Grey images stay grey: the
    result is that of the same picture in three equal channels.

    Raises ValueError for other images.
    """
    C = image.shape[0]
    if image.dtype != torch.uint8 or C not in (1, 3):
        raise ValueError(
            f"RandAugment takes pictures of 8 bits in 1 or 3 channels and got {image.dtype} in {C}: "
            f"train without it"
        )
    pixels = image[0] if C == 1 else image.permute(1, 2, 0)
    augment = _timm_augmentation(policy, tuple(min(255, round(255 * m)) for m in mean))
    with global_generators(rng):
        augmented = augment(Image.fromarray(pixels.numpy()))
    result = torch.from_numpy(np.array(augmented))
    return result[None] if C == 1 else result.permute(2, 0, 1).contiguous()


def colour_jitter(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation, each by a factor from 1 - strength to 1 + strength, in random
    order, as torchvision's ColorJitter; takes and returns uint8 [C, H, W] of one or three channels.
    """
    # Importing torchvision takes a second.
    from torchvision.transforms.v2.functional import (
        adjust_brightness,
        adjust_contrast,
        adjust_saturation,
    )

    factors = rng.uniform(max(0.0, 1 - strength), 1 + strength, size=3).tolist()
    changes = (adjust_brightness, adjust_contrast, adjust_saturation)
    for i in rng.permutation(3):
        image = changes[i](image, factors[i])
    return image


@lru_cache
def _timm_augmentation(policy: str, fill: tuple[int, ...]) -> Callable[[Image.Image], Image.Image]:
    from timm.data.auto_augment import rand_augment_transform  # importing timm takes seconds

    return rand_augment_transform(policy, {"img_mean": fill, "interpolation": Image.Resampling.BICUBIC})


@contextmanager
def global_generators(rng: np.random.Generator) -> Generator[None, None, None]:
    """Inside, the global generators of Python, numpy and torch (CPU) follow `rng`; then they go on.

    For libraries that draw from them; not for use in several threads at once.
    """
    torch_generator = torch.random.default_generator  # torch.manual_seed would seed GPUs too
    before = random.getstate(), np.random.get_state(), torch_generator.get_state()
    seeds = rng.integers(2**32, size=3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch_generator.manual_seed(seeds[2])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch_generator.set_state(before[2])


def random_erasing(
    image: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rng: np.random.Generator,
    probability: float = 0.25,
) -> Tensor:
    """Replaces a box by noise that normalisation turns into N(0, 1) (Zhong et al. 2017; timm's 'pixel').

    Takes and returns uint8 or float32 [C, H, W]; `mean` and `std` as for `normalize`. Done before
    normalisation (timm does it after), so that it needs nothing but the sample and its generator:
    the batch carries no box and no noise to the device. In eight bits, noise beyond black and
    white is clipped: of N(0, 1), with ImageNet's mean and std, about 3 %.
    """
    box = erased_box((image.shape[-2], image.shape[-1]), rng, probability)
    if box is None:
        return image
    top, left, h, w = box
    noise = torch.from_numpy(rng.standard_normal((image.shape[0], h, w), dtype=np.float32))
    values = noise * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    if image.dtype == torch.uint8:
        values = (values * 255).round().clamp(0, 255)
    erased = image.clone()
    erased[:, top : top + h, left : left + w] = values.to(image.dtype)
    return erased


def erased_box(image_size: Size, rng: np.random.Generator, probability: float) -> Box | None:
    """Where to erase, drawn as timm does; None to leave the image alone."""
    if rng.random() > probability:
        return None
    height, width = image_size
    low, high = (math.log(bound) for bound in ERASED_ASPECT)
    for _ in range(10):
        area = rng.uniform(*ERASED_SHARE) * height * width
        aspect = math.exp(rng.uniform(low, high))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < width and h < height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return None
