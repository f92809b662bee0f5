"""An image, its label map, boxes and masks move together, whatever the numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unmask.data.cropped_masks import CroppedMask, CroppedMasks, cropped
from unmask.data.dense import (
    random_jitter_placement,
    random_segmentation_placement,
    size_within,
    whole_image,
)
from unmask.data.placement import (
    Placement,
    cut_image,
    original_boxes,
    padded,
    placed_boxes,
    placed_image,
    placed_labels,
    placed_mask,
    placed_objects,
)
from unmask.data.transforms import resized

IGNORED = 255


@st.composite
def placements(draw) -> Placement:
    side = st.integers(1, 40)
    source, larger = (draw(side), draw(side)), (draw(side), draw(side))
    canvas = (draw(side), draw(side))
    h, w = (draw(st.integers(1, min(pair))) for pair in zip(larger, canvas, strict=True))
    top, left = draw(st.integers(0, larger[0] - h)), draw(st.integers(0, larger[1] - w))
    return Placement(
        source=source, resized=larger, crop=(top, left, h, w), canvas=canvas, flip=draw(st.booleans())
    )


def naive_labels(labels: np.ndarray, placement: Placement) -> np.ndarray:
    """Pixel by pixel, with the position of each centre as a fraction."""
    top, left, h, w = placement.crop
    canvas = np.full(placement.canvas, IGNORED, labels.dtype)
    for y in range(h):
        for x in range(w):
            across = w - 1 - x if placement.flip else x
            row = (top + y + 0.5) * placement.source[0] / placement.resized[0]
            column = (left + across + 0.5) * placement.source[1] / placement.resized[1]
            canvas[y, x] = labels[int(row + 1e-9), int(column + 1e-9)]
    return canvas


@given(placements(), st.integers(0, 9))
@settings(max_examples=60)
def test_label_maps_follow_every_crop_scale_and_flip_exactly(placement, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 7, IGNORED], size=placement.source).astype(np.uint8)
    placed = placed_labels(torch.from_numpy(labels), placement, IGNORED)
    assert placed.dtype == torch.uint8
    np.testing.assert_array_equal(placed.numpy(), naive_labels(labels, placement))


def whole(mask: CroppedMask, placement: Placement) -> torch.Tensor:
    return CroppedMasks.of([mask], placement.canvas)[torch.tensor([0])][0]


@given(placements(), st.integers(0, 9), st.floats(0, 1))
@settings(max_examples=60)
def test_masks_of_any_form_are_placed_as_label_maps_are(placement, seed, share):
    mask = torch.from_numpy(np.random.default_rng(seed).random(placement.source) < share**4)
    seen = placed_labels(mask.to(torch.uint8), placement, IGNORED) == 1
    placed = placed_mask(cropped(mask), placement)
    assert torch.equal(whole(placed, placement), seen)
    assert torch.equal(cropped(seen).pixels, placed.pixels), "no larger than the object"


@given(placements(), st.integers(0, 9))
@settings(max_examples=60)
def test_an_objects_pixels_move_with_its_box_and_mask(placement, seed):
    rng = np.random.default_rng(seed)
    H, W = placement.source
    bottom, right = int(rng.integers(1, H + 1)), int(rng.integers(1, W + 1))
    top, left = int(rng.integers(bottom)), int(rng.integers(right))
    mask = torch.zeros(1, H, W, dtype=torch.bool)
    mask[0, top:bottom, left:right] = True
    labels = torch.where(mask[0], 1, 0).to(torch.uint8)
    boxes = torch.tensor([[left, top, right, bottom]], dtype=torch.float32)
    moved, masks, kept = placed_objects(boxes, lambda _: cropped(mask[0]), placement, least=0.0)
    seen = placed_labels(labels, placement, IGNORED) == 1
    assert len(kept) == int(seen.any())
    if len(kept):
        assert torch.equal(whole(masks[0], placement), seen)
        y, x = seen.nonzero().unbind(1)
        tight = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        # A pixel belongs to the object if its centre lies in the box.
        assert ((moved[0] - tight).abs() <= 0.5 + 1e-4).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_bright_object_stays_under_its_mask(seed):
    rng = np.random.default_rng(seed)
    mask = torch.zeros(1, 60, 80, dtype=torch.bool)
    mask[0, 20:50, 10:60] = True
    image = torch.where(mask, 255, 0).to(torch.uint8).expand(3, -1, -1)
    placement = random_jitter_placement((60, 80), (64, 64), rng, scale=(0.5, 2.0))
    placed = placed_image(image, placement, (0, 0, 0))
    seen = whole(placed_mask(cropped(mask[0]), placement), placement)
    assert seen[placed[0] > 192].all()  # in between lie the smooth edges and corners
    assert not seen[placed[0] < 63].any()
    assert ((placed[0] > 127) != seen).sum() <= 4


@given(placements(), st.sampled_from([(1, "uint8"), (3, "uint8"), (5, "uint8"), (2, "float32")]))
@settings(max_examples=40)
def test_images_equal_the_whole_image_resized_and_then_cut(placement, kind):
    C, dtype = kind
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(C, *placement.source)).astype(dtype)
    placed = placed_image(torch.from_numpy(pixels), placement, (7.0,) * C)
    assert placed.dtype == getattr(torch, dtype)
    assert placed.shape == (C, *placement.canvas)
    top, left, h, w = placement.crop
    size = placement.resized[::-1]
    expected = np.full((C, *placement.canvas), 7.0)
    for channel, layer in zip(expected, pixels.astype(np.float32), strict=True):
        whole = np.asarray(Image.fromarray(layer).resize(size, Image.Resampling.BILINEAR))
        cut = whole[top : top + h, left : left + w]
        channel[:h, :w] = cut[:, ::-1] if placement.flip else cut
    np.testing.assert_allclose(placed.numpy(), expected, atol=1.01 if dtype == "uint8" else 0.05)


def test_a_jpeg_decoded_at_half_its_size_stands_in_the_same_place():
    smooth = torch.linspace(0, 255, 64).expand(3, 48, 64)
    half = resized(smooth, (24, 32))
    placement = Placement(source=(48, 64), resized=(36, 48), crop=(3, 8, 20, 30), canvas=(24, 30))
    whole, small = (placed_image(pixels, placement, (0, 0, 0)) for pixels in (smooth, half))
    assert (whole - small).abs().max() < 2


def test_colours_changed_between_cutting_and_padding_leave_the_padding():
    placement = Placement(source=(4, 4), resized=(4, 4), crop=(0, 0, 4, 4), canvas=(6, 6))
    cut = cut_image(torch.full((3, 4, 4), 100, dtype=torch.uint8), placement)
    whole = padded(cut // 2, placement.canvas, (1.4, 2.6, 3))
    assert whole[:, 5, 5].tolist() == [1, 3, 3]
    assert (whole[:, :4, :4] == 50).all()


@given(placements())
def test_boxes_come_back_from_the_canvas(placement):
    h, w = placement.crop[2:]
    seen = torch.tensor([[0.0, 0.0, w, h], [0.25 * w, 0.5 * h, 0.5 * w, 0.75 * h]])
    back = original_boxes(seen, placement)
    torch.testing.assert_close(placed_boxes(back, placement), seen, atol=1e-3, rtol=0)


def test_objects_outside_of_the_cut_and_those_without_a_pixel_left_are_dropped():
    placement = Placement(source=(10, 10), resized=(5, 5), crop=(0, 0, 4, 4), canvas=(4, 4))
    boxes = torch.tensor([[0.0, 0, 4, 4], [9, 9, 10, 10], [2, 2, 4, 4], [0, 0, 10, 10]])
    masks = torch.zeros(4, 10, 10, dtype=torch.bool)
    masks[0, :4, :4] = masks[1, 9, 9] = masks[3] = True
    assert placed_objects(boxes, lambda i: cropped(masks[i]), placement).kept == [0, 3]
    assert placed_objects(boxes, lambda _: None, placement).kept == [0, 2, 3]


@pytest.mark.parametrize(("source", "expected"), [((512, 683), (512, 683)), ((400, 3000), (273, 2048))])
def test_the_image_stays_within_both_sides(source, expected):
    assert size_within(source, 2048, 512) == expected


def test_segmentation_crops_show_more_than_one_class_where_they_can():
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[:, 56:] = 1
    labels[0] = IGNORED
    shares, flips = [], 0
    for seed in range(60):
        placement = random_segmentation_placement(
            labels, (32, 32), np.random.default_rng(seed), sides=(256, 64)
        )
        flips += placement.flip
        assert 0.49 < placement.resized[0] / 64 < 2.01
        assert placement.crop[2:] == (32, 32)
        seen = placed_labels(labels, placement, IGNORED)
        shares.append((seen == 0).sum() / (seen != IGNORED).sum())
    plain = [
        (placed_labels(labels, placement, IGNORED) == 0).float().mean()
        for placement in (
            random_segmentation_placement(
                labels, (32, 32), np.random.default_rng(seed), sides=(256, 64), largest_share=1.0
            )
            for seed in range(60)
        )
    ]
    assert sum(share < 0.75 for share in shares) > 1.5 * sum(share < 0.75 for share in plain)
    assert 15 < flips < 45


def test_small_images_are_padded_with_the_ignore_index_and_one_class_alone_is_taken():
    placement = random_segmentation_placement(
        torch.zeros(20, 30, dtype=torch.int64), (64, 64), np.random.default_rng(0), sides=(40, 20)
    )
    seen = placed_labels(torch.zeros(20, 30, dtype=torch.int64), placement, -1)
    assert seen.shape == (64, 64)
    assert (seen == 0).sum() == placement.crop[2] * placement.crop[3]
    assert seen[-1, -1] == -1


def test_large_scale_jitter_covers_its_range_and_fits_the_canvas():
    scales = []
    for seed in range(80):
        placement = random_jitter_placement((30, 60), (64, 64), np.random.default_rng(seed))
        scales.append(placement.resized[1] / 64)
        assert placement.crop[2] == min(placement.resized[0], 64)
        assert placement.crop[3] == min(placement.resized[1], 64)
    assert 0.09 < min(scales) < 0.3
    assert 1.8 < max(scales) < 2.01


def test_a_whole_image_for_evaluation():
    placement = whole_image((30, 60), size_within((30, 60), 64, 64), (64, 64))
    assert placement.crop == (0, 0, 32, 64)
    boxes = torch.tensor([[0.0, 0, 60, 30]])
    assert placed_boxes(boxes, placement).tolist() == [[0, 0, 64, 32]]
    torch.testing.assert_close(original_boxes(placed_boxes(boxes, placement), placement), boxes)
