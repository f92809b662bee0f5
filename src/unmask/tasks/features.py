"""What an encoder's features are worth while it is pre-trained: neighbours, a linear probe, their rank.

Features are of whole images, nothing masked, averaged over the patches after the final norm. Nothing
here draws random numbers, and nothing trains the encoder.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unmask.config.plan import DataPlan
from unmask.config.schema import DataConfig, ProbeConfig
from unmask.core.mae import MaskedAutoencoder
from unmask.data.images import Images, name_hash
from unmask.data.kept import KeptCrops
from unmask.data.labels import Labelled, find_labelled, take_fraction
from unmask.data.loader import CentreCrops
from unmask.data.normalize import normalize
from unmask.evals.knn import knn_accuracy
from unmask.evals.linear import fit_linear_probe
from unmask.evals.rank import effective_rank

NEIGHBOURS = 20
"""How many vote, or all of fewer."""
RANKED_PER_DIMENSION = 4
"""Images that the rank of features needs for each of their dimensions, to mean much."""
BATCH = 64


class ProbeImages(NamedTuple):
    """Labelled images: some to learn from, others to ask about."""

    training: Labelled
    validation: Labelled
    seen: int
    """Validation images that pre-training sees, without their labels."""

    def sentence(self) -> str:
        """What is compared, for people."""
        return (
            f"features are probed with the labels of {len(self.training)} images on "
            f"{len(self.validation)} others, of which {self.seen} are among the training images"
        )


def find_probe_images(p: ProbeConfig, d: DataConfig, pretraining: Images) -> ProbeImages | None:
    """About `p.images` labelled images of all classes, and half as many others; None without labels.

    The choice depends on the names of the images alone; to ask about, those that `pretraining` does not
    hold come first.
    """
    if not p.data or not p.images:
        return None
    split = find_labelled(
        p.data, val=p.val, root=d.root, download=d.download, label_column=p.label_column
    )
    share = min(1.0, p.images / len(split.training))
    training = take_fraction(split.training, fraction=share, per_class=None, seed=0)
    others = split.validation.images
    is_seen = _is_among(others, pretraining)
    hashes = np.fromiter(map(name_hash, others.names()), dtype=np.uint64)
    chosen = np.lexsort((hashes, is_seen))[: max(1, p.images // 2)]
    return ProbeImages(training, split.validation.subset(np.sort(chosen)), int(is_seen[chosen].sum()))


def images_to_rank(p: ProbeConfig, images: Images, width: int) -> Images:
    """Some of the images, by their names: enough for features of that width, at most `p.images`."""
    return images.split(min(len(images), p.images, RANKED_PER_DIMENSION * width))[1]


def _is_among(images: Images, others: Images) -> np.ndarray:
    """bool [n]: which images `others` holds too, by their paths."""
    mine = [os.path.abspath(path) for path in images.paths]
    wanted = set(mine)
    common = {path for path in map(os.path.abspath, others.paths) if path in wanted}
    return np.array([path in common for path in mine], dtype=bool)


class Features:
    """The features of fixed images."""

    def __init__(self, images: Images, d: DataPlan):
        crops = CentreCrops(images, size=d.image_size, wanted=d.pixels)
        self.crops = KeptCrops(crops, batch=BATCH, workers=d.workers)
        self.mean, self.std = d.mean, d.std

    def of(self, model: MaskedAutoencoder) -> tuple[Tensor, list[int]]:
        """[n, D] float32 of the readable images, and which they are."""
        device = next(model.parameters()).device
        parts, numbers = [torch.empty(0, model.architecture.width, device=device)], list[int]()
        for batch in self.crops:
            if batch.numbers:
                images = normalize(batch.images.to(device, non_blocking=True), self.mean, self.std)
                parts.append(model.features(images).float())
                numbers += batch.numbers
        return torch.cat(parts), numbers


class FeatureRank:
    """How many dimensions the features use: needs no labels."""

    def __init__(self, images: Images, d: DataPlan):
        self.features = Features(images, d)

    def run(self, model: MaskedAutoencoder) -> Iterator[tuple[str, float]]:
        """Yields features/rank, where features are numbers."""
        features, numbers = self.features.of(model)
        if numbers and features.isfinite().all():
            yield "features/rank", effective_rank(features)


class LabelledFeatures:
    """How well the features of some images tell the classes of others."""

    def __init__(self, probed: ProbeImages, d: DataPlan):
        self.training, self.validation = probed.training, probed.validation
        self.known, self.asked = (Features(part.images, d) for part in probed[:2])

    def run(self, model: MaskedAutoencoder) -> Iterator[tuple[str, float]]:
        """Yields knn/top1, probe/top1, what the commonest class alone would score, and features/rank."""
        known, mine = self.known.of(model)
        asked, others = self.asked.of(model)
        if not (mine and others and torch.cat([known, asked]).isfinite().all()):
            return
        # A probe is trained: neither the loop's inference mode nor its precision is for it.
        with torch.inference_mode(False), torch.autocast(known.device.type, enabled=False):
            known, asked = known.clone(), asked.clone()
            labels = torch.from_numpy(self.training.labels[mine])
            answers = torch.from_numpy(self.validation.labels[others])
            count = len(self.training.classes)
            nearest = knn_accuracy(
                known, labels, asked, answers, classes=count, neighbours=(NEIGHBOURS,)
            )
            yield "knn/top1", nearest[NEIGHBOURS]
            probe = fit_linear_probe(known, labels, classes=count)
            yield "probe/top1", probe.accuracy(asked, answers)
            yield "probe/commonest_class", answers.bincount().max().item() / len(answers)
            yield "features/rank", effective_rank(known)
