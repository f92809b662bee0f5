"""Reconstruction targets."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import Tensor

from unmask.core.components import PCATarget, fit_pca
from unmask.core.targets import (
    Context,
    NormalizedPixelTarget,
    PixelTarget,
    Target,
    TokenTarget,
    patch_statistics,
)

P = 12
quick = settings(max_examples=40, deadline=None, derandomize=True)


def whole_basis(values: int = P) -> PCATarget:
    """All components of some patches: nothing is lost."""
    target = PCATarget(values, values)
    target.fit(fit_pca(torch.randn(60, values, generator=torch.Generator().manual_seed(0)), values))
    return target


def targets() -> list[Target]:
    return [PixelTarget(P), NormalizedPixelTarget(P), whole_basis()]


@pytest.mark.parametrize("target", targets(), ids=lambda target: type(target).__name__)
@given(scale=st.sampled_from([0.0, 1e-4, 1.0, 30.0]), seed=st.integers(0, 100))
@quick
def test_round_trip(target, scale, seed):
    patches = scale * torch.randn(2, 3, P, generator=torch.Generator().manual_seed(seed)) + 0.5
    context = Context(statistics=patch_statistics(patches))
    back = target.pixels(target.wanted(patches), context)
    torch.testing.assert_close(back, patches, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0])
def test_normalized_pixels_use_the_unbiased_variance_with_a_floor(scale):
    torch.manual_seed(0)
    patches = (scale * torch.randn(2, 3, 5) + 1).double()
    x = patches.numpy()
    mean = x.mean(-1, keepdims=True)
    std = np.sqrt(((x - mean) ** 2).sum(-1, keepdims=True) / 4 + 1e-6)
    np.testing.assert_allclose(
        NormalizedPixelTarget(5).wanted(patches.float()), (x - mean) / std, rtol=2e-2, atol=1e-3
    )
    np.testing.assert_allclose(patch_statistics(patches.float()).mean, mean, rtol=1e-6)
    np.testing.assert_allclose(patch_statistics(patches.float()).std, std, rtol=1e-3)


def test_a_uniform_patch_becomes_zeros():
    uniform = torch.full((1, 2, 6), 0.25)
    assert torch.equal(NormalizedPixelTarget(6).wanted(uniform), torch.zeros(1, 2, 6))


def test_normalized_pixels_need_statistics():
    with pytest.raises(AssertionError, match="without statistics"):
        NormalizedPixelTarget(3).pixels(torch.zeros(1, 2, 3), Context())


def test_squared_error_is_a_float32_mean_over_all_values():
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 3, 4)
    target = PixelTarget(4)
    loss = target.loss(a, b)
    np.testing.assert_allclose(loss.mean, ((a - b).numpy() ** 2).mean(), rtol=1e-5)
    assert loss.patches == 6
    half = target.loss(a.bfloat16(), b.bfloat16()).mean
    assert half.dtype == torch.float32
    assert half == target.loss(a.bfloat16().float(), b.bfloat16().float()).mean


# Principal components


def patches_with_separated_eigenvalues(n: int, values: int) -> Tensor:
    g = torch.Generator().manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(values, values, generator=g))
    scales = 1.3 ** -torch.arange(values, dtype=torch.float32)
    return 3 + torch.randn(n, values, generator=g) * scales @ rotation.mT


def test_components_are_those_of_scikit_learn():
    patches = patches_with_separated_eigenvalues(4000, 24)
    ours, theirs = fit_pca(patches, 10), PCA(10, svd_solver="full").fit(patches.numpy())
    cosines = (ours.basis.numpy() * theirs.components_).sum(axis=1)
    assert (np.abs(cosines) >= 0.999).all(), cosines
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=1e-5)
    target = PCATarget(24, 10)
    target.fit(ours)
    wanted = np.abs(target.wanted(patches[None])[0].numpy())
    np.testing.assert_allclose(wanted, np.abs(theirs.transform(patches.numpy())), atol=1e-3)


def test_components_do_not_depend_on_the_order_of_patches():
    patches = patches_with_separated_eigenvalues(300, 8)
    ours, shuffled = fit_pca(patches, 3), fit_pca(patches[torch.randperm(300)], 3)
    torch.testing.assert_close(ours.basis, shuffled.basis)


def test_fewer_patches_than_components():
    with pytest.raises(ValueError, match=r"10 patches do not have 12 .* --target.components 5"):
        fit_pca(torch.randn(10, 30), 12)


def test_the_components_are_saved_with_the_weights():
    target, read = whole_basis(), PCATarget(P, P)
    read.load_state_dict(target.state_dict())
    patches = torch.randn(1, 2, P)
    assert torch.equal(read.wanted(patches), target.wanted(patches))
    assert PCATarget(P, P).wanted(patches).isnan().all(), "without being fitted it must not train"


# Tokens


def test_the_loss_on_tokens_is_the_cross_entropy():
    torch.manual_seed(0)
    prediction, ids = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    by_hand = -prediction.log_softmax(-1).gather(2, ids[..., None]).mean()
    loss = TokenTarget(5).loss(prediction, ids)
    torch.testing.assert_close(loss.mean, by_hand)
    assert loss.patches == 6


def test_tokens_are_drawn_by_their_tokenizer():
    target, prediction = TokenTarget(3), torch.tensor([[[0.1, 0.7, 0.2], [3.0, 2.0, 1.0]]])
    drawn = target.pixels(prediction, Context(draw=lambda ids: ids[..., None].float().expand(-1, -1, 4)))
    assert drawn[..., 0].tolist() == [[1.0, 0.0]]
    with pytest.raises(AssertionError, match="without their tokenizer"):
        target.pixels(prediction, Context())
    with pytest.raises(ValueError, match="give the model their ids as `wanted`"):
        target.wanted(torch.zeros(1, 2, 4))


# Pixels that do not count


@pytest.mark.parametrize("target", targets(), ids=lambda target: type(target).__name__)
def test_all_pixels_valid_is_as_if_nothing_were_said(target):
    torch.manual_seed(0)
    patches, prediction = torch.randn(2, 3, P), torch.randn(2, 3, P)
    everything = torch.ones(2, 3, P, dtype=torch.bool)
    plain = target.loss(prediction, target.wanted(patches))
    printed = target.loss(prediction, target.wanted(patches, everything), everything)
    torch.testing.assert_close(printed.mean, plain.mean)
    assert printed.patches == plain.patches == 6


def test_the_mean_is_over_the_values_that_count():
    torch.manual_seed(0)
    prediction, wanted, valid = torch.randn(2, 3, P), torch.randn(2, 3, P), torch.rand(2, 3, P) < 0.4
    loss = PixelTarget(P).loss(prediction, wanted, valid)
    torch.testing.assert_close(loss.mean, (prediction - wanted).square()[valid].mean())
    assert loss.patches == pytest.approx(valid.sum() / P)


def test_statistics_of_the_values_that_count():
    torch.manual_seed(0)
    patches, valid = torch.randn(1, 2, P), torch.rand(1, 2, P) < 0.5
    mean, std = patch_statistics(patches.where(valid, math.nan), valid)
    for n in range(2):
        some = patches[0, n][valid[0, n]]
        torch.testing.assert_close(mean[0, n, 0], some.mean())
        torch.testing.assert_close(std[0, n, 0], (some.var() + 1e-6).sqrt())


def test_nothing_that_counts_is_no_loss():
    prediction = torch.randn(1, 2, P, requires_grad=True)
    nothing = torch.zeros(1, 2, P, dtype=torch.bool)
    loss = NormalizedPixelTarget(P).loss(prediction, torch.zeros(1, 2, P), nothing)
    loss.mean.backward()
    assert loss.mean == loss.patches == 0
    assert not prediction.grad.any()
