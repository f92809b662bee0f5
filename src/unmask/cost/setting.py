"""Models by name, and plans of runs on images that need not exist."""

from typing import get_args

from unmask.config.commands import PretrainConfig
from unmask.config.fields import pair
from unmask.config.image import ImageSpec
from unmask.config.plan import DataFacts, Machine, Plan
from unmask.config.resolve import resolve, resolve_autoencoder, resolve_encoder
from unmask.config.settings import Autoencoder, ModelSize
from unmask.core.spec import MAESpec
from unmask.data.mask_strategies import asked_mask
from unmask.interop.weights import read_weights
from unmask.models.tokenizer_spec import TokenizerSpec
from unmask.recipes.pretrain import PRETRAIN, laptop
from unmask.tasks import find_recipe
from unmask.tasks.tokens import tokenizer_spec

IMAGENET_IMAGES = 1_281_167
"""ImageNet-1K's training images."""

SMALL_STEP = "small-step"
"""A model for processors: 192 wide, 6 blocks, decoder 96 x 2 blocks, 144 patches; 64 images a step."""


def named_model(name: str) -> PretrainConfig:
    """A recipe, or the defaults around a size.

    Raises ValueError if there is none of that name.
    """
    if name == SMALL_STEP:
        return laptop()
    sizes: tuple[ModelSize, ...] = get_args(ModelSize)
    for size in sizes:
        if name == size:
            return PretrainConfig(model=Autoencoder(size=size))
    if name in PRETRAIN or not name.isidentifier():
        recipe: PretrainConfig = find_recipe("pretrain", name)
        return recipe
    raise ValueError(
        f"there is no model {name}: choose {SMALL_STEP}, one of {', '.join(sizes)}, or a recipe of "
        f"unmask list"
    )


def autoencoder_of(config: PretrainConfig) -> MAESpec:
    """The model of a configuration; for colour images, if it does not say."""
    d = config.data
    size, channels = pair("data.size", d.size), d.channels or 3
    encoder = resolve_encoder(config.model, size=size, channels=channels)
    tokenizer = tokenizer_of(config)
    return resolve_autoencoder(
        config.model,
        config.mask,
        config.target,
        size=size,
        channels=channels,
        given=asked_mask(config.mask, encoder.grid),
        vocabulary=tokenizer.vocabulary if tokenizer else None,
    )


def tokenizer_of(config: PretrainConfig) -> TokenizerSpec | None:
    """What gives the tokens of a configuration, if these are the target; DALL-E's if it does not say.

    Raises CheckpointError if what it names is no tokenizer.
    """
    target = config.target
    if target.kind != "tokens":
        return None
    if target.tokenizer is None:
        return TokenizerSpec(image_size=None, channels=config.data.channels or 3)
    return tokenizer_spec(read_weights(target.tokenizer).description, target.tokenizer)


def planned(
    config: PretrainConfig, machine: Machine, *, images: int = IMAGENET_IMAGES, processes: int = 1
) -> Plan:
    """The plan of a run on so many images, which need not exist."""
    spec, d = autoencoder_of(config), config.data
    channels = spec.encoder.channels
    return resolve(
        config,
        model=spec,
        image=ImageSpec(
            size=spec.encoder.image_size,
            channels=channels,
            mean=d.mean or (0.5,) * channels,
            std=d.std or (0.25,) * channels,
        ),
        facts=DataFacts(training_images=images, held_out_images=0, fingerprint="", decoded_bytes=0),
        machine=machine,
        world_size=processes,
    )


def planned_model(plan: Plan) -> MAESpec:
    """The autoencoder of a pre-training run's plan."""
    assert isinstance(plan.model, MAESpec)
    return plan.model
