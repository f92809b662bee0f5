"""The same training step in other libraries: transformers' ViTMAE and lightly's MAE modules.

All get the same dimensions, target, images and masks; optimizer, precision and clock are ours for all.
Libraries that are not installed, or cannot build the model, are left out, with a note.
"""

import importlib.metadata
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from unmask.bench.limit import Limit
from unmask.bench.model import Setting, make_setting
from unmask.bench.setting import BenchConfig
from unmask.bench.step import TrainingStep, our_step
from unmask.core.masking import mask_from_noise
from unmask.core.spec import MAESpec
from unmask.cost.cards import Card
from unmask.engine.machine import threads

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Seed of images and mask noise."""


def bench_peers(config: BenchConfig) -> list[Card]:
    """A card for each model, with all libraries that are there and can build it."""
    with threads(config.threads):
        names = config.model or ("base",)
        return [_compare(make_setting(config, name), config.rounds) for name in names]


def _compare(setting: Setting, rounds: int) -> Card:
    """Libraries take turns within each round."""
    steps, left_out = {"unmask": our_step(setting)}, []
    for name, build in PEERS.items():
        try:
            steps[name] = _peer_step(setting, build)
        except ImportError as error:
            left_out.append(f"left out: {name}: {error}; pip install 'unmask[peers]'")
        except ValueError as error:
            left_out.append(f"left out: {name}: {error}")
    limit = Limit(setting)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    limits = []
    for step in steps.values():
        step.run()  # warms up
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(step.run().total)
        limits.append(limit.measure())
    sizes = {name: step.parameters for name, step in steps.items()}
    return _card(setting, seconds, sizes, median(limits), left_out)


def _peer_step(
    setting: Setting, build: Callable[[MAESpec], tuple[nn.Module, LossFunction]]
) -> TrainingStep:
    _check_suits(setting.spec)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what their dependencies deprecate
        model, loss = build(setting.spec)
    model.to(setting.device).train()
    return TrainingStep(setting, model, torch.compile(loss) if setting.plan.training.compile else loss)


def _check_suits(spec: MAESpec) -> None:
    """Raises ValueError if the other libraries cannot build this model."""
    e, mask = spec.encoder, spec.mask
    usual_mask = mask.strategy == "random" and mask.unit == 1 and not mask.tokens_in_encoder
    usual = usual_mask and e.class_tokens == 1 and spec.target.loss_on == "masked"
    if not usual or len({*e.image_size}) > 1 or len({*e.patch_size}) > 1:
        raise ValueError(
            "it takes square images with one class token and the loss on masked patches: choose another "
            "--model"
        )


def build_transformers(spec: MAESpec) -> tuple[nn.Module, LossFunction]:
    """ViTMAEForPreTraining."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    e, d = spec.encoder, spec.decoder
    config = ViTMAEConfig(
        image_size=e.image_size[0],
        patch_size=e.patch_size[0],
        num_channels=e.channels,
        hidden_size=e.width,
        num_hidden_layers=e.depth,
        num_attention_heads=e.heads,
        intermediate_size=int(e.width * e.mlp_ratio),
        decoder_hidden_size=d.width,
        decoder_num_hidden_layers=d.depth,
        decoder_num_attention_heads=d.heads,
        decoder_intermediate_size=int(d.width * d.mlp_ratio),
        mask_ratio=spec.mask.ratio,
        norm_pix_loss=spec.target.kind == "normalized-pixels",
        layer_norm_eps=1e-6,
    )
    model = ViTMAEForPreTraining(config)
    return model, lambda images, noise: model(images, noise=noise).loss


def build_lightly(spec: MAESpec) -> tuple[nn.Module, LossFunction]:
    """Its encoder and decoder around timm's blocks, put together as its documentation does."""
    from lightly.models import utils
    from lightly.models.modules import (
        MaskedVisionTransformerDecoderTIMM,
        MaskedVisionTransformerTIMM,
    )
    from timm.models.vision_transformer import VisionTransformer

    e, d = spec.encoder, spec.decoder
    vit = VisionTransformer(
        img_size=e.image_size,
        patch_size=e.patch_size,
        in_chans=e.channels,
        num_classes=0,
        embed_dim=e.width,
        depth=e.depth,
        num_heads=e.heads,
        mlp_ratio=e.mlp_ratio,
    )
    encoder = MaskedVisionTransformerTIMM(vit=vit)
    decoder = MaskedVisionTransformerDecoderTIMM(
        num_patches=e.patches,
        embed_dim=d.width,
        depth=d.depth,
        num_heads=d.heads,
        mlp_ratio=d.mlp_ratio,
    )
    embed = nn.Linear(e.width, d.width)
    predict = nn.Linear(d.width, e.values_per_patch)

    def loss(images: Tensor, noise: Tensor) -> Tensor:
        mask = mask_from_noise(noise, e.grid, spec.visible)
        class_token = torch.zeros_like(mask.visible[:, :1])
        seen, hidden = torch.cat([class_token, mask.visible + 1], dim=1), mask.masked + 1
        latent = embed(encoder.encode(images=images, idx_keep=seen))
        tokens = utils.repeat_token(decoder.mask_token, (len(images), decoder.sequence_length))
        tokens = utils.set_at_index(tokens, seen, latent.type_as(tokens))
        prediction = predict(utils.get_at_index(decoder(tokens), hidden))
        target = utils.get_at_index(utils.patchify(images, e.patch_size[0]), mask.masked)
        if spec.target.kind == "normalized-pixels":
            target = utils.normalize_mean_var(target)
        return nn.functional.mse_loss(prediction.float(), target)

    return nn.ModuleList([encoder, decoder, embed, predict]), loss


PEERS = {"transformers": build_transformers, "lightly": build_lightly}
"""Names of the packages, and how each builds the model."""


def _card(
    setting: Setting,
    seconds: dict[str, list[float]],
    sizes: dict[str, int],
    limit: float,
    left_out: list[str],
) -> Card:
    ours = median(seconds["unmask"])
    libraries: list[dict[str, Any]] = [
        {
            "name": name,
            "version": importlib.metadata.version(name),
            "seconds": median(measured),
            "seconds_of_rounds": measured,
            "images_per_second": setting.batch / median(measured),
            "share_of_limit": limit / median(measured),
            "unmask_is_faster": median(measured) / ours,
            "trained_parameters": sizes[name],
        }
        for name, measured in seconds.items()
    ]
    rounds = len(seconds["unmask"])
    return Card(
        title=f"A training step here and elsewhere, medians of {rounds}",
        setting=setting.facts(),
        columns=("", "images/s", "seconds", "from", "to", "share of limit", "unmask is", "parameters"),
        rows=[_row(library) for library in libraries],
        notes=left_out,
        record={
            "bench": "peers",
            **setting.facts(),
            "rounds": rounds,
            "limit_seconds": limit,
            "libraries": libraries,
            "left_out": left_out,
        },
    )


def _row(library: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{library['name']} {library['version']}",
        f"{library['images_per_second']:.4g}",
        f"{library['seconds']:.4g}",
        f"{min(library['seconds_of_rounds']):.4g}",
        f"{max(library['seconds_of_rounds']):.4g}",
        f"{library['share_of_limit']:.0%}",
        f"{library['unmask_is_faster']:.2f}x",
        f"{library['trained_parameters'] / 1e6:.4g}M",
    )
