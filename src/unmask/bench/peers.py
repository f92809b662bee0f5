"""The same training step in other libraries: transformers' ViTMAE and lightly's MAE modules.

All get the same dimensions, target, images and masks; optimizer, precision and clock are ours for all.
Libraries that are not installed, or cannot build the model, are left out, and said to be.
"""

import importlib.metadata
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from unmask.bench.card import Card
from unmask.bench.limit import Limit
from unmask.bench.setting import BenchConfig, Setting, make_setting, threads
from unmask.bench.step import TrainingStep, our_step
from unmask.core.mae import Architecture
from unmask.core.masking import mask_from_noise
from unmask.core.patches import grid_of

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Of images and mask noise."""


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
    setting: Setting, build: Callable[[Architecture], tuple[nn.Module, LossFunction]]
) -> TrainingStep:
    _check_suits(setting.architecture)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what their dependencies deprecate
        model, loss = build(setting.architecture)
    model.to(setting.device).train()
    return TrainingStep(setting, model, torch.compile(loss) if setting.plan.training.compile else loss)


def _check_suits(a: Architecture) -> None:
    """Raises ValueError where the other libraries cannot build this model."""
    variant = (
        a.class_tokens != 1 or a.mask_unit != 1 or a.mask_tokens_in_encoder or a.loss_on != "masked"
    )
    if variant or len({*a.image_size}) > 1 or len({*a.patch_size}) > 1:
        raise ValueError(
            "it takes square images with one class token and the loss on masked patches: choose another "
            "--model"
        )


def build_transformers(a: Architecture) -> tuple[nn.Module, LossFunction]:
    """ViTMAEForPreTraining."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        image_size=a.image_size[0],
        patch_size=a.patch_size[0],
        num_channels=a.channels,
        hidden_size=a.width,
        num_hidden_layers=a.depth,
        num_attention_heads=a.heads,
        intermediate_size=int(a.width * a.mlp_ratio),
        decoder_hidden_size=a.decoder_width,
        decoder_num_hidden_layers=a.decoder_depth,
        decoder_num_attention_heads=a.decoder_heads,
        decoder_intermediate_size=int(a.decoder_width * a.mlp_ratio),
        mask_ratio=a.mask_ratio,
        norm_pix_loss=a.target == "normalized-pixels",
        layer_norm_eps=1e-6,
    )
    model = ViTMAEForPreTraining(config)
    return model, lambda images, noise: model(images, noise=noise).loss


def build_lightly(a: Architecture) -> tuple[nn.Module, LossFunction]:
    """Its encoder and decoder around timm's blocks, put together as its documentation does."""
    from lightly.models import utils
    from lightly.models.modules import (
        MaskedVisionTransformerDecoderTIMM,
        MaskedVisionTransformerTIMM,
    )
    from timm.models.vision_transformer import VisionTransformer

    grid = grid_of(a.image_size, a.patch_size)
    vit = VisionTransformer(
        img_size=a.image_size,
        patch_size=a.patch_size,
        in_chans=a.channels,
        num_classes=0,
        embed_dim=a.width,
        depth=a.depth,
        num_heads=a.heads,
        mlp_ratio=a.mlp_ratio,
    )
    encoder = MaskedVisionTransformerTIMM(vit=vit)
    decoder = MaskedVisionTransformerDecoderTIMM(
        num_patches=grid[0] * grid[1],
        embed_dim=a.decoder_width,
        depth=a.decoder_depth,
        num_heads=a.decoder_heads,
        mlp_ratio=a.mlp_ratio,
    )
    embed = nn.Linear(a.width, a.decoder_width)
    predict = nn.Linear(a.decoder_width, a.values_per_patch)

    def loss(images: Tensor, noise: Tensor) -> Tensor:
        mask = mask_from_noise(noise, grid, a.mask_ratio)
        class_token = torch.zeros_like(mask.visible[:, :1])
        seen, hidden = torch.cat([class_token, mask.visible + 1], dim=1), mask.masked + 1
        latent = embed(encoder.encode(images=images, idx_keep=seen))
        tokens = utils.repeat_token(decoder.mask_token, (len(images), decoder.sequence_length))
        tokens = utils.set_at_index(tokens, seen, latent.type_as(tokens))
        prediction = predict(utils.get_at_index(decoder(tokens), hidden))
        target = utils.get_at_index(utils.patchify(images, a.patch_size[0]), mask.masked)
        if a.target == "normalized-pixels":
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
