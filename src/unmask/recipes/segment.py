"""Recipes for semantic segmentation."""

from collections.abc import Callable
from dataclasses import replace

from unmask.config.segment import SegmentConfig, SegmentData, SegmentHead, SegmentOptim
from unmask.config.settings import Encoder, ModelSize


def segment_base() -> SegmentConfig:
    """UperNet on ViT-B/16 for ADE20K (paper, Table 5), 160,000 steps of 16 crops of 512 pixels.

    Claim (the paper's, not run here): 48.1 mIoU on ADE20K after 1600 epochs of pre-training.
    Cost: 160,000 steps of 16 images; meant for 8 GPUs.
    Command: torchrun --nproc-per-node=8 -m unmask segment ade20k --recipe segment-base --init RUN
    """
    return _table_5("segment-base", "base", rate=1e-4, layer_decay=0.65, drop_path=0.1)


def segment_large() -> SegmentConfig:
    """UperNet on ViT-L/16 for ADE20K (paper, Table 5); rate, decay and drop path are BEiT-L's.

    Claim (the paper's, not run here): 53.6 mIoU on ADE20K after 1600 epochs of pre-training.
    Cost: 160,000 steps of 16 images; meant for 8 GPUs.
    Command: torchrun --nproc-per-node=8 -m unmask segment ade20k --recipe segment-large --init RUN
    """
    return _table_5("segment-large", "large", rate=2e-5, layer_decay=0.95, drop_path=0.2)


def small_segment() -> SegmentConfig:
    """UperNet with a narrow head on a small encoder: a few hundred images, minutes on two cores.

    Claim (measured here, benchmarks/segmentation.md): 33.7 % mean IoU on a generated set of six classes,
    after 2500 steps of pre-training on its images.
    Cost: 1500 steps of 16 crops of the encoder's size.
    Command: unmask segment DATA --recipe small-segment --init RUN
    """
    return SegmentConfig(
        recipe="small-segment",
        data=SegmentData(scale=(0.75, 1.5)),
        model=Encoder(size="tiny", patch=(8,), depth=6),
        head=SegmentHead(width=64),
        optim=SegmentOptim(
            base_lr=8e-3, layer_decay=0.75, weight_decay=0.05, batch=16, steps=1500, warmup_steps=100
        ),
    )


def segment_probe() -> SegmentConfig:
    """A linear layer on every patch of a frozen encoder: how much spatial information its features hold.

    Claim (measured here, benchmarks/segmentation.md): 23.3 % mean IoU on a generated set of six classes,
    21.4 % with a random encoder.
    Cost: 1500 steps of 16 crops of the encoder's size, forward only.
    Command: unmask segment DATA --recipe segment-probe --init RUN
    """
    small = small_segment()
    return replace(
        small,
        recipe="segment-probe",
        head=SegmentHead(kind="linear", frozen=True),
        optim=replace(small.optim, base_lr=32e-3, layer_decay=1.0, weight_decay=0.0),
    )


def _table_5(
    name: str, size: ModelSize, *, rate: float, layer_decay: float, drop_path: float
) -> SegmentConfig:
    return SegmentConfig(
        recipe=name,
        data=SegmentData(size=(512,), resize=(2048, 512)),
        model=Encoder(size=size),
        head=SegmentHead(drop_path=drop_path),
        optim=SegmentOptim(
            base_lr=rate * 256 / 16,
            layer_decay=layer_decay,
            weight_decay=0.05,
            batch=16,
            steps=160_000,
            warmup_steps=1500,
        ),
    )


SEGMENT: dict[str, Callable[[], SegmentConfig]] = {
    "segment-base": segment_base,
    "segment-large": segment_large,
    "small-segment": small_segment,
    "segment-probe": segment_probe,
}
