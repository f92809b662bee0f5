"""Masked-autoencoder pre-training (paper, Approach).

Legend: n images, B images of a micro-batch, C channels, H x W pixels, N patches.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unmask.config.commands import PretrainConfig, PretrainData
from unmask.config.image import ImageSpec
from unmask.config.plan import Plan
from unmask.config.resolve import either, resolve_autoencoder, resolve_encoder
from unmask.core.components import PCATarget, fit_pca
from unmask.core.mae import MaskedAutoencoder
from unmask.core.patches import patchify
from unmask.core.spec import MAESpec, Size, ViTSpec
from unmask.data.augment import colour_jitter
from unmask.data.centre_crops import load_centre_crops
from unmask.data.crops import Crops, on_device, pack
from unmask.data.decode.pictures import Picture
from unmask.data.images import Images
from unmask.data.mask_strategies import asked_mask, mask_noise
from unmask.data.normalize import normalize, valid_pixels
from unmask.data.sampler import SampleKey, generator
from unmask.data.samples import RandomCrops
from unmask.data.sources.find import find_images
from unmask.data.transforms import FIXED_SHARE, apply_crop, draw_fixed_crop, share_for_fixed_crops
from unmask.engine.task import Draw, Metric, Scheduled, StepOutput
from unmask.interop.description import Weights
from unmask.interop.weights import initialize_from, read_weights
from unmask.recipes.pretrain import PRETRAIN
from unmask.tasks import features
from unmask.tasks.base import BaseTask, Data
from unmask.tasks.facts import input_facts, transformer
from unmask.tasks.labelled import is_picture
from unmask.tasks.reconstruction import (
    PICTURED_IMAGES,
    HeldOutError,
    SampleFigures,
    autoencoder_in,
    pictured,
)
from unmask.tasks.tokens import Tokens, read_tokens

PCA_IMAGES, PCA_PATCHES = 512, 64
"""Training images that principal components are fitted to, and patches of each."""
PCA_KEY = 7
SIDES = {"random-size": None, "fixed-size": FIXED_SHARE, "centre": 1.0}
"""Side of a crop as a share of the largest that fits, if it is no random one."""
MASKS_IN_WORDS = {
    "random": "random mask",
    "block": "block-wise mask",
    "grid": "grid mask",
    "given": "given mask",
}


class MaskedBatch(NamedTuple):
    """`images` [B, C, H, W], or crops of several sizes; `noise` float32 [B, N], which draws the
    masks."""

    images: Tensor | Crops
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class PretrainImages(Data):
    """Also the labelled images that features are evaluated on, if there are labels."""

    probe: features.ProbeImages | None


class Pretrain(BaseTask):
    """Predicts masked patches; evaluates on held-out images during training."""

    name, title, config_class, recipes = "pretrain", "Pre-training run", PretrainConfig, PRETRAIN
    metrics = (
        Metric(key="held_out/error", label="held-out error on masked pixels", has_curve=False),
        Metric(
            key="held_out/harmonic_error",
            label="harmonic fill",
            has_curve=False,
            explanation="the error of the smoothest surface through the visible pixels (Laplace's "
            "equation), a baseline without learning: a model with a lower error has learned something "
            "about your images; one with a higher error, above all with normalised pixels as the "
            "target, may still have useful features: k-NN and a linear probe tell",
        ),
        Metric(
            key="held_out/ratio",
            label="held-out error vs harmonic fill",
            format="{:.3f}",
            baseline=1.0,
            baseline_label="harmonic fill",
            on_console=True,
            shortfall_words="the error of reconstructed patches of held-out images is {} times that "
            "of a smooth interpolation from the visible patches (harmonic fill)",
            advice="a longer run usually helps (--time 1h, or more --optim.steps), then smaller patches "
            "(--model.patch); with normalised pixels as the target, reconstructions may look poor "
            "though the features are good, and --target.kind pixels reconstructs better",
        ),
        *features.METRICS,
    )
    captions: ClassVar[Mapping[str, str]] = {
        "reconstruction": "Reconstructions",
        "reconstruction-ratios": "The same model at higher mask ratios",
        "other-data": "Images of another data set, which the model was not trained on",
        "other-data-ratios": "Images of another data set at higher mask ratios",
    }
    from_the_start: ClassVar[Sequence[str]] = ("reconstruction", "other-data")
    config: PretrainConfig

    def __init__(self, config: PretrainConfig):
        super().__init__(config)
        self.tokens: Tokens | None = None
        """What gives and draws tokens, if they are the target; read with the model."""

    def read_init(self) -> Weights:
        """What --init names; if it says another number of heads than --model.heads, fitting it does."""
        assert self.init
        return read_weights(self.init, heads=self.config.model.heads)

    def find(self) -> PretrainImages:
        """All images, some of them held out."""
        found, d = super().find(), self.config.data
        probe = features.find_probe_images(self.config.probe, d, found.training)
        messages = (probe.message(),) if probe else ()
        return PretrainImages(**{**vars(found), "messages": messages}, probe=probe)

    def spec(self, data: Data, image: ImageSpec, init: Weights | None) -> MAESpec:
        """The autoencoder that the settings describe."""
        c = self.config
        encoder = resolve_encoder(c.model, size=image.size, channels=image.channels)
        return resolve_autoencoder(
            *(c.model, c.mask, c.target),
            size=image.size,
            channels=image.channels,
            given=asked_mask(c.mask, encoder.grid),
            vocabulary=self._read_tokens(image, encoder),
        )

    def _read_tokens(self, image: ImageSpec, encoder: ViTSpec) -> int | None:
        """Reads the tokenizer, if tokens are the target; returns the size of its vocabulary."""
        target = self.config.target
        if target.kind != "tokens" or target.tokenizer is None:
            return None
        self.tokens = self.tokens or read_tokens(target.tokenizer, image, encoder)
        return self.tokens.model.spec.vocabulary

    def check(self, plan: Plan, data: Data) -> Iterator[str]:
        """Says what is masked; refuses what cannot be jittered."""
        check_jitter(self.config.data, plan.image)
        spec = autoencoder_in(plan)
        h, w = spec.encoder.grid
        how = MASKS_IN_WORDS[spec.mask.strategy]
        yield (
            f"{h} x {w} patches, of which the encoder sees {spec.visible} and the decoder predicts "
            f"{spec.predicted}; {how}, ratio {spec.masked / spec.encoder.patches:.4g}"
        )
        if spec.mask.tokens_in_encoder:
            yield "the encoder gets mask tokens for masked patches: slower and worse (paper, Table 1c)"

    def samples(self, plan: Plan, data: Data) -> "MaskedSamples":
        """Random crops, with noise that draws their masks."""
        return MaskedSamples(self.config, plan)

    def model(self, plan: Plan, init: Weights | None) -> tuple[nn.Module, list[str]]:
        """A new model, or one that starts from --init."""
        model, messages = super().model(plan, init)
        self._read_tokens(plan.image, plan.model.encoder)
        if init and isinstance(model, MaskedAutoencoder):
            start = initialize_from(model, init, str(self.init), plan.image.display)
            messages.append(start)
        return model, messages

    def fit(self, model: MaskedAutoencoder, plan: Plan, data: PretrainImages) -> Iterator[str]:
        """Principal components of patches of training crops, if they are the target."""
        target = model.target
        if isinstance(target, PCATarget) and target.basis.isnan().any():
            patches = _patches_of_crops(data.training, self.samples(plan, data), plan)
            target.fit(fit_pca(patches, target.outputs))
            yield (
                f"the target is {target.outputs} of {patches.shape[1]} principal components, fitted to "
                f"{len(patches)} patches"
            )

    def step(self, model: MaskedAutoencoder, batch: MaskedBatch, draw: Draw) -> StepOutput:
        """The loss of one micro-batch."""
        image = draw.plan.image
        crops = on_device(batch.images, draw.device, image.size)
        images, valid = normalize(crops, image.mean, image.std), valid_pixels(crops)
        noise = batch.noise.to(draw.device, non_blocking=True)
        ids = self.tokens.ids(images) if self.tokens else None
        output = model(images, noise=noise, wanted=ids, valid=valid)
        return StepOutput(output.loss, weight=output.patches, scalars={})

    def evaluators(self, plan: Plan, data: PretrainImages) -> Sequence[Scheduled]:
        """The error on held-out images, pictures of them, and what the features are worth."""
        t, d = plan.training, self.config.data
        held_out = data.held_out if len(data.held_out) else pictured(data.training, 2 * PICTURED_IMAGES)
        crops, drawn = _crops(held_out, plan), _crops(pictured(held_out, 2 * PICTURED_IMAGES), plan)
        tokens = self.tokens.draw if self.tokens else None
        title = "Held-out images" if plan.facts.held_out_images else "Training images"
        scheduled = [
            Scheduled(HeldOutError(crops, plan, tokens), t.evaluate_every),
            Scheduled(SampleFigures("reconstruction", title, drawn, plan, tokens), t.sample_every),
        ]
        if d.other:
            elsewhere = _crops(pictured(find_images(d.other, root=d.root)), plan)
            title = "Images of another data set"
            other = SampleFigures("other-data", title, elsewhere, plan, tokens)
            scheduled.append(Scheduled(other, t.sample_every))
        if looks := self._features(data, plan):
            every = either(self.config.probe.every, max(1, t.steps // 10))
            scheduled.append(Scheduled(looks, every))
        return scheduled

    def _features(
        self, data: PretrainImages, plan: Plan
    ) -> features.FeatureRank | features.LabelledFeatures | None:
        if data.probe:
            return features.LabelledFeatures(data.probe, plan)
        ranked = features.images_to_rank(self.config.probe, data.training, plan.model.encoder.width)
        return features.FeatureRank(ranked, plan) if len(ranked) else None

    def facts(self, plan: Plan, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Images, dimensions, and what is masked."""
        spec = autoencoder_in(plan)
        d, mask, target = spec.decoder, spec.mask, spec.target
        share = spec.masked / spec.encoder.patches
        return [
            *super().facts(plan, record),
            *input_facts(plan),
            ("Augmentation", _samples_in_words(self.config.data)),
            ("Decoder", transformer(d.depth, d.width, d.heads)),
            ("Mask", f"{MASKS_IN_WORDS[mask.strategy]}, {share:.1%} of the patches"),
            ("Target", f"{target.kind}; loss on {target.loss_on} patches"),
        ]

    def conclude(self, run: Path, step: int) -> Iterator[str]:
        """Where the pictures are, and how to look at more."""
        if self.tokens:
            self.tokens.save(run)
        yield f"  reconstructions  {run / 'samples' / f'reconstruction-{step:08d}.png'}"
        yield f"next: {shlex.join(['unmask', 'reconstruct', 'IMAGES', '--init', str(run)])}"


