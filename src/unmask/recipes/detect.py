"""Recipes for detection and instance segmentation (paper, Table 4)."""

from collections.abc import Callable
from dataclasses import replace

from unmask.config.detect import (
    DetectConfig,
    DetectData,
    DetectOptim,
    DetectorParts,
    DetectRun,
    NewEncoder,
)
from unmask.config.settings import ModelSize

VITDET_WARMUP = 250 * 64 / 118_287
"""Epochs: 250 steps of 64 images on COCO."""


def detect_base() -> DetectConfig:
    """Mask R-CNN on ViT-B/16 with an FPN, COCO at 1024 pixels, 100 epochs (paper, Table 4).

    Claim (the paper's, not run here): 50.3 box AP and 44.9 mask AP after 1600 epochs of pre-training.
    Cost: 100 epochs of 118,000 images of 1024 x 1024 pixels; meant for 32 GPUs or more.
    Command: torchrun --nproc-per-node=8 -m unmask detect coco --recipe detect-base --init RUN
    """
    return DetectConfig(recipe="detect-base", data=DetectData(size=(1024,)))


def detect_large() -> DetectConfig:
    """ViT-L/16 with detect-base's settings: those of L were not published with the paper.

    Claim (the paper's, not run here): 53.3 box AP and 47.2 mask AP after 1600 epochs of pre-training;
    the paper searched learning rate, weight decay, drop path and epochs for it.
    Cost: three times detect-base.
    Command: torchrun --nproc-per-node=8 -m unmask detect coco --recipe detect-large --init RUN \
--sweep optim.base_lr 1.6e-4,3.2e-4 --detector.drop-path 0.2
    """
    base = detect_base()
    return replace(base, recipe="detect-large", model=NewEncoder(size="large"))


def detect_base_vitdet() -> DetectConfig:
    """ViTDet's settings for ViT-B/16: simple pyramid, windows of 14, LayerNorm in the heads.

    Claim (ViTDet's, not run here): 51.6 box AP and 45.9 mask AP. Its rate fell in two steps, here it
    follows a cosine.
    Cost: as detect-base.
    Command: torchrun --nproc-per-node=8 -m unmask detect coco --recipe detect-base-vitdet --init RUN
    """
    return _vitdet("detect-base-vitdet", "base", layer_decay=0.7, drop_path=0.1)


def detect_large_vitdet() -> DetectConfig:
    """ViTDet's settings for ViT-L/16.

    Claim (ViTDet's, not run here): 55.5 box AP and 49.2 mask AP. Its rate fell in two steps, here it
    follows a cosine.
    Cost: three times detect-base.
    Command: torchrun --nproc-per-node=8 -m unmask detect coco --recipe detect-large-vitdet --init RUN
    """
    return _vitdet("detect-large-vitdet", "large", layer_decay=0.8, drop_path=0.4)


def detect_huge_vitdet() -> DetectConfig:
    """ViTDet's settings for ViT-H, 75 epochs; patches of 14 pixels on a canvas of 896.

    Claim (ViTDet's, with patches of 16 on 1024 pixels, not run here): 56.7 box AP and 50.2 mask AP. Its
    rate fell in two steps, here it follows a cosine.
    Cost: five times detect-base.
    Command: torchrun --nproc-per-node=8 -m unmask detect coco --recipe detect-huge-vitdet --init RUN
    """
    huge = _vitdet("detect-huge-vitdet", "huge", layer_decay=0.9, drop_path=0.5)
    return replace(huge, data=replace(huge.data, size=(896,)), optim=replace(huge.optim, epochs=75.0))


def small_detect() -> DetectConfig:
    """A few hundred images, a small encoder, an hour on a CPU.

    Claim (measured here, benchmarks/detection.md): 36.0 % box AP50 on a generated set of five classes
    after 4000 steps from scratch.
    Cost: 3000 steps of 8 images of 160 pixels.
    Command: unmask detect DATA --recipe small-detect --init RUN
    """
    return DetectConfig(
        recipe="small-detect",
        data=DetectData(size=(160,), scale=(0.6, 1.6)),
        model=NewEncoder(size="tiny", patch=(16,)),
        detector=DetectorParts(
            pyramid="simple",
            window=None,
            relative_position="none",
            channels=64,
            head_norm="layer",
            head_width=256,
            anchor_scale=4.0,
            sampled_anchors=64,
            sampled_proposals=32,
            proposals=200,
            drop_path=0.0,
        ),
        optim=DetectOptim(
            base_lr=16e-3, weight_decay=0.05, layer_decay=0.8, batch=8, steps=3000, warmup_steps=200
        ),
        run=DetectRun(evaluate_every=1000),
    )


def _vitdet(name: str, size: ModelSize, *, layer_decay: float, drop_path: float) -> DetectConfig:
    base = detect_base()
    return replace(
        base,
        recipe=name,
        model=NewEncoder(size=size),
        detector=DetectorParts(
            pyramid="simple",
            window=14,
            relative_position="decomposed",
            head_norm="layer",
            drop_path=drop_path,
        ),
        optim=replace(base.optim, base_lr=4e-4, layer_decay=layer_decay, warmup_epochs=VITDET_WARMUP),
    )


DETECT: dict[str, Callable[[], DetectConfig]] = {
    "detect-base": detect_base,
    "detect-large": detect_large,
    "detect-base-vitdet": detect_base_vitdet,
    "detect-large-vitdet": detect_large_vitdet,
    "detect-huge-vitdet": detect_huge_vitdet,
    "small-detect": small_detect,
}
