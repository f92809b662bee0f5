"""What evaluation sees of an image is what torchvision's and timm's own transforms make of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize

from unmask.config.image import ImageSpec, PixelFormat, usual_crop
from unmask.data.centre_crops import CentreCrops
from unmask.data.decode.pictures import DecodedPicture
from unmask.data.evaluation_crop import evaluation_crop
from unmask.data.images import Images
from unmask.data.paths import PathList

COUNT = 24
KINDS = (
    *(("RGB", "jpg"), ("RGB", "png"), ("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("1", "png")),
    *(("LA", "png"), ("RGBA", "png"), ("RGB", "webp"), ("RGB", "tif"), ("RGB", "bmp")),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Images:
    """Of many sizes, modes and formats: smooth colours under noise, some much larger than the crops."""
    folder, paths = tmp_path_factory.mktemp("pictures"), []
    for i in range(COUNT):
        rng = np.random.default_rng(i)
        height, width = rng.integers(1, 60, 2) if i % 8 == 7 else rng.integers(60, 1100, 2)
        coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC), int)
        noisy = (smooth + rng.integers(-30, 30, smooth.shape)).clip(0, 255).astype(np.uint8)
        mode, suffix = KINDS[i % len(KINDS)]
        paths.append(str(folder / f"{i:02d}.{suffix}"))
        Image.fromarray(noisy).convert(mode).save(paths[-1])
    return Images("pictures", PathList(paths))


def ours(images: Images, size: tuple[int, int], share: float, channels: int = 3) -> list[torch.Tensor]:
    spec = ImageSpec(
        size=size, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels, eval_crop=share
    )
    batches = list(CentreCrops(images, spec))
    assert not any(batch.bad for batch in batches)
    return [crop for batch in batches for crop in batch.images]


def assert_as(transform: Callable[[Image.Image], torch.Tensor], images: Images, crops) -> None:
    for path, crop in zip(images.paths, crops, strict=True):
        with Image.open(path) as image:
            assert crop.equal(transform(image.convert("RGB"))), Path(path).name


@pytest.mark.parametrize("side", [224, 256, 448])
def test_pixels_are_those_of_torchvision_and_of_timm(images, side):
    share = usual_crop((side, side))
    assert share == (224 / 256 if side == 224 else 1)
    crops = ours(images, (side, side), share)
    resize = Resize(round(side / share), InterpolationMode.BICUBIC)
    assert_as(Compose([resize, CenterCrop(side), PILToTensor()]), images, crops)
    assert_as(timms(side, share), images, crops)


@pytest.mark.parametrize(
    ("size", "share"), [((96, 160), 0.875), ((96, 96), 0.9), ((33, 20), 1.0), ((8, 8), 0.875)]
)
def test_pixels_are_those_of_timm_at_other_sizes_and_shares(images, size, share):
    few = images.subset(range(9))
    assert_as(timms(size, share), few, ours(few, size, share))


def timms(size, share):
    """timm's own, without what makes floating point of the pixels."""
    return create_transform(
        size if isinstance(size, tuple) else (3, size, size),
        interpolation="bicubic",
        crop_pct=share,
        crop_mode="center",
        normalize=False,
        use_prefetcher=False,
    )


@pytest.mark.parametrize("channels", [1, 2, 4, 10])
def test_channels_do_not_mix(channels):
    """Neither does a fourth one count as transparency."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (channels, 70, 50), np.uint8))
    wanted = PixelFormat(channels=channels)
    got = evaluation_crop(DecodedPicture(pixels), wanted, (24, 24), 0.75)
    for one, band in zip(got, pixels, strict=True):
        image = Image.fromarray(band.numpy()).resize((32, 44), Image.Resampling.BICUBIC)
        assert np.array_equal(one, np.array(image)[10:34, 4:28])


@pytest.mark.parametrize(("size", "share"), [((24, 24), 0.75), ((16, 40), 1.0), ((30, 30), 1.0)])
def test_floating_point_has_the_same_geometry(size, share):
    # Far from 0 and 255: bytes are held within these between the two passes.
    pixels = torch.from_numpy(np.random.default_rng(0).integers(90, 160, (3, 70, 50), np.uint8))
    by_bytes = evaluation_crop(DecodedPicture(pixels), PixelFormat(channels=3), size, share)
    wanted = PixelFormat(channels=3, pixel_type="float32")
    by_floats = evaluation_crop(DecodedPicture(pixels.float()), wanted, size, share)
    assert (by_floats - by_bytes).abs().max() < 1.5  # rounded after each of two passes
    holed = torch.where(torch.arange(50) < 25, pixels.float(), torch.nan)
    half = evaluation_crop(DecodedPicture(holed), wanted, size, share)
    kept = half.isfinite()
    assert kept[:, :, : size[1] // 2 - 2].all()
    assert not kept[:, :, size[1] // 2 + 2 :].any()
