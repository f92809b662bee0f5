"""Anchors, sampling, pooling and masks, against torchvision's or by hand."""

import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from unmask.data.cropped_masks import CroppedMasks, cropped
from unmask.models.proposals import anchor_shapes, anchors_of
from unmask.models.regions import (
    Drawn,
    _mask_loss,
    _region_losses,
    cut_masks,
    level_of,
    paste_masks,
    pool,
)

STRIDES = [(4.0, 4.0), (8.0, 8.0), (16.0, 16.0), (32.0, 32.0)]


def boxes(count: int, side: float, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=g) * side * 0.6
    return torch.cat([corners, corners + 2 + torch.rand(count, 2, generator=g) * side * 0.4], dim=1)


def test_anchors_stand_around_the_middles_of_places():
    shapes = anchor_shapes((4.0, 4.0), 8.0, (0.5, 1.0, 2.0))
    torch.testing.assert_close(shapes.prod(dim=1), torch.full((3,), 1024.0))
    torch.testing.assert_close(shapes[:, 1] / shapes[:, 0], torch.tensor([0.5, 1.0, 2.0]))
    found = anchors_of((2, 3), (4.0, 8.0), shapes)
    assert found.shape == (2 * 3 * 3, 4)
    place = found[(1 * 3 + 2) * 3 + 1]
    assert place.tolist() == [20 - 16, 6 - 16, 20 + 16, 6 + 16]


def test_pooling_equals_torchvisions_at_its_strides():
    torch.manual_seed(0)
    levels = [torch.randn(1, 3, 512 // int(s), 512 // int(s)) for s, _ in STRIDES]
    regions = torch.cat([boxes(20, 500), boxes(20, 60, 1) + torch.tensor([0.0, 0, 4, 4])])
    assert level_of(regions, STRIDES).equal(LevelMapper(2, 5)([regions]))
    theirs = MultiScaleRoIAlign([str(i) for i in range(4)], 7, 2)
    shifted = regions - 0.5 * torch.tensor([s for s, _ in STRIDES])[level_of(regions, STRIDES)][:, None]
    expected = theirs({str(i): x for i, x in enumerate(levels)}, [shifted], [(512, 512)])
    # theirs is not aligned: it samples half a place further down and right
    same = level_of(shifted, STRIDES) == level_of(regions, STRIDES)
    found = pool(levels, regions, STRIDES, 7)
    torch.testing.assert_close(found[same], expected[same], atol=1e-4, rtol=1e-4)
    assert same.sum() >= 30


def test_losses_of_an_image_equal_torchvisions():
    torch.manual_seed(0)
    logits, deltas = torch.randn(9, 4), torch.randn(9, 4, 4)
    regions, objects, labels = boxes(9, 40), torch.tensor([1, 0, 1]), torch.tensor([3, 1, 3] + [0] * 6)
    wanted = torch.randn(3, 4)
    drawn = Drawn(boxes=regions, objects=objects, labels=labels, deltas=wanted)
    theirs = fastrcnn_loss(logits, deltas.flatten(1), [labels], [torch.cat([wanted, torch.zeros(6, 4)])])
    for ours, expected in zip(_region_losses(logits, deltas, drawn), theirs, strict=True):
        torch.testing.assert_close(ours, expected)
    masks = torch.ones(2, 48, 48, dtype=torch.bool)  # so theirs, without threshold, is the same
    predicted = torch.randn(3, 4, 28, 28)
    ours = _mask_loss(predicted, drawn, {"masks": masks})
    within = CroppedMasks.of([cropped(mask) for mask in masks], (48, 48))
    assert _mask_loss(predicted, drawn, {"masks": within}).equal(ours)
    of_objects = torch.tensor([1, 3])
    theirs = maskrcnn_loss(predicted, [regions[:3]], [masks.float()], [of_objects], [objects])
    torch.testing.assert_close(ours, theirs)


def test_a_box_decoded_is_the_one_encoded():
    coder, regions, truth = BoxCoder((10.0, 10.0, 5.0, 5.0)), boxes(6, 50), boxes(6, 50, 1)
    torch.testing.assert_close(coder.decode_single(coder.encode_single(truth, regions), regions), truth)


def test_a_mask_cut_out_and_pasted_is_where_it_was():
    y, x = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    discs = torch.stack([(y - 30) ** 2 + (x - 40) ** 2 < 20**2, (y - 5) ** 2 + (x - 70) ** 2 < 12**2])
    around = torch.tensor([[20.5, 10.0, 60.0, 50.2], [57.0, 0.0, 80.0, 18.0]])
    cut = cut_masks(discs, torch.arange(2), around, 28)
    pasted = paste_masks(cut * 20 - 10, around, (60, 80))
    for found, disc in zip(pasted, discs, strict=True):
        assert (found & disc).sum() / (found | disc).sum() > 0.95


def test_masks_fill_exactly_their_boxes():
    around = torch.tensor([[2.0, 3.0, 7.0, 5.0], [0.4, 0.0, 0.45, 9.0], [-3.0, -3.0, 2.0, 2.0]])
    pasted = paste_masks(torch.ones(3, 28, 28), around, (10, 12))
    assert pasted[0].sum() == 5 * 2
    assert pasted[0, 3:5, 2:7].all()
    assert not pasted[1].any(), "no pixel's middle is within"
    assert pasted[2].sum() == 4
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (4, 4)).shape == (0, 4, 4)
