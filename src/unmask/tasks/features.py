"""What an encoder's features are worth while it is pre-trained: neighbours, a linear probe, their rank.

Features are of whole images, nothing masked, averaged over the patches after the final norm. Nothing
here draws at random, and nothing trains the encoder.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from unmask.config.plan import Plan
from unmask.config.settings import FeatureProbe, Source
from unmask.core.mae import MaskedAutoencoder
from unmask.data.images import Images, name_hash
from unmask.data.labels import find_labelled
from unmask.data.records import Labelled
from unmask.data.split import take_fraction
from unmask.distributed.processes import Processes
from unmask.engine.task import Metric
from unmask.evals.knn import knn_accuracy
from unmask.evals.linear import fit_linear_probe
from unmask.evals.rank import effective_rank
from unmask.inference import SharedCrops

NEIGHBOURS = 20
"""How many vote, or all of fewer."""
RANKED_PER_DIMENSION = 4
"""Images that the rank of features needs for each of their dimensions, to mean much."""

LEARN_LONGER = (
    "the features do not separate these classes yet: a longer pre-training usually helps, or "
    "images that are more like the labelled ones"
)


def _accuracy(key: str, label: str, *, on_console: bool = False) -> Metric:
    return Metric(
        key=key,
        label=label,
        format="{:.2%}",
        better="higher",
        baseline_key="probe/commonest_class",
        baseline_label="the majority class",
        images_key="probe/images",
        advice=LEARN_LONGER,
        on_console=on_console,
    )


METRICS = (
    _accuracy("knn/top1", "k-NN accuracy", on_console=True),
    _accuracy("probe/top1", "linear probe accuracy"),
    Metric(
        key="probe/commonest_class",
        label="majority-class baseline",
        format="{:.2%}",
        better="higher",
        has_curve=False,
    ),
    Metric(
        key="features/rank",
        label="effective rank",
        format="{:.1f}",
        better="higher",
        explanation="how many dimensions the features use, from 1 to their width (RankMe, Garrido et "
        "al. 2023): near 1 the model gives all images the same features",
    ),
)


class ProbeImages(NamedTuple):
    """Labelled images: some to learn from, and query images."""

    training: Labelled
    validation: Labelled
    seen: int
    """Query images that pre-training sees, without their labels."""

    def message(self) -> str:
        """What is compared, for people."""
        return (
            f"k-NN and linear probe: {len(self.training)} labelled images, {len(self.validation)} query "
            f"images ({self.seen} seen in pre-training)"
        )


def find_probe_images(p: FeatureProbe, d: Source, pretraining: Images) -> ProbeImages | None:
    """About `p.images` labelled images of all classes, and half as many others; None without labels.

    The choice depends on the names of the images alone; as query images, those that `pretraining` does
    not hold come first.
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


def images_to_rank(p: FeatureProbe, images: Images, width: int) -> Images:
    """Some of the images, by their names: enough for features of that width, at most `p.images`."""
    return images.split(min(len(images), p.images, RANKED_PER_DIMENSION * width))[1]


def _is_among(images: Images, others: Images) -> np.ndarray:
    """bool [n]: which images `others` holds too, by their paths."""
    mine = [os.path.abspath(path) for path in images.paths]
    wanted = set(mine)
    common = {path for path in map(os.path.abspath, others.paths) if path in wanted}
    return np.array([path in common for path in mine], dtype=bool)


class FeatureRank:
    """How many dimensions the features use: needs no labels."""

    def __init__(self, images: Images, plan: Plan):
        self.crops = SharedCrops(images, plan.image, plan.loading)

    def run(self, model: MaskedAutoencoder, processes: Processes) -> Iterator[tuple[str, float]]:
        """Yields features/rank if all features are finite."""
        found = self.crops.rows(model.features, model, processes)
        if processes.is_main and found.indices and found.output.isfinite().all():
            yield "features/rank", effective_rank(found.output)


class LabelledFeatures:
    """How well the features of some images tell the classes of others."""

    def __init__(self, probed: ProbeImages, plan: Plan):
        self.training, self.validation = probed.training, probed.validation
        self.known, self.queries = (
            SharedCrops(part.images, plan.image, plan.loading) for part in probed[:2]
        )

    def run(self, model: MaskedAutoencoder, processes: Processes) -> Iterator[tuple[str, float]]:
        """Yields knn/top1, probe/top1, the majority-class baseline, and features/rank."""
        known = self.known.rows(model.features, model, processes)
        queries = self.queries.rows(model.features, model, processes)
        if not processes.is_main or not (known.indices and queries.indices):
            return
        if not torch.cat([known.output, queries.output]).isfinite().all():
            return
        # A probe is trained: neither the loop's inference mode nor its precision is for it.
        with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
            features, others = known.output.clone(), queries.output.clone()
            labels = torch.from_numpy(self.training.labels[known.indices])
            answers = torch.from_numpy(self.validation.labels[queries.indices])
            count = len(self.training.classes)
            nearest = knn_accuracy(
                features, labels, others, answers, classes=count, neighbours=(NEIGHBOURS,)
            )
            yield "knn/top1", nearest[NEIGHBOURS]
            probe = fit_linear_probe(features, labels, classes=count)
            yield "probe/top1", probe.accuracy(others, answers)
            yield "probe/images", len(answers)
            yield "probe/commonest_class", answers.bincount().max().item() / len(answers)
            yield "features/rank", effective_rank(features)
