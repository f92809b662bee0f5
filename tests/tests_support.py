"""Specs, plans and weights for tests that need no images."""

import itertools
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.config.commands import PretrainConfig
from unmask.config.fields import pair
from unmask.config.image import ImageSpec
from unmask.config.plan import DataFacts, Machine, Plan, TrainingPlan
from unmask.config.resolve import resolve, resolve_autoencoder
from unmask.core.spec import DecoderSpec, MAESpec, MaskSpec, ModelSpec, TargetSpec, ViTSpec
from unmask.errors import Interrupted
from unmask.interop.description import Description, Weights
from unmask.models.classifier_spec import ClassifierSpec

CPU = Machine(device="cpu", name="a test", fast_bf16=False, cores=2)

PARTS = {
    "decoder": {
        "decoder_width": "width",
        "decoder_depth": "depth",
        "decoder_heads": "heads",
        "mlp_ratio": "mlp_ratio",
    },
    "mask": {"mask_ratio": "ratio", "mask_unit": "unit", "mask_tokens_in_encoder": "tokens_in_encoder"},
    "target": {"target": "kind", "loss_on": "loss_on"},
}
CLASSES = {"decoder": DecoderSpec, "mask": MaskSpec, "target": TargetSpec}


def mae_spec(**values: Any) -> MAESpec:
    """A spec from flat dimensions: image_size, width, decoder_width, mask_ratio, target, ..."""
    parts = {
        part: CLASSES[part](**{field: values[name] for name, field in names.items() if name in values})
        for part, names in PARTS.items()
    }
    elsewhere = {name for names in PARTS.values() for name in names} - {"mlp_ratio"}
    encoder = {name: value for name, value in values.items() if name not in elsewhere}
    return MAESpec(encoder=ViTSpec(**encoder), **parts)


def changed(spec: MAESpec, **values: Any) -> MAESpec:
    """The spec with some of its dimensions changed, called as in `mae_spec`."""
    for name, value in values.items():
        places = [part for part, names in PARTS.items() if name in names]
        for part in places:
            spec = replace(spec, **{part: replace(getattr(spec, part), **{PARTS[part][name]: value})})
        if not places or name == "mlp_ratio":
            spec = replace(spec, encoder=replace(spec.encoder, **{name: value}))
    return spec


def facts(images: int = 1_281_167) -> DataFacts:
    return DataFacts(
        training_images=images,
        held_out_images=256,
        fingerprint="",
        decoded_bytes=500 * 375 * 3,
    )


def image_spec(size: tuple[int, int], channels: int = 3, **values: Any) -> ImageSpec:
    usual = {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    return ImageSpec(size=size, channels=channels, **{**usual, **values})


def resolved(
    config: PretrainConfig, images: int = 1_281_167, world_size: int = 1, **machine: Any
) -> Plan:
    image = image_spec(pair("data.size", config.data.size), config.data.channels or 3)
    spec = resolve_autoencoder(
        config.model, config.mask, config.target, size=image.size, channels=image.channels
    )
    return resolve(
        config,
        model=spec,
        image=image,
        facts=facts(images),
        machine=Machine(**{**vars(CPU), **machine}),
        world_size=world_size,
    )


def plan_for(config: PretrainConfig) -> TrainingPlan:
    return resolved(config).training


def spec_for(config: PretrainConfig) -> MAESpec:
    spec = resolved(config, images=1000).model
    assert isinstance(spec, MAESpec)
    return spec


def described(model: ModelSpec, **values: Any) -> Description:
    """A description whose mean and standard deviation are no usual ones."""
    e, names = model.encoder, ("eval_crop", "dtype", "display", "mean", "std")
    usual = {"mean": tuple(0.4 + 0.01 * c for c in range(e.channels)), "std": (0.2,) * e.channels}
    image = {name: value for name, value in values.items() if name in names}
    others = {name: value for name, value in values.items() if name not in names}
    seen = ImageSpec(size=e.image_size, channels=e.channels, **{**usual, **image})
    return Description(model=model, image=seen, **others)


def random_weights(spec: MAESpec, **description: Any) -> Weights:
    """Every weight matters: none is zero or one, positions neither."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = spec.build()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
    return Weights(model.state_dict(), described(spec, **description))


def whole_head(
    *, batch_norm: bool = False, eval_crop: float = 1.0, precision: str = "fp32", **outputs: Any
) -> dict[str, Any]:
    """What a description says of a classifier, beside its encoder: classes, pool and what is given."""
    return {**outputs, "batch_norm": batch_norm, "eval_crop": eval_crop, "precision": precision}


def head_of(d: Description) -> dict[str, Any] | None:
    """The same of a description; None if it is no classifier's."""
    if d.classifier is None:
        return None
    outputs = {name: getattr(d.classifier, name) for name in ("classes", "pool", "batch_norm")}
    return whole_head(**outputs, eval_crop=d.image.eval_crop, precision=d.precision)


def random_classifier(spec: MAESpec, head: dict[str, Any], **description: Any) -> Weights:
    """As a fine-tuned run leaves it, a probe with statistics of features.

    `head` has classes, pool and, perhaps, batch_norm, eval_crop and precision.
    """
    outputs = {name: head[name] for name in ("classes", "pool", "batch_norm") if name in head}
    others = {name: head[name] for name in ("eval_crop", "precision") if name in head}
    description = {**others, **description}
    classifier = ClassifierSpec(encoder=spec.encoder, **outputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = classifier.build()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        if classifier.batch_norm:
            model.feature_norm.running_mean.normal_()
            model.feature_norm.running_var.uniform_(0.01, 4)
    return Weights(model.state_dict(), described(classifier, **description))


def assert_same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    differing = [name for name, value in one.items() if not value.equal(other[name])]
    assert not differing, f"{differing[:3]} differ"


def write_texture(folder: Path, sigma: float) -> None:
    """Noise through a Gaussian, whose correlation falls to one half in 1.67 sigma."""
    folder.mkdir()
    turns = 2 * np.pi * np.fft.fftfreq(64)
    gaussian = np.exp(-(sigma**2) / 2 * (turns[:, None] ** 2 + turns**2))
    for i in range(16):
        noise = np.fft.fft2(np.random.default_rng(i).standard_normal((64, 64)))
        texture = np.fft.ifft2(noise * gaussian).real
        scaled = 127 + 40 * texture / texture.std()
        Image.fromarray(np.uint8(scaled.clip(0, 255))).save(folder / f"{i}.png")


def stopped_after(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Sends SIGTERM to itself while that step is taken."""
    import unmask.engine.loop as loop

    original, count = loop.take_step, itertools.count(1)

    def interrupted(*arguments):
        if next(count) == step:
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", interrupted)
        with pytest.raises(Interrupted):
            act()


def linked(page: Path) -> set[str]:
    """Folders of the reports that a page links to, relative to its own; each report is there."""
    places = [unquote(place) for place in re.findall(r'<a href="([^"]*)">', page.read_text())]
    assert all((page.parent / place).is_file() for place in places)
    return {place.removesuffix("/report.html") for place in places}


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
