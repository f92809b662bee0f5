"""A quick linear probe of fixed features, for looks at a model while it is pre-trained.

It is a convex problem solved to its end: no learning rate, no seed, the same result every time. The
paper's own probe (Table 10) is a training run with augmentation; numbers of the two do not compare.
Pixels are features too: `images.flatten(1)`.

Legend: N images, D width of a feature.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

L2 = 1e-3
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
FOLDS = 5
MANY = 10_000
"""Images from which on one fold says enough."""
ITERATIONS = 200


@dataclass(frozen=True)
class LinearProbe:
    """Logits = ((features - mean) / std) weight^T + bias."""

    mean: Float[Tensor, "D"]
    std: Float[Tensor, "D"]
    weight: Float[Tensor, "classes D"]
    bias: Float[Tensor, "classes"]

    def logits(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N classes"]:
        """Predictions for other features of the same kind."""
        standard = (features.to(self.mean) - self.mean) / self.std
        return F.linear(standard, self.weight, self.bias)

    def accuracy(self, features: Float[Tensor, "N D"], labels: Int[Tensor, "N"]) -> float:
        """Share of images whose most probable class is the true one."""
        predicted = self.logits(features).argmax(dim=1)
        return (predicted == labels.to(predicted.device)).sum().item() / len(labels)


def fit_linear_probe(
    features: Float[Tensor, "N D"],
    labels: Int[Tensor, "N"],
    *,
    classes: int,
    l2: float = L2,
    iterations: int = ITERATIONS,
) -> LinearProbe:
    """Multinomial logistic regression on standardised features, by full-batch LBFGS.

    Least of: mean cross-entropy + l2 / 2 x squared norm of the weights (scikit-learn's
    C = 1 / (l2 N)). Works where the features are, in their precision, single at least.
    """
    features = features.detach().to(torch.promote_types(features.dtype, torch.float32))
    labels = labels.to(features.device)
    mean, std = features.mean(0), features.std(0, unbiased=False)
    std = std.where(
        std > 1e-6 * std.max(), std.new_ones(())
    )  # constant features must not divide by zero
    standard = (features - mean) / std
    weight = features.new_zeros(classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(standard, weight, bias), labels)
        loss = loss + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss.item()

    with torch.enable_grad():
        optimizer.step(closure)
    return LinearProbe(mean, std, weight.detach(), bias.detach())


def choose_l2(features: Float[Tensor, "N D"], labels: Int[Tensor, "N"], *, classes: int) -> float:
    """The penalty with the least cross-entropy on images that the probe was not fitted to.

    Five-fold cross-validation, each class spread evenly over the folds; of many images one fold is
    held out, once. What the probe will be tested on has no part in it.
    """
    fold = torch.empty_like(labels)
    fold[labels.argsort(stable=True)] = torch.arange(len(labels), device=labels.device) % FOLDS
    folds = range(FOLDS if len(labels) < MANY else 1)
    return min(
        PENALTIES,
        key=lambda l2: sum(_held_out_loss(features, labels, classes, l2, fold == k) for k in folds),
    )


def _held_out_loss(features: Tensor, labels: Tensor, classes: int, l2: float, held_out: Tensor) -> float:
    """The sum over the images that are held out."""
    if not held_out.any() or held_out.all():
        return 0.0
    probe = fit_linear_probe(features[~held_out], labels[~held_out], classes=classes, l2=l2)
    logits = probe.logits(features[held_out])
    return F.cross_entropy(logits, labels[held_out].to(logits.device), reduction="sum").item()
