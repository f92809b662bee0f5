"""Plans and weights for tests that need no images."""

import torch

from unmask.config.plan import DataFacts, Machine, Plan, TrainingPlan
from unmask.config.resolve import resolve
from unmask.config.schema import PretrainConfig
from unmask.core import Architecture, MaskedAutoencoder
from unmask.core.mae import new_encoder
from unmask.interop.description import Description, Head, Weights
from unmask.models.classifier import Classifier

CPU = Machine(device="cpu", name="a test", fast_bf16=False, cores=2)


def facts(images: int = 1_281_167, channels: int = 3) -> DataFacts:
    return DataFacts(
        training_images=images,
        held_out_images=256,
        channels=channels,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        fingerprint="",
        decoded_bytes=500 * 375 * 3,
    )


def resolved(config: PretrainConfig, images: int = 1_281_167, world_size: int = 1, **machine) -> Plan:
    at_hand = Machine(**{**vars(CPU), **machine})
    return resolve(config, facts=facts(images), machine=at_hand, world_size=world_size)


def plan_for(config: PretrainConfig) -> TrainingPlan:
    return resolved(config).training


def architecture_for(config: PretrainConfig) -> Architecture:
    return resolved(config, images=1000).architecture


def random_weights(architecture: Architecture, **description) -> Weights:
    """Every weight matters: none is zero or one, positions neither."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MaskedAutoencoder(architecture)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.02)
    channels = architecture.channels
    mean, std = tuple(0.4 + 0.01 * c for c in range(channels)), (0.2,) * channels
    return Weights(
        model.state_dict(),
        Description(architecture=architecture, mean=mean, std=std, **description),
    )


def random_classifier(architecture: Architecture, head: Head, **description) -> Weights:
    """As a fine-tuned run leaves it, a probe with statistics of features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(
            new_encoder(architecture),
            classes=len(head.classes),
            pool=head.pool,
            normalize_features=head.batch_norm,
        )
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        if head.batch_norm:
            model.feature_norm.running_mean.normal_()
            model.feature_norm.running_var.uniform_(0.01, 4)
    channels = architecture.channels
    mean, std = tuple(0.4 + 0.01 * c for c in range(channels)), (0.2,) * channels
    description = {"kind": "classifier", "has_decoder": False, "head": head, **description}
    return Weights(
        model.state_dict(), Description(architecture=architecture, mean=mean, std=std, **description)
    )


def assert_same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    differing = [name for name, value in one.items() if not value.equal(other[name])]
    assert not differing, f"{differing[:3]} differ"
