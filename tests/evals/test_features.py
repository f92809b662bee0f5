"""What fixed features are worth: neighbours, rank, and a linear probe."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unmask.evals import knn, linear
from unmask.evals.knn import knn_accuracy, knn_votes
from unmask.evals.linear import choose_l2, fit_linear_probe
from unmask.evals.rank import effective_rank


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, ...]:
    """Training pixels and labels, other pixels and labels; some pixels are always black."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = torch.from_numpy(pixels).float(), torch.from_numpy(labels)
    return pixels[:1000], labels[:1000], pixels[1000:], labels[1000:]


def test_neighbours_vote_as_in_scikit_learn(digits):
    training, training_labels, queries, _ = digits
    votes = knn_votes(training, training_labels, queries, classes=10, neighbours=(10, 50))
    for k, ours in votes.items():
        theirs = KNeighborsClassifier(
            k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
        )
        expected = theirs.fit(training, training_labels).predict_proba(queries)
        np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_neighbours_in_chunks_and_more_than_there_are(digits, monkeypatch):
    training, training_labels, queries, labels = digits
    few = training[:150], training_labels[:150]
    whole = knn_votes(*few, queries, classes=10)
    monkeypatch.setattr(knn, "SIMILARITIES_AT_ONCE", 1000)
    parts = knn_votes(*few, queries, classes=10)
    assert list(parts) == [10, 20, 100, 200]
    assert all(torch.allclose(parts[k], whole[k], atol=1e-6) for k in parts)
    all_vote = knn_votes(*few, queries, classes=10, neighbours=(150,))[150]
    assert torch.allclose(whole[200], all_vote, atol=1e-6)
    accuracy = knn_accuracy(*few, queries, labels, classes=10)
    assert accuracy[10] == pytest.approx((whole[10].argmax(1) == labels).float().mean().item())
    assert accuracy[10] > 0.8
    assert (whole[10].sum(1) - 1).abs().max() < 1e-5


def test_an_image_is_its_own_nearest(digits):
    training, labels, *_ = digits
    assert knn_accuracy(training, labels, training * 3, labels, classes=10, neighbours=(1,)) == {1: 1.0}


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_rank_of_known_spectra(rank):
    left = torch.linalg.qr(torch.randn(50, 8, generator=torch.Generator().manual_seed(0))).Q
    values = torch.zeros(8).index_fill_(0, torch.arange(rank), 5.0)
    assert effective_rank(left * values) == pytest.approx(rank, rel=1e-4)


def test_rank_is_the_entropy_of_the_spectrum():
    features = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [9.0, 3, 1, 0.5, 0.1]
    )
    values = np.linalg.svd(features.double().numpy(), compute_uv=False)
    shares = values / values.sum() + 1e-7
    assert effective_rank(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert effective_rank(features * 100) == pytest.approx(effective_rank(features))
    assert effective_rank(torch.zeros(4, 3)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("l2", [1e-3, 0.1])
def test_linear_probe_equals_scikit_learn(digits, l2):
    training, training_labels, features, labels = digits
    training, features = training.double(), features.double()
    probe = fit_linear_probe(training, training_labels, classes=10, l2=l2, iterations=1000)
    std = training.std(0, unbiased=False)
    scale = torch.where(std > 0, std, 1)
    theirs = LogisticRegression(C=1 / (l2 * len(training)), max_iter=3000, tol=1e-8)
    theirs.fit((training - training.mean(0)) / scale, training_labels)
    ours = probe.logits(features).softmax(1)
    expected = theirs.predict_proba((features - training.mean(0)) / scale)
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    np.testing.assert_allclose(probe.weight, theirs.coef_, atol=5e-3)
    assert probe.accuracy(features, labels) > 0.9


def test_linear_probe_repeats_itself_and_does_not_mind_scale(digits):
    training, training_labels, features, labels = digits
    one = fit_linear_probe(training, training_labels, classes=10)
    with torch.no_grad():
        again = fit_linear_probe(training, training_labels, classes=10)
    assert one.weight.equal(again.weight)
    assert one.weight.dtype == torch.float32
    shifted = fit_linear_probe(training * 1000 + 5, training_labels, classes=10)
    difference = one.accuracy(features, labels) - shifted.accuracy(features * 1000 + 5, labels)
    assert abs(difference) < 0.005


def test_linear_probe_of_pixels_and_of_noise():
    made = torch.Generator().manual_seed(0)
    images, labels = torch.rand(200, 3, 8, 8, generator=made), torch.arange(200) % 2
    images[labels == 1, 0] += 0.2
    pixels = images.flatten(1)
    probe = fit_linear_probe(pixels[:100], labels[:100], classes=2)
    assert probe.accuracy(pixels[:100], labels[:100]) == 1
    assert probe.accuracy(pixels[100:], labels[100:]) > 0.85
    constant = fit_linear_probe(torch.ones(10, 4), torch.zeros(10, dtype=torch.int64), classes=3)
    assert constant.accuracy(torch.ones(5, 4), torch.zeros(5, dtype=torch.int64)) == 1


@pytest.mark.parametrize(("noise", "expected"), [(0.0, 1e-4), (5.0, 1e-3), (10.0, 1e-2), (20.0, 1e-1)])
def test_penalty_equals_cross_validation_in_scikit_learn(digits, noise, expected):
    features, labels = digits[0][:300], digits[1][:300]
    made = torch.Generator().manual_seed(0)
    features = features + noise * torch.randn(features.shape, generator=made)
    in_order = np.argsort(labels.numpy(), kind="stable")
    fold = np.empty(300, dtype=int)
    fold[in_order] = np.arange(300) % 5
    inverse = [1 / (l2 * 240) for l2 in linear.PENALTIES]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)),
        {"logisticregression__C": inverse},
        scoring="neg_log_loss",
        cv=PredefinedSplit(fold),
    ).fit(features.numpy(), labels.numpy())
    assert choose_l2(features, labels, classes=10) == linear.PENALTIES[search.best_index_] == expected


def test_penalty_of_few_and_of_many(monkeypatch):
    """A class with one image is in one fold; of many images one fold is enough."""
    features, labels = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    assert choose_l2(features, labels, classes=3) in linear.PENALTIES
    assert choose_l2(features[:1], labels[:1], classes=3) in linear.PENALTIES
    held_out = []
    monkeypatch.setattr(linear, "MANY", 8)
    monkeypatch.setattr(linear, "_held_out_loss", lambda *a: held_out.append(a[-1].tolist()) or 0.0)
    choose_l2(features, labels, classes=3)
    assert held_out == [[True, False, False, False, False, True, False, False]] * len(linear.PENALTIES)
