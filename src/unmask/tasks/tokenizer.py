"""Training a discrete VAE, whose tokens pre-training can predict (Ramesh et al. 2021; Table 1d).

Legend: n images, B images of a micro-batch, C channels, H x W pixels, h x w tokens, V vocabulary.
"""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from unmask.config.fields import pair
from unmask.config.image import ImageSpec
from unmask.config.plan import Plan
from unmask.config.tokenizer import Relaxation, TokenizerConfig
from unmask.core.spec import Size
from unmask.data.centre_crops import load_centre_crops
from unmask.data.crops import Crops, on_device, pack
from unmask.data.decode.pictures import Picture
from unmask.data.normalize import normalize, valid_pixels
from unmask.data.sampler import SampleKey
from unmask.data.samples import RandomCrops
from unmask.distributed.processes import Processes
from unmask.engine.task import Draw, Metric, Scheduled, StepOutput
from unmask.interop.description import Weights
from unmask.models.tokenizer import Tokenizer, gumbel_noise, perplexity
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.recipes.tokenizer import TOKENIZER
from unmask.tasks.base import BaseTask, Data
from unmask.tasks.reconstruction import PICTURED_IMAGES, display_of, pictured
from unmask.units import counted
from unmask.viz.tiles import Sheet, displayable, draw

EVALUATED_AT_ONCE = 16


class TokenizerBatch(NamedTuple):
    """`images` [B, C, H, W], or crops of several sizes; `seeds` int64 [B] of the soft choices."""

    images: Tensor | Crops
    seeds: Tensor