class MaskedSamples(RandomCrops):
    """See `data.samples.Samples`: a crop, and the noise of its mask."""

    def __init__(self, config: PretrainConfig, plan: Plan):
        super().__init__(config.data, plan)
        self.spec = autoencoder_in(plan)
        self.side, self.jitter = SIDES[config.data.crop], config.data.jitter

    def sample(
        self, picture: Picture, key: SampleKey, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """[C, H, W] before normalisation, and one random value per patch."""
        crop = self.crop(picture, rng)
        if self.jitter:
            crop = colour_jitter(crop, self.jitter, rng)
        return crop, torch.from_numpy(mask_noise(self.spec.mask, self.spec.encoder.grid, rng))

    def crop(self, picture: Picture, rng: np.random.Generator) -> Tensor:
        """The crop: of random size, of one size, or the centre."""
        if self.side is None:
            return super().crop(picture, rng)
        size, s = self.image.size, self.settings
        drawn = draw_fixed_crop(picture.size, size, self.side, s.flip, rng)
        return apply_crop(picture, self.pixels, drawn, size, resize=not s.resize_on_device)

    def share(self, image_size: Size) -> float:
        """See `Samples`."""
        if self.side is None:
            return super().share(image_size)
        return share_for_fixed_crops(image_size, self.image.size, self.side)

    def collate(self, samples: list[tuple[Tensor, Tensor]]) -> MaskedBatch:
        """Stacks crops and noise."""
        crops, noise = zip(*samples, strict=True)
        return MaskedBatch(pack(list(crops)), torch.stack(noise))


def check_jitter(d: PretrainData, image: ImageSpec) -> None:
    """Raises ValueError if colours are to be changed of what is no picture, or is resized only later."""
    if d.jitter and not is_picture(image):
        raise ValueError(
            f"colour jitter is for pictures of 8 bits in 1 or 3 channels, these are {image.dtype} in "
            f"{image.channels}: leave out --data.jitter"
        )
    if d.jitter and d.resize_on_device:
        raise ValueError(
            "colours are changed in the loader, of resized crops: leave out --data.resize-on-device, or "
            "--data.jitter"
        )


def _samples_in_words(d: PretrainData) -> str:
    least, most = d.crop_scale
    crops = {
        "random-size": f"crops of {least:g} to {most:g} of the area",
        "fixed-size": f"crops of one size, {FIXED_SHARE:g} of the largest side that fits",
        "centre": "the centre",
    }
    jitter = [f"colour jitter {d.jitter:g}"] if d.jitter else []
    return ", ".join([crops[d.crop], *(["flips"] if d.flip else []), *jitter])


def _patches_of_crops(images: Images, samples: "MaskedSamples", plan: Plan) -> Tensor:
    """Patches [n, P] of random crops of training images, those without no-data."""
    chosen = generator(plan.training.seed, PCA_KEY).permutation(len(images))[:PCA_IMAGES]
    found = []
    for index in map(int, chosen):
        rng = generator(plan.training.seed, PCA_KEY, index)
        key = SampleKey(0, index)

        def crop(picture: Picture, key: SampleKey = key, rng: np.random.Generator = rng) -> Tensor:
            return samples.sample(picture, key, rng)[0]

        drawn = images.take(index, samples.pixels, crop)
        if isinstance(drawn, Tensor):
            sized = on_device(drawn[None], torch.device("cpu"), plan.image.size)
            patches = patchify(
                normalize(sized, plan.image.mean, plan.image.std), plan.model.encoder.patch_size
            )[0]
            valid = valid_pixels(sized)
            if valid is not None:
                patches = patches[patchify(valid, plan.model.encoder.patch_size)[0].all(dim=1)]
            found.append(patches[rng.permutation(len(patches))[:PCA_PATCHES]])
    return torch.cat(found)


def _crops(images: Images, plan: Plan) -> Tensor:
    return load_centre_crops(images, plan.image, max_megapixels=plan.loading.max_megapixels)
