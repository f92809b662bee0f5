"""Plans for tests that need no images."""

from unmask.config.plan import DataFacts, Machine, Plan, TrainingPlan
from unmask.config.resolve import resolve
from unmask.config.schema import PretrainConfig
from unmask.core import Architecture

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
