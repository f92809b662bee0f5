import math

import pytest
import torch

from tests_support import changed, mae_spec
from unmask.core.components import fit_pca
from unmask.core.mae import MaskedAutoencoder
from unmask.core.masking import take
from unmask.core.targets import patch_statistics
from unmask.evals.harmonic import harmonic_fill
from unmask.evals.reconstruction import HeldOutReconstruction, interpolated_statistics, masked_pixels

TINY = mae_spec(
    image_size=(16, 24),
    patch_size=(4, 4),
    channels=3,
    width=16,
    depth=1,
    heads=2,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
    mask_ratio=0.5,
)
PIXELS = changed(TINY, target="pixels")


def model_of(architecture):
    torch.manual_seed(0)
    return MaskedAutoencoder(architecture)


def held_out(n=5, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 16, 24, generator=g), torch.rand(n, 24, generator=g)


def test_the_error_is_the_mean_over_masked_pixels_at_the_given_ratio():
    model, (images, noise) = model_of(PIXELS), held_out()
    values = dict(HeldOutReconstruction(images, noise, mask_ratio=0.75, batch_size=2).run(model))

    hidden = masked_pixels(model, model.mask(noise, 0.75))[:, None].expand_as(images)
    assert hidden.float().mean() == 0.75
    patches = model.encoder.patchify(images)
    masked = model.mask(noise, 0.75).masked
    drawn = take(model.reconstruct(images, noise, 0.75) - patches, masked).square().mean().item()
    smooth = (harmonic_fill(images, ~hidden[:, 0]) - images)[hidden].square().mean().item()
    assert list(values) == ["held_out/error", "held_out/harmonic_error", "held_out/ratio"]
    assert values["held_out/error"] == pytest.approx(drawn, rel=1e-5)
    assert values["held_out/harmonic_error"] == pytest.approx(smooth, rel=1e-5)
    assert values["held_out/ratio"] == pytest.approx(drawn / smooth, rel=1e-5)


@pytest.mark.parametrize("architecture", [TINY, PIXELS])
def test_the_batch_size_changes_nothing(architecture):
    model, (images, noise) = model_of(architecture), held_out()
    runs = [dict(HeldOutReconstruction(images, noise, batch_size=b).run(model)) for b in (1, 3, 5)]
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)
    assert runs[2] == pytest.approx(runs[0], rel=1e-5)


def test_normalised_predictions_are_undone_with_what_is_visible(monkeypatch):
    model, (images, noise) = model_of(TINY), held_out()
    flat = images.mean(dim=(2, 3), keepdim=True).mean(dim=1, keepdim=True).expand_as(images)
    shifted = flat + torch.arange(5.0)[:, None, None, None]
    monkeypatch.setattr(
        model, "reconstruct", lambda images, noise, ratio: torch.zeros(len(images), 24, 48)
    )
    values = dict(HeldOutReconstruction(shifted, noise, batch_size=2).run(model))
    assert values["held_out/error"] == pytest.approx(0, abs=1e-9)


def test_statistics_of_visible_patches_are_true_and_nothing_masked_leaks():
    model, (images, noise) = model_of(TINY), held_out()
    mask = model.mask(noise, 0.75)
    found = interpolated_statistics(model, images, mask)
    true = patch_statistics(model.encoder.patchify(images))
    for some, all_true in zip(found, true, strict=True):
        assert some.shape == (5, 24, 1)
        torch.testing.assert_close(take(some, mask.visible), take(all_true, mask.visible))
        assert not torch.allclose(take(some, mask.masked), take(all_true, mask.masked))
    spoiled = images.masked_fill(masked_pixels(model, mask)[:, None], 99.0)
    for before, after in zip(found, interpolated_statistics(model, spoiled, mask), strict=True):
        assert torch.equal(before, after)


