"""Windows over images of any size."""

import pytest
import torch

from unmask.models.sliding import slide, window_starts

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def pixelwise(images):
    """What does not look at neighbours is the same however an image is cut."""
    return torch.stack([images.sum(dim=1), images[:, 0]], dim=1)


def test_one_window_that_covers_the_image_is_the_whole_image():
    def fn(images):
        return images.cumsum(dim=2).cumsum(dim=3)

    assert torch.equal(slide(fn, IMAGES, window=(24, 40), stride=(10, 10)), fn(IMAGES))
    larger = slide(fn, IMAGES, window=(32, 48), stride=(32, 48))
    assert torch.equal(larger, fn(IMAGES))  # padding lies behind all of the image's pixels


@pytest.mark.parametrize("window", [(8, 8), (7, 11), (24, 16), (30, 9)])
@pytest.mark.parametrize("stride", [(3, 5), (7, 8)])
def test_sizes_that_no_window_divides(window, stride):
    seen = slide(pixelwise, IMAGES, window=window, stride=stride)
    torch.testing.assert_close(seen, pixelwise(IMAGES))


def test_overlaps_are_averaged():
    calls = iter([1.0, 3.0, 5.0])

    def fn(images):
        return torch.full_like(images[:, :1], next(calls))

    row = slide(fn, torch.zeros(1, 3, 4, 8), window=(4, 4), stride=(4, 2))[0, 0, 0]
    assert row.tolist() == [1, 1, 2, 2, 4, 4, 5, 5]


def test_windows_start_within_the_image():
    assert window_starts(1024, 512, 341) == [0, 341, 512]
    assert window_starts(512, 512, 341) == [0]
    with pytest.raises(ValueError, match="leaves gaps"):
        slide(pixelwise, IMAGES, window=(8, 8), stride=(9, 8))
