"""Overlays, error maps, palettes and label maps."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests_support import mae_spec
from unmask.models.segmenter_spec import SegmenterSpec
from unmask.viz.confusion import confusion_figure
from unmask.viz.palette import UNLABELLED, WRONG, as_seen, palette, with_legend
from unmask.viz.segmentation import (
    ClassColours,
    Scene,
    colours_of,
    errors_of,
    label_image,
    overlaid,
    segmentation_sheet,
)

NAMES = ["sky", "a name " * 40, "new\nline", "", "猫 🙂", "unbreakable" * 30]


OURS = ClassColours(palette(len(NAMES)))
ENCODER = mae_spec(
    image_size=(8, 8), patch_size=(4, 4), channels=3, width=8, depth=1, heads=1,
    decoder_width=8, decoder_depth=1, decoder_heads=1,
).encoder  # fmt: skip


def segmenter(*classes: str, colours=None) -> SegmenterSpec:
    return SegmenterSpec(encoder=ENCODER, classes=classes, colours=colours)


def scene(height: int = 24, width: int = 32, classes: int = 6) -> Scene:
    rng = np.random.default_rng(height)
    image = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
    truth = np.arange(height * width).reshape(height, width) * classes // (height * width)
    truth[:2] = 255
    predicted = np.where(rng.random(truth.shape) < 0.2, rng.integers(classes, size=truth.shape), truth)
    return Scene(image, np.where(truth == 255, 0, predicted), truth)


def colours_in(picture: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}


@pytest.mark.parametrize(("classes", "least"), [(7, 0.07), (20, 0.07), (150, 0.02)])
def test_colours_differ_for_every_kind_of_colour_vision(classes, least):
    seen = as_seen(palette(classes))
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distances[~np.eye(len(seen), dtype=bool)].min() > least


def test_the_first_colours_do_not_depend_on_how_many_there_are():
    assert np.array_equal(palette(150)[:20], palette(20))
    assert len({tuple(colour) for colour in palette(512).tolist()}) == 512
    assert np.array_equal(palette(600)[512:], palette(88))


def test_oklab_of_white_and_red():
    white, red = as_seen(np.array([[255, 255, 255], [255, 0, 0]]))[:, 0]
    np.testing.assert_allclose(white, [1, 0, 0], atol=1e-3)
    np.testing.assert_allclose(red, [0.628, 0.225, 0.126], atol=1e-3)


def test_overlays_colour_classes_and_leave_what_has_no_label():
    image = np.full((4, 6, 3), 100, np.uint8)
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 255
    made = overlaid(image, labels, ClassColours(palette(2)))
    assert (made[:, 3:] == 100).all()
    assert np.array_equal(made[0, 0], np.round(35 + 0.65 * palette(2)[0]))
    assert np.array_equal(made[0, 0], made[3, 2])


def test_the_datas_own_colours_are_used_if_they_tell_all_classes_apart():
    own = ((0, 0, 0), (128, 64, 128), (255, 255, 255))
    chosen = colours_of(segmenter("background", "road", "roof", colours=own))
    assert chosen.values.dtype == np.uint8
    assert (chosen.values.tolist(), chosen.untinted) == ([list(colour) for colour in own], None)
    for given in (None, ((0, 0, 0), (9, 9, 9), (9, 9, 9))):
        ours = colours_of(segmenter("a", "b", "c", colours=given))
        assert (ours.values.tolist(), ours.untinted) == (palette(3).tolist(), None)


@pytest.mark.parametrize("name", ["background", "_background_", "Background"])
def test_a_background_without_a_colour_is_not_tinted(name):
    """In overlays it is the photograph in grey, and in the legend white."""
    colours = colours_of(segmenter("car", name))
    assert (colours.values.tolist(), colours.untinted) == ([palette(1)[0].tolist(), [255] * 3], 1)
    assert palette(2)[1].tolist() != [255] * 3, "the palette of others is left alone"
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 1] = 100
    labels = np.ones((4, 6), np.uint8)
    labels[:, 3:], labels[3, 1:] = 0, 255
    made = overlaid(image, labels, colours)
    assert (made[:3, :3] == 59).all(), "0.587 of green"
    assert np.array_equal(made[0, 5], np.round(0.35 * 58.7 + 0.65 * palette(1)[0]))
    assert np.array_equal(made[3, 1:], image[3, 1:]), "no label"
    plain = colours._replace(untinted=None)
    named = segmentation_sheet([Scene(image, labels)], ["car", name], colours)
    tinted = segmentation_sheet([Scene(image, labels)], ["car", f"{name} (not tinted)"], plain)
    legend = np.s_[-60:]
    assert np.array_equal(np.asarray(named)[legend], np.asarray(tinted)[legend])


def test_errors_stand_out_and_unlabelled_pixels_are_none():
    image = np.full((1, 3, 3), 100, np.uint8)
    made = errors_of(image, np.array([[0, 1, 1]]), np.array([[0, 0, 255]]))
    assert made[0, 0].tolist() == [201, 201, 201]
    assert np.abs(made[0, 1] - np.array(WRONG)).max() < 30
    assert tuple(made[0, 2]) == UNLABELLED


def test_a_sheet_of_scenes_of_several_sizes_names_the_classes_on_it():
    made = segmentation_sheet(
        [scene(), scene(300, 200), scene(30, 90)], NAMES, OURS, title="Held-out images"
    )
    shown = colours_in(made)
    assert {tuple(colour) for colour in palette(6).tolist()} <= shown
    assert {WRONG, UNLABELLED} <= shown
    edges = [np.asarray(made)[place] for place in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:])]
    assert all((edge == 255).all() for edge in edges)
    assert made.width > 4 * 256


def test_scenes_without_truth_show_the_prediction_alone_and_many_classes_are_counted():
    given = scene(classes=6)._replace(truth=None)
    assert not {WRONG, UNLABELLED} & colours_in(segmentation_sheet([given], NAMES, OURS))
    many = Scene(given.image, np.arange(24 * 32).reshape(24, 32) % 60)
    tall = segmentation_sheet([many], [f"class {i}" for i in range(60)], ClassColours(palette(60)))
    assert tall.height < 1000


def test_many_scenes_without_truth_stand_side_by_side():
    scenes = [scene(30 + i, 40)._replace(truth=None) for i in range(32)]
    made = segmentation_sheet(scenes, NAMES, OURS)
    assert made.height < 2 * made.width
    few = segmentation_sheet(scenes[:4], NAMES, OURS)
    assert few.width < made.width / 2


def test_a_legend_is_as_wide_as_its_names_need():
    narrow = Image.new("RGB", (60, 20), "white")
    made = with_legend(narrow, ["a rather long name", "b"], palette(2), "and more")
    assert made.width > 150
    assert {tuple(colour) for colour in palette(2).tolist()} <= colours_in(made)


@pytest.mark.parametrize(("classes", "mode"), [(6, "P"), (256, "P"), (300, "I;16")])
def test_label_maps_survive_as_png(classes, mode):
    labels = np.arange(20).reshape(4, 5) * (classes - 1) // 19
    file = io.BytesIO()
    label_image(labels, palette(classes)).save(file, "PNG")
    read = Image.open(file)
    assert read.mode == mode
    assert np.array_equal(np.asarray(read), labels)
    if mode == "P":
        assert read.convert("RGB").getpixel((4, 3)) == tuple(palette(classes)[-1])


def test_confusion_of_pixels_says_pixels():
    few = confusion_figure(torch.tensor([[3, 1], [0, 2]]), ["a", "b"], counted="pixels")
    many = confusion_figure(torch.tensor([[3, 1], [0, 2]]) * 10**7, ["a", "b"], counted="pixels")
    assert few.size == many.size