def test_deviations_are_interpolated_as_logarithms():
    model = model_of(changed(TINY, image_size=(4, 12)))
    ramp = torch.arange(4.0).expand(1, 3, 4, 4)
    images = torch.cat([ramp, torch.zeros(1, 3, 4, 4), 100 * ramp + 7], dim=3)
    mask = model.mask(torch.tensor([[0.1, 0.9, 0.2]]), 0.3)
    found = interpolated_statistics(model, images, mask)
    left, right = found.std[0, 0], found.std[0, 2]
    torch.testing.assert_close(right, 100 * left)
    torch.testing.assert_close(found.std[0, 1], (left * right).sqrt())
    torch.testing.assert_close(found.mean[0, 1], (found.mean[0, 0] + found.mean[0, 2]) / 2)


def test_the_harmonic_error_is_computed_once_per_shape_of_mask(monkeypatch):
    images, noise = held_out()
    evaluator = HeldOutReconstruction(images, noise)
    calls = []
    monkeypatch.setattr(
        "unmask.evals.reconstruction.harmonic_fill",
        lambda images, known: calls.append(1) or harmonic_fill(images, known),
    )
    first = dict(evaluator.run(model_of(PIXELS)))["held_out/harmonic_error"]
    assert dict(evaluator.run(model_of(PIXELS)))["held_out/harmonic_error"] == first
    assert len(calls) == 1
    units = changed(PIXELS, mask_unit=2)
    assert dict(evaluator.run(model_of(units)))["held_out/harmonic_error"] != first
    assert len(calls) == 2


@pytest.mark.parametrize("architecture", [TINY, PIXELS])
def test_runs_under_autocast_and_leaves_gradients_on_between_values(architecture):
    model, (images, noise) = model_of(architecture), held_out()
    evaluator = HeldOutReconstruction(images, noise)
    plain = dict(evaluator.run(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = {}
        for name, value in evaluator.run(model):
            assert torch.is_grad_enabled()
            mixed[name] = value
    assert mixed == pytest.approx(plain, rel=0.05)
    assert mixed["held_out/error"] != plain["held_out/error"]
    assert mixed["held_out/harmonic_error"] == plain["held_out/harmonic_error"]


def test_constant_images_have_no_finite_ratio():
    images, noise = torch.zeros(2, 3, 16, 24), held_out(2)[1]
    assert dict(HeldOutReconstruction(images, noise).run(model_of(PIXELS)))["held_out/ratio"] == math.inf


@pytest.mark.parametrize(("images", "rows"), [(3, 2), (0, 0)])
def test_images_without_their_noise_are_refused(images, rows):
    with pytest.raises(ValueError, match="one row for each"):
        HeldOutReconstruction(torch.zeros(images, 3, 16, 24), torch.zeros(rows, 24))


def test_predicted_coefficients_are_measured_in_pixels():
    torch.manual_seed(0)
    model, (images, noise) = model_of(changed(TINY, target="pca")), held_out()
    model.target.fit(fit_pca(torch.randn(200, 48), 6))
    error = dict(HeldOutReconstruction(images, noise).run(model))["held_out/error"]
    drawn = model.reconstruct(images, noise, 0.75) @ model.target.basis + model.target.mean
    masked = model.mask(noise, 0.75).masked
    wanted = take(model.encoder.patchify(images), masked)
    assert error == pytest.approx((take(drawn, masked) - wanted).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("target", ["pixels", "normalized-pixels"])
def test_the_value_of_a_pixel_without_data_changes_no_score(target):
    model, (images, noise) = model_of(changed(TINY, target=target)), held_out()
    valid = torch.rand(5, 3, 16, 24, generator=torch.Generator().manual_seed(2)) < 0.7
    valid[0], valid[1, 0] = False, False
    scores = []
    for filler in (0.0, 1e6, math.nan):
        spoiled = images.where(valid, torch.full_like(images, filler))
        evaluator = HeldOutReconstruction(spoiled, noise, valid=valid)
        scores.append(dict(evaluator.run(model)))
        assert (
            evaluator.totals(model)[2]
            == valid[masked_pixels(model, model.mask(noise, 0.75))[:, None].expand_as(valid)].sum()
        )
    assert scores[0] == scores[1] == scores[2]
    assert all(map(math.isfinite, scores[0].values()))
    nothing = HeldOutReconstruction(images, noise, valid=torch.zeros_like(valid))
    assert dict(nothing.run(model)) == {}
