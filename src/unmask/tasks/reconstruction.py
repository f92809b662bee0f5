"""How an autoencoder does on fixed images along the way: the error, and pictures."""

from collections.abc import Iterator

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from unmask.config.image import ImageSpec
from unmask.config.plan import Plan
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import MAESpec, MaskSpec, Size
from unmask.data.images import Images
from unmask.data.mask_strategies import mask_noise
from unmask.data.normalize import normalize, valid_pixels
from unmask.data.sampler import generator
from unmask.data.split import spread
from unmask.distributed.processes import Processes
from unmask.evals.reconstruction import Draw, HeldOutReconstruction, held_out_scores
from unmask.viz.reconstruction import mask_ratio_strip, reconstruction_grid
from unmask.viz.tiles import Display

PICTURED_IMAGES, STRIP_IMAGES, HELD_OUT_RATIO = 8, 4, 0.75


class HeldOutError:
    """The error on the masked pixels of held-out images, each process on its share.

    Masks are random at one ratio whatever the strategy of the training, so that runs compare; but those
    that a user gave stay.
    """

    def __init__(self, crops: Tensor, plan: Plan, tokens: Draw | None = None):
        """`crops` [n, C, H, W], before normalisation; `tokens` draws a tokenizer's tokens."""
        self.tokens = tokens
        self.images = normalize(crops, plan.image.mean, plan.image.std)
        self.valid = valid_pixels(crops)
        mask, grid = autoencoder_in(plan).mask, plan.model.encoder.grid
        self.own_mask = mask.strategy == "given"
        self.noise = fixed_noise(len(crops), mask if self.own_mask else MaskSpec(), grid)
        self._mine: HeldOutReconstruction | None = None

    def run(self, model: MaskedAutoencoder, processes: Processes) -> Iterator[tuple[str, float]]:
        """Yields the scores of `HeldOutReconstruction`."""
        share = list(processes.share(len(self.images)))
        if share and self._mine is None:
            self._mine = HeldOutReconstruction(
                self.images[share],
                self.noise[share],
                mask_ratio=None if self.own_mask else HELD_OUT_RATIO,
                valid=None if self.valid is None else self.valid[share],
                draw=self.tokens,
            )
        totals = self._mine.totals(model) if self._mine else torch.zeros(3, dtype=torch.float64)
        yield from held_out_scores(processes.sum(totals.to(processes.device)))


class SampleFigures:
    """The same images under the same masks, drawn again as the model learns."""

    def __init__(self, name: str, title: str, crops: Tensor, plan: Plan, tokens: Draw | None = None):
        """`crops` [n, C, H, W], before normalisation; the first few are drawn."""
        self.tokens = tokens
        few, image = slice(PICTURED_IMAGES), plan.image
        self.name, self.title, self.display = name, title, display_of(image)
        self.noise = fixed_noise(len(crops), autoencoder_in(plan).mask, plan.model.encoder.grid)[few]
        self.images = normalize(crops[few], image.mean, image.std)
        self.valid = valid_pixels(crops[few])

    def run(self, model: MaskedAutoencoder, processes: Processes) -> Iterator[tuple[str, Image]]:
        """A grid at the mask ratio of the training, and a strip over higher ones (Fig. 4)."""
        if not processes.is_main:
            return
        images, noise, valid, show = self.images, self.noise, self.valid, self.display
        grid = reconstruction_grid(
            *(model, images, noise),
            display=show,
            title=self.title,
            valid=valid,
            tokens=self.tokens,
        )
        yield self.name, grid
        few = slice(STRIP_IMAGES)
        strip = mask_ratio_strip(
            *(model, images[few], noise[few]),
            display=show,
            valid=None if valid is None else valid[few],
            tokens=self.tokens,
        )
        yield f"{self.name}-ratios", strip


def autoencoder_in(plan: Plan) -> MAESpec:
    """The spec of what a pre-training run trains."""
    assert isinstance(plan.model, MAESpec)
    return plan.model


def display_of(image: ImageSpec) -> Display:
    """How images are shown: pixels without a usual range are stretched around their mean."""
    stretch = image.dtype == "float32" and not image.eight_bits
    return Display(image.mean, image.std, image.display, stretch=stretch)


def fixed_noise(images: int, mask: MaskSpec, grid: Size, seed: int = 0) -> Tensor:
    """The noise [images, N] of evaluation masks: the same in every run."""
    rng = generator(seed, grid[0] * grid[1])
    return torch.from_numpy(np.stack([mask_noise(mask, grid, rng) for _ in range(images)]))


def pictured(images: Images, count: int = PICTURED_IMAGES) -> Images:
    """Some of the images to draw, from all folders."""
    return images.subset(spread(images, count))
