"""Crops that are resized on the device are those that the loader would have made."""

import pytest
import torch

from data.test_loader import IMAGE, batches
from unmask.data import transforms
from unmask.data.crops import Crops, on_device, pack


def test_resized_on_the_device_equals_resized_by_the_loader(photos, tmp_path):
    pairs = zip(
        batches(photos, tmp_path).from_step(0),
        batches(photos, tmp_path, resize=False).from_step(0),
        strict=True,
    )
    for steps in pairs:
        for wanted, got in zip(*steps, strict=True):
            assert isinstance(got.content[0], Crops)
            images = on_device(got.content[0], torch.device("cpu"), IMAGE.size)
            assert torch.equal(images, wanted.content[0])
            assert torch.equal(got.content[1], wanted.content[1])


def test_a_gpu_resizes_numbers_as_a_processor_does_bytes():
    """The arithmetic of `resized` for a GPU, which has no kernel for bytes, on this processor.

    Where nothing overshoots: bytes are clipped between the two passes, numbers after both.
    """
    crop = torch.randint(
        64, 192, (3, 57, 41), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    by_bytes = transforms.resized(crop, (24, 32)).int()
    by_numbers = transforms.resized(crop.float(), (24, 32)).round().clamp(0, 255).int()
    assert (by_bytes - by_numbers).abs().max() <= 1


def test_one_size_is_one_tensor():
    same = [torch.zeros(1, 4, 6, dtype=torch.uint8)] * 3
    assert isinstance(pack(same), torch.Tensor)
    assert on_device(pack(same), torch.device("cpu"), (4, 6)).shape == (3, 1, 4, 6)
    assert on_device(pack(same), torch.device("cpu"), (8, 8)).shape == (3, 1, 8, 8)
    mixed = pack([*same, torch.ones(1, 2, 2, dtype=torch.uint8)])
    assert mixed.shapes == [(1, 4, 6)] * 3 + [(1, 2, 2)]
    images = on_device(mixed, torch.device("cpu"), (4, 4))
    assert images[:3].eq(0).all()
    assert images[3].eq(1).all()


@pytest.mark.parametrize(("side", "resizes"), [(40, False), (400, True)])
def test_what_is_much_larger_is_resized_by_the_loader(side, resizes):
    from unmask.data.decode.pictures import DecodedPicture

    picture = DecodedPicture(torch.zeros(3, side, side, dtype=torch.uint8))
    crop = transforms.crop_box(
        picture, IMAGE.pixels(), (0, 0, side, side), (32, 32), transforms.AS_DECODED
    )
    assert crop.shape == ((3, 32, 32) if resizes else (3, side, side))