class TrainTokenizer(BaseTask):
    """Learns a vocabulary of image cells, and how to draw them."""

    name, title = "tokenizer", "Tokenizer run"
    config_class, recipes = TokenizerConfig, TOKENIZER
    metrics = (
        Metric(key="tokens/error", label="held-out reconstruction error", on_console=True),
        Metric(
            key="tokens/perplexity",
            label="perplexity of the tokens",
            format="{:.1f}",
            better="higher",
            on_console=True,
        ),
    )
    captions: ClassVar[Mapping[str, str]] = {"tokens": "Images and their reconstructions from tokens"}
    from_the_start: ClassVar[Sequence[str]] = ("tokens",)
    config: TokenizerConfig

    def spec(self, data: Data, image: ImageSpec, init: Weights | None) -> TokenizerSpec:
        """The discrete VAE that the settings describe."""
        m = self.config.model
        return TokenizerSpec(
            image_size=image.size,
            channels=image.channels,
            vocabulary=m.vocabulary,
            downsampling=m.downsampling,
            width=m.width,
            blocks=m.blocks,
        )

    def size(self, init: Weights | None) -> Size:
        """Height and width of the tokenizer's input."""
        return pair("data.size", self.config.data.size)

    def check(self, plan: Plan, data: Data) -> Iterator[str]:
        """Says what images become."""
        spec = spec_of(plan)
        h, w = _grid(spec)
        yield (
            f"{h} x {w} tokens of {spec.downsampling} x {spec.downsampling} pixels, each one of "
            f"{spec.vocabulary}"
        )

    def samples(self, plan: Plan, data: Data) -> "TokenizerSamples":
        """Random crops, with seeds of the soft choices of their tokens."""
        return TokenizerSamples(self.config.data, plan)

    def step(self, model: Tokenizer, batch: TokenizerBatch, draw: Draw) -> StepOutput:
        """The loss of one micro-batch."""
        image, relaxation = draw.plan.image, self.config.relaxation
        crops = on_device(batch.images, draw.device, image.size)
        spec, share = spec_of(draw.plan), draw.step / draw.plan.training.steps
        output = model(
            normalize(crops, image.mean, image.std),
            temperature=temperature_at(share, relaxation),
            noise=gumbel_noise(batch.seeds, spec.vocabulary, _grid(spec), draw.device),
            divergence_weight=divergence_weight_at(share, relaxation),
            valid=valid_pixels(crops),
        )
        scalars = {"error": output.error, "divergence": output.divergence}
        return StepOutput(output.loss, weight=output.images, scalars=scalars)

    def evaluators(self, plan: Plan, data: Data) -> Sequence[Scheduled]:
        """Error, use of the vocabulary, and pictures of held-out images."""
        t = plan.training
        held_out = data.held_out if len(data.held_out) else pictured(data.training, 2 * PICTURED_IMAGES)
        crops, drawn = (
            load_centre_crops(images, plan.image, max_megapixels=plan.loading.max_megapixels)
            for images in (held_out, pictured(held_out, 2 * PICTURED_IMAGES))
        )
        return [
            Scheduled(TokenizerError(crops, plan), t.evaluate_every),
            Scheduled(TokenFigures(drawn, plan), t.sample_every),
        ]

    def facts(self, plan: Plan, newest: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Images, and dimensions."""
        spec, image = spec_of(plan), plan.image
        h, w = _grid(spec)
        return [
            *super().facts(plan, newest),
            ("Input", f"{image.size[0]} x {image.size[1]} pixels, {counted(image.channels, 'channel')}"),
            ("Tokens", f"{h} x {w}, each one of {spec.vocabulary}"),
            ("Network", f"{spec.blocks} residual blocks at each resolution, from {spec.width} channels"),
        ]

    def conclude(self, run: Path, step: int) -> Iterator[str]:
        """What to do with it."""
        tokens = ["--target.kind", "tokens", "--target.tokenizer", str(run)]
        yield f"next: {shlex.join(['unmask', 'pretrain', *self.config.data.source, *tokens])}"


class TokenizerSamples(RandomCrops):
    """See `data.samples.Samples`: a random crop, and a seed."""

    def sample(self, picture: Picture, key: SampleKey, rng: np.random.Generator) -> tuple[Tensor, int]:
        """[C, H, W] before normalisation, and what its soft choices are drawn from."""
        return self.crop(picture, rng), int(rng.integers(2**62))

    def collate(self, samples: list[tuple[Tensor, int]]) -> TokenizerBatch:
        """Stacks crops and seeds."""
        crops, seeds = zip(*samples, strict=True)
        return TokenizerBatch(pack(list(crops)), torch.tensor(seeds))


class TokenizerError:
    """How far images are from what their most probable tokens draw, each process on its share."""

    def __init__(self, crops: Tensor, plan: Plan):
        """`crops` [n, C, H, W], before normalisation."""
        self.images = normalize(crops, plan.image.mean, plan.image.std)
        self.valid = valid_pixels(crops)
        self.vocabulary = spec_of(plan).vocabulary

    @torch.no_grad()
    def run(self, model: Tokenizer, processes: Processes) -> Iterator[tuple[str, float]]:
        """Yields tokens/error in normalised pixel values, and tokens/perplexity."""
        counts = torch.zeros(self.vocabulary + 2, dtype=torch.float64)
        share = list(processes.share(len(self.images)))
        for i in range(0, len(share), EVALUATED_AT_ONCE):
            rows = share[i : i + EVALUATED_AT_ONCE]
            images = self.images[rows].to(processes.device)
            ids = model.ids(images)
            squared = (model.pixels(ids).float() - images).square().cpu()
            if self.valid is not None:
                squared = squared[self.valid[rows]]
            counts[:-2] += torch.bincount(ids.flatten().cpu(), minlength=self.vocabulary)
            counts[-2] += squared.sum().double()
            counts[-1] += squared.numel()
        totals = processes.sum(counts.to(processes.device)).cpu()
        if totals[-1] > 0:
            yield "tokens/error", float(totals[-2] / totals[-1])
        yield "tokens/perplexity", perplexity(totals[:-2])


class TokenFigures:
    """The same images, drawn again from their tokens as the tokenizer learns."""

    def __init__(self, crops: Tensor, plan: Plan):
        """`crops` [n, C, H, W], before normalisation; the first few are drawn."""
        self.images = normalize(crops[:PICTURED_IMAGES], plan.image.mean, plan.image.std)
        self.display = display_of(plan.image)

    @torch.no_grad()
    def run(self, model: Tokenizer, processes: Processes) -> Iterator[tuple[str, Image]]:
        """A row of images above what their tokens stand for."""
        if processes.is_main:
            drawn = model.pixels(model.ids(self.images.to(processes.device))).float()
            rows = [list(displayable(images, self.display)) for images in (self.images, drawn)]
            headings = [""] * len(self.images)
            yield "tokens", draw(Sheet(rows=rows, headings=headings, row_labels=("image", "tokens")))


def temperature_at(share: float, r: Relaxation) -> float:
    """Temperature of the Gumbel-softmax after this share of the run: half a cosine, then constant."""
    fallen = min(1.0, share / r.anneal_share)
    return (
        r.last_temperature + (r.temperature - r.last_temperature) * (1 + math.cos(math.pi * fallen)) / 2
    )


def divergence_weight_at(share: float, r: Relaxation) -> float:
    """After this share of the run: it falls in a line, and is 0 in the second half."""
    return r.divergence_weight * max(0.0, 1 - 2 * share)


def spec_of(plan: Plan) -> TokenizerSpec:
    """What a tokenizer run trains."""
    assert isinstance(plan.model, TokenizerSpec)
    return plan.model


def _grid(spec: TokenizerSpec) -> Size:
    assert spec.grid is not None, "a tokenizer that is trained has an image size"
    return spec.grid
