"""Nearest neighbours: what fixed features are worth without any training (Wu et al. 2018).

Legend: M training images, Q queries, D width of a feature.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

NEIGHBOURS = (10, 20, 100, 200)
TEMPERATURE = 0.07
SIMILARITIES_AT_ONCE = 2**26
"""Values in memory: a quarter of a GiB."""


@torch.no_grad()
def knn_votes(
    training: Float[Tensor, "M D"],
    training_labels: Int[Tensor, "M"],
    queries: Float[Tensor, "Q D"],
    *,
    classes: int,
    neighbours: tuple[int, ...] = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> dict[int, Float[Tensor, "Q {classes}"]]:
    """For each number of neighbours the share of votes that each class gets.

    The nearest training images by cosine vote for their class with weight exp(cosine / temperature).
    A number beyond M lets all vote. Works on the device that holds the training features.
    """
    training, most = F.normalize(training.float()), min(max(neighbours), len(training))
    training_labels = training_labels.to(training.device)
    at_once = max(1, SIMILARITIES_AT_ONCE // len(training))
    votes: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for chunk in queries.split(at_once):
        cosines = F.normalize(chunk.to(training.device).float()) @ training.T
        nearest = cosines.topk(most, dim=1)
        weights = (nearest.values / temperature).exp()
        labels = training_labels[nearest.indices]
        for k in neighbours:
            given = weights.new_zeros(len(chunk), classes)
            given.scatter_add_(1, labels[:, :k], weights[:, :k])
            votes[k].append(given / given.sum(dim=1, keepdim=True))
    return {k: torch.cat(parts) for k, parts in votes.items()}


def knn_accuracy(
    training: Float[Tensor, "M D"],
    training_labels: Int[Tensor, "M"],
    queries: Float[Tensor, "Q D"],
    labels: Int[Tensor, "Q"],
    *,
    classes: int,
    neighbours: tuple[int, ...] = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> dict[int, float]:
    """Top-1 accuracy for each number of neighbours; arguments as in `knn_votes`."""
    votes = knn_votes(
        training,
        training_labels,
        queries,
        classes=classes,
        neighbours=neighbours,
        temperature=temperature,
    )
    return {
        k: (v.argmax(dim=1) == labels.to(v.device)).sum().item() / len(labels) for k, v in votes.items()
    }
