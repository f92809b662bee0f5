"""Mask R-CNN: one image's losses and detections depend on nothing but the image and its draws."""

import numpy as np
import pytest
import torch
from torch import nn

from unmask.core.spec import ViTSpec
from unmask.models.detector import Detector, valid_patches
from unmask.models.detector_spec import DetectorSpec, group_ends
from unmask.models.regions import paste_masks

CANVAS = (96, 64)
SIZES = [(96, 64), (70, 41), (50, 64)]
ENCODER = ViTSpec(image_size=CANVAS, patch_size=(16, 16), channels=3, width=32, depth=4, heads=2)
SMALL = {
    "classes": ("cat", "dog", "cup"),
    "window": 2,
    "global_blocks": 2,
    "channels": 16,
    "head_norm": "none",
    "head_width": 24,
    "anchor_scale": 4.0,
    "sampled_anchors": 32,
    "sampled_proposals": 24,
    "proposals": 30,
    "score_threshold": 0.15,
    "detections": 7,
}
VITDET = {"pyramid": "simple", "relative_position": "decomposed", "head_norm": "layer"}


def detector(**changes) -> Detector:
    torch.manual_seed(0)
    made = DetectorSpec(encoder=ENCODER, **{**SMALL, **changes}).build()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return made


def images(sizes=SIZES, canvas=CANVAS) -> torch.Tensor:
    """Each image has pixels of its own; zeros pad it."""
    batch = torch.zeros(len(sizes), 3, *canvas)
    for i, (h, w) in enumerate(sizes):
        g = torch.Generator().manual_seed(i)
        batch[i, :, :h, :w] = torch.randn(3, h, w, generator=g)
    return batch


def targets(sizes=SIZES) -> list[dict[str, torch.Tensor]]:
    """Two objects, one, and none."""
    made = []
    for (h, w), boxes in zip(
        sizes, [[(5, 9, 40, 60), (30, 2, 62, 30)], [(3, 3, 33, 50)], []], strict=True
    ):
        masks = torch.zeros(len(boxes), h, w, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left : (left + right) // 2] = True
        made.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.arange(len(boxes)) + 1,
                "masks": masks,
            }
        )
    return made


def rngs(count=3) -> list[np.random.Generator]:
    return [np.random.default_rng((7, i)) for i in range(count)]


@pytest.mark.parametrize("kind", [{}, VITDET])
def test_the_loss_of_a_batch_is_that_of_its_images(kind):
    model, batch, truth = detector(**kind), images(), targets()
    together = model(batch, SIZES, truth, rngs())
    assert set(together) == {"objectness", "proposals", "classes", "boxes", "masks"}
    for i in range(3):
        alone = model(batch[i : i + 1], SIZES[i : i + 1], truth[i : i + 1], rngs()[i : i + 1])
        for name, value in alone.items():
            assert value.item() == pytest.approx(together[name][i].item(), rel=1e-4, abs=1e-6)
    assert (together["masks"] > 0).tolist() == [True, True, False]
    assert together["boxes"][2] == 0


@pytest.mark.parametrize("kind", [{}, VITDET, {"window": None, "relative_position": "none"}])
def test_neither_losses_nor_detections_depend_on_padding(kind):
    model, truth = detector(**kind).eval(), targets()
    for i, (h, w) in enumerate(SIZES):
        padded = model(images()[i : i + 1], SIZES[i : i + 1])[0]
        alone = model(images()[i : i + 1, :, :h, :w], SIZES[i : i + 1])[0]
        assert padded.keys() == alone.keys() == {"boxes", "labels", "scores", "masks"}
        assert len(alone["boxes"]) > 0
        for name, value in alone.items():
            torch.testing.assert_close(padded[name], value, atol=1e-3, rtol=1e-3)
        inputs = [SIZES[i : i + 1], truth[i : i + 1]]
        padded = model(images()[i : i + 1], *inputs, rngs(1))
        alone = model(images()[i : i + 1, :, :h, :w], *inputs, rngs(1))
        for name, value in alone.items():
            torch.testing.assert_close(padded[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "norm"), [({}, "batch"), (VITDET, "layer")])
def test_every_parameter_learns_from_a_batch(kind, norm):
    model = detector(**{**kind, "head_norm": norm, "sampled_anchors": 2000})
    losses = model(images(), SIZES, targets(), rngs())
    sum(losses.values()).mean().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []
    still = {n for n, p in trained.items() if not p.grad.any()}
    assert still <= {"encoder.pos_embed"}


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_an_image_without_objects_trains_every_part(norm):
    """So that all processes wait for the same gradients, and for the same BatchNorms."""
    model, batch = detector(head_norm=norm), images()[2:]
    losses = model(batch, SIZES[2:], targets()[2:], rngs(1))
    sum(losses.values()).mean().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []


def test_nothing_found():
    found = detector(score_threshold=1.0).eval()(images(), SIZES)
    assert [len(image["boxes"]) for image in found] == [0, 0, 0]
    assert found[0]["masks"].shape == (0, 28, 28)


