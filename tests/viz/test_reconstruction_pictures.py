import numpy as np
import pytest
import torch

from tests_support import changed, mae_spec
from unmask.core.mae import MaskedAutoencoder
from unmask.core.targets import patch_statistics
from unmask.evals.reconstruction import masked_pixels
from unmask.viz import reconstruction
from unmask.viz.reconstruction import (
    BORROWED_STATISTICS,
    LIGHT_GREY,
    MID_GREY,
    mask_ratio_strip,
    reconstruct,
    reconstruction_grid,
)
from unmask.viz.tiles import Display, displayable, draw

PIXELS = mae_spec(
    image_size=(12, 16),
    patch_size=(4, 4),
    channels=3,
    width=16,
    depth=1,
    heads=2,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
    mask_ratio=0.5,
    target="pixels",
)
NORMALIZED = changed(PIXELS, target="normalized-pixels")
SCALE = {"display": Display((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))}


def model_of(architecture):
    torch.manual_seed(0)
    return MaskedAutoencoder(architecture)


def batch(n=3):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 12, 16, generator=g), torch.rand(n, 12, generator=g)


@pytest.fixture
def sheets(monkeypatch):
    """What the pictures are drawn from, in order."""
    seen = []
    monkeypatch.setattr(reconstruction, "draw", lambda sheet: seen.append(sheet) or draw(sheet))
    return seen


@pytest.mark.parametrize("architecture", [PIXELS, NORMALIZED])
def test_views_agree_with_the_mask_pixel_for_pixel(architecture):
    model, (images, noise) = model_of(architecture), batch()
    views = reconstruct(model, images, noise, **SCALE)
    hidden = masked_pixels(model, model.mask(noise)).numpy()
    assert (views.original == displayable(images, **SCALE)).all()
    assert (views.masked[hidden] == MID_GREY).all()
    assert (views.masked[~hidden] == views.original[~hidden]).all()
    assert (views.pasted[~hidden] == views.original[~hidden]).all()
    assert (views.pasted[hidden] == views.reconstruction[hidden]).all()
    assert (views.reconstruction[~hidden] != views.original[~hidden]).mean() > 0.5
    assert hidden.mean() == 0.5


def test_another_mask_ratio_hides_more():
    model, (images, noise) = model_of(PIXELS), batch()
    views = reconstruct(model, images, noise, **SCALE, mask_ratio=0.75)
    assert (views.masked == MID_GREY).all(axis=-1).mean() == pytest.approx(0.75, abs=0.01)


def test_normalised_predictions_are_undone_with_the_originals_statistics():
    model, (images, noise) = model_of(NORMALIZED), batch()
    model.reconstruct = lambda images, noise, ratio: torch.ones(len(images), 12, 48)
    mean, std = patch_statistics(model.encoder.patchify(images))
    level = (mean + std)[0, 0, 0]
    first_patch = reconstruct(model, images, noise, **SCALE).reconstruction[0, :4, :4]
    expected = displayable(level.expand(1, 3, 4, 4), **SCALE)[0]
    np.testing.assert_allclose(first_patch.astype(int), expected, atol=1)


def test_a_perfect_prediction_draws_the_original():
    model, (images, noise) = model_of(NORMALIZED), batch()
    model.reconstruct = lambda images, noise, ratio: model.target.wanted(model.encoder.patchify(images))
    views = reconstruct(model, images, noise, **SCALE)
    np.testing.assert_allclose(views.reconstruction.astype(int), views.original, atol=1)


@pytest.mark.parametrize(("n", "rows", "groups"), [(1, 1, 1), (4, 4, 1), (5, 3, 2), (8, 4, 2)])
def test_a_grid_has_a_row_per_image_and_grows_sideways(sheets, n, rows, groups):
    model, (images, noise) = model_of(PIXELS), batch(n)
    reconstruction_grid(model, images, noise, **SCALE, title="step 7")
    (sheet,) = sheets
    views = reconstruct(model, images, noise, **SCALE)
    assert len(sheet.rows) == rows
    assert sheet.headings[:4] == ("original", "masked", "reconstruction", "with visible patches")
    assert all(len(row) == len(sheet.headings) == 4 * groups for row in sheet.rows)
    for place in range(rows * groups):
        four = sheet.rows[place % rows][4 * (place // rows) :][:4]
        for tile, view in zip(four, views, strict=True):
            assert tile is None if place >= n else (tile == view[place]).all()
    assert sheet.title == "step 7"


@pytest.mark.parametrize("architecture", [PIXELS, NORMALIZED])
def test_footnotes_say_what_is_visible_and_what_is_borrowed(sheets, architecture):
    model, (images, noise) = model_of(architecture), batch()
    reconstruction_grid(model, images, noise, **SCALE)
    reconstruction_grid(model, images, noise, **SCALE, mask_ratio=0.75)
    mask_ratio_strip(model, images, noise, **SCALE)
    footnotes = [sheet.footnote for sheet in sheets]
    assert footnotes[0].startswith("50 % masked, 6 of 12 patches visible.")
    assert footnotes[1].startswith("75 % masked, 3 of 12 patches visible.")
    borrowed = architecture is NORMALIZED
    assert [BORROWED_STATISTICS in footnote for footnote in footnotes] == [borrowed] * 3


def test_a_strip_shows_plain_output_under_what_was_seen(sheets):
    model, (images, noise) = model_of(PIXELS), batch(2)
    mask_ratio_strip(model, images, noise, **SCALE, ratios=(0.5, 0.75, 0.95))
    (sheet,) = sheets
    assert sheet.headings == ["original", "50 %, 6 patches visible", "75 %, 3 patches visible"]
    for b in range(2):
        above, below = sheet.rows[2 * b : 2 * b + 2]
        for column, ratio in enumerate((0.5, 0.75), start=1):
            views = reconstruct(model, images, noise, **SCALE, mask_ratio=ratio)
            assert (above[column] == views.masked[b]).all()
            assert (below[column] == views.reconstruction[b]).all()
        assert (above[0] == views.original[b]).all()
        assert below[0] is None


def test_a_strip_without_any_possible_ratio_is_refused():
    model, (images, noise) = model_of(PIXELS), batch()
    with pytest.raises(ValueError, match="give a lower ratio"):
        mask_ratio_strip(model, images, noise, **SCALE, ratios=(0.95, 0.99))


def test_pictures_of_one_channel_and_of_many():
    for channels in (1, 2, 6):
        model = model_of(changed(PIXELS, channels=channels))
        images, noise = torch.randn(1, channels, 12, 16), torch.rand(1, 12)
        picture = reconstruction_grid(
            model, images, noise, display=Display((0.5,) * channels, (0.2,) * channels)
        )
        pixels = np.asarray(picture).astype(int)
        assert (np.ptp(pixels, axis=-1).max() == 0) == (channels < 3)


def test_pixels_without_data_are_one_light_grey():
    model, (images, noise) = model_of(NORMALIZED), batch()
    valid = torch.ones_like(images, dtype=torch.bool)
    valid[:, :, :5, 3:9] = False
    views = [
        reconstruct(model, images.where(valid, torch.full_like(images, v)), noise, valid=valid, **SCALE)
        for v in (7.0, torch.nan)
    ]
    for one, other in zip(*views, strict=True):
        assert (one == other).all()
        assert (one[:, :5, 3:9] == LIGHT_GREY).all()
    assert (views[0].original[:, 6:] == displayable(images, **SCALE)[:, 6:]).all()
