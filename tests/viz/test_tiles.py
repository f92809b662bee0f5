import numpy as np
import pytest
import torch

from unmask.viz.tiles import FRAME, INK, Display, Sheet, displayable, draw


def tile(value, height=12, width=12):
    return np.full((height, width, 3), value, dtype=np.uint8)


RED = (200, 0, 0)
"""Unlike grey, no shade that the edges of letters have."""


def count(picture, colour):
    return int((np.asarray(picture) == colour).all(axis=-1).sum())


def is_blank(pixels):
    return bool((pixels == 255).all())


def test_normalisation_is_undone_per_channel_and_clipped():
    values = torch.tensor([0.2, 0.5, 0.9])
    mean, std = torch.tensor([0.1, 0.5, 0.3]), torch.tensor([0.2, 0.3, 0.5])
    images = ((values - mean) / std)[None, :, None, None].expand(2, 3, 4, 5)
    shown = displayable(images, Display(tuple(mean.tolist()), tuple(std.tolist())))
    assert shown.shape == (2, 4, 5, 3)
    assert (shown == [51, 128, 230]).all()
    assert (
        displayable(images * 100, Display(tuple(mean.tolist()), tuple(std.tolist()))) == [255, 128, 255]
    ).all()
    assert (displayable(images * torch.nan, Display((0, 0, 0), (1, 1, 1))) == 0).all()


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 51, 102]), (5, [0, 51, 102])]
)
def test_channels_on_display(channels, expected):
    images = (torch.arange(channels) / 5.0)[None, :, None, None].expand(1, channels, 2, 2)
    shown = displayable(images, Display((0.0,) * channels, (1.0,) * channels))
    assert (shown == expected).all()


def test_numbers_per_channel_are_required():
    with pytest.raises(
        ValueError, match="images of 3 channels came with 1 means and 3 standard deviations"
    ):
        displayable(torch.zeros(1, 3, 2, 2), Display((0.5,), (1, 1, 1)))


def test_small_tiles_are_enlarged_by_a_whole_factor_and_empty_places_stay_white():
    picture = draw(Sheet(rows=[[tile(10), None], [tile(20), tile(30)]], headings=["a", "b"]))
    assert [count(picture, value) for value in (10, 20, 30)] == [192 * 192] * 3
    wide = draw(Sheet(rows=[[tile(10, 20, 100)]], headings=["a"]))
    assert count(wide, 10) == 20 * 100
    large = draw(Sheet(rows=[[tile(10, 300, 200)]], headings=["a"]))
    assert count(large, 10) == 300 * 200


LONG = "a title that needs many more words than any tile is wide, and so has to wrap " * 3


@pytest.mark.parametrize(
    "texts",
    [
        {"title": LONG, "footnote": LONG},
        {"title": "unbreakable" * 40},
        {"footnote": "unbreakable" * 40},
        {"headings": ["unbreakable" * 10, "short"]},
        {"headings": [LONG, LONG], "row_labels": [LONG]},
    ],
)
def test_no_text_is_cut(texts):
    sheet = {"headings": ["one", "two"], **texts}
    picture = draw(Sheet(rows=[[tile(RED), tile(RED)]], **sheet))
    pixels = np.asarray(picture)
    margins = pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:]
    assert all(is_blank(margin) for margin in margins)
    assert count(picture, RED) == 2 * 192 * 192, "text runs into a tile"
    plain = draw(Sheet(rows=[[tile(RED), tile(RED)]], headings=["one", "two"]))
    assert count(picture, INK) > 2 * count(plain, INK)


def test_text_of_neighbouring_columns_does_not_touch():
    picture = draw(Sheet(rows=[[tile(RED), tile(RED)]], headings=["wide" * 20, "wide" * 20]))
    pixels = np.asarray(picture)
    red = np.flatnonzero((pixels == RED).all(axis=-1).any(axis=0))
    second = red[192]
    assert second > red[191] + 192, "the heading widens its column"
    assert is_blank(pixels[:, second - 5 : second])


def test_groups_stand_apart():
    rows = [[tile(10), tile(20)]]
    together = draw(Sheet(rows=rows, headings=["a", "b"]))
    apart = draw(Sheet(rows=rows, headings=["a", "b"], columns_per_group=1))
    assert apart.width > together.width
    stacked = [[tile(10)], [tile(20)]]
    assert (
        draw(Sheet(rows=stacked, headings=["a"], rows_per_group=1)).height
        > draw(Sheet(rows=stacked, headings=["a"])).height
    )


@pytest.mark.parametrize(("value", "framed"), [(255, True), (240, True), (128, False), (0, False)])
def test_pale_images_get_a_frame(value, framed):
    picture = draw(Sheet(rows=[[tile(value)]], headings=["a"]))
    assert count(picture, FRAME) == (4 * (12 * 16 + 1) if framed else 0)