def test_boxes_alone_and_a_single_class():
    model, truth = detector(classes=("thing",), masks=False), targets()
    for target in truth:
        del target["masks"]
        target["labels"].zero_()
    assert set(model(images(), SIZES, truth, rngs())) == {"objectness", "proposals", "classes", "boxes"}
    found = model.eval()(images(), SIZES)
    assert all(image.keys() == {"boxes", "labels", "scores"} for image in found)
    assert not any(image["labels"].any() for image in found)


def test_detections_are_within_their_images_best_first():
    found = detector(score_threshold=0.01).eval()(images(), SIZES)
    for image, (h, w) in zip(found, SIZES, strict=True):
        n = len(image["scores"])
        assert 0 < n <= 7
        assert image["masks"].shape == (n, 28, 28)
        assert image["scores"].equal(image["scores"].sort(descending=True).values)
        assert (image["boxes"] >= 0).all()
        assert (image["boxes"] <= torch.tensor([w, h, w, h])).all()
        assert image["labels"].max() < 3


def test_nothing_comes_from_the_global_generators():
    model = detector()
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        losses.append(model(images(), SIZES, targets(), rngs()))
    assert all(losses[0][name].equal(losses[1][name]) for name in losses[0])
    other = model(images(), SIZES, targets(), [np.random.default_rng(i) for i in range(3)])
    assert not all(losses[0][name].equal(other[name]) for name in other)


def test_bfloat16_on_any_machine():
    model = detector(**VITDET)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images(), SIZES, targets(), rngs())
        found = model.eval()(images(), SIZES)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in losses.values())
    assert found[0]["boxes"].dtype == torch.float32


@pytest.mark.slow
def test_learns_two_squares():
    """A few steps on one image, and its objects are found."""
    torch.manual_seed(0)
    model = detector(pyramid="simple", head_norm="layer", relative_position="none")
    image = torch.full((1, 3, *CANVAS), -0.5)
    image[:, 0, 10:50, 4:36], image[:, 1, 40:88, 36:60] = 2.0, 2.0
    boxes = torch.tensor([[4.0, 10, 36, 50], [36.0, 40, 60, 88]])
    masks = torch.zeros(2, *CANVAS, dtype=torch.bool)
    masks[0, 10:50, 4:36], masks[1, 40:88, 36:60] = True, True
    truth = [{"boxes": boxes, "labels": torch.tensor([0, 2]), "masks": masks}]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(60):
        optimizer.zero_grad()
        losses = model(image, [CANVAS], truth, [np.random.default_rng(step)])
        sum(losses.values()).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    found = model.eval()(image, [CANVAS])[0]
    pasted = paste_masks(found["masks"], found["boxes"], CANVAS)
    for label, box, mask in zip((0, 2), boxes, masks, strict=True):
        best = int(torch.nonzero(found["labels"] == label)[0])
        torch.testing.assert_close(found["boxes"][best], box, atol=4.0, rtol=0)
        assert (pasted[best] & mask).sum() / (pasted[best] | mask).sum() > 0.7


def test_which_patches_are_valid():
    assert valid_patches([(3, 2), (3, 2)], (3, 2), torch.device("cpu")) is None
    valid = valid_patches([(3, 2), (1, 2)], (3, 3), torch.device("cpu"))
    assert valid[0].tolist() == [[True, True, False]] * 3
    assert valid[1].tolist() == [[True, True, False], [False] * 3, [False] * 3]


def test_spec():
    def spec(**changes) -> DetectorSpec:
        return DetectorSpec(**{"encoder": ENCODER, "classes": ("a",), **changes})

    assert spec().windows(12) == [16, 16, None] * 4
    assert spec(window=14).windows(24)[5::6] == [None] * 4
    assert group_ends(12, 4) == [3, 6, 9, 12]
    with pytest.raises(ValueError, match="at least one class"):
        spec(classes=())
    with pytest.raises(ValueError, match="called 'a'"):
        spec(classes=("a", "a"))
    with pytest.raises(ValueError, match=r"--detector.pyramid simple --detector.global-blocks 2"):
        spec().windows(2)
    with pytest.raises(ValueError, match=r"write --detector.global-blocks 2"):
        spec(pyramid="simple").windows(2)
    assert spec(pyramid="simple", global_blocks=2).windows(2) == [None, None]


def test_an_object_with_an_empty_mask_has_none_that_is_known():
    """Only its box is learnt; the other object's mask counts as if it were alone."""
    model, batch, truth = detector(), images(), targets()
    truth[0]["masks"][1] = False
    before = model(batch, SIZES, truth, rngs())
    truth[1]["masks"][:] = False
    after = model(batch, SIZES, truth, rngs())
    assert before["masks"][1] > 0
    assert after["masks"][1] == 0
    assert after["masks"][0].item() == pytest.approx(before["masks"][0].item(), rel=1e-5)
    assert torch.equal(before["boxes"], after["boxes"])


def test_ignored_regions_are_no_background_of_a_detector():
    model, batch, truth = detector(), images(), targets()
    crowded = [{**target, "ignored": torch.tensor([[-500.0, -500, 500, 500]])} for target in truth]
    losses = model(batch, SIZES, crowded, rngs())
    assert losses["objectness"][2] == 0, "an image without objects and without background"
    sum(losses.values()).mean().backward()
