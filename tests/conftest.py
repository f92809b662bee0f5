"""Small data that the tests make themselves. Shapes in signatures are checked here, and only here."""

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from PIL import Image

hypothesis.settings.register_profile("unhurried", deadline=None)  # machines of CI are busy
hypothesis.settings.load_profile("unhurried")
torch.set_num_threads(1)  # tiny operations only get in each other's way
install_import_hook(["unmask.core", "unmask.models"], "beartype.beartype")

from unmask.config.schema import (  # noqa: E402  # after the hook
    DataConfig,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    ProbeConfig,
    RunConfig,
)


def photograph(number: int, height: int = 30, width: int = 44) -> Image.Image:
    """A smooth colourful picture, different for each number."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width] / 10.0
    waves = [
        np.sin(x * rng.uniform(0.3, 2) + y * rng.uniform(0.3, 2) + rng.uniform(0, 6)) for _ in "rgb"
    ]
    return Image.fromarray(np.uint8(127 + 120 * np.stack(waves, axis=-1)))


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """24 readable colour images in a nested folder."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for i in range(24):
        place = folder / ("deeper/still" if i % 3 else "near")
        place.mkdir(parents=True, exist_ok=True)
        photograph(i).save(place / f"picture-{i:02d}.{('png', 'jpg')[i % 2]}")
    return folder


@pytest.fixture
def tiny(photos, tmp_path) -> PretrainConfig:
    """A run of 7 steps: 4 x 6 patches, batches of 6 in micro-batches of 4 and 2."""
    return PretrainConfig(
        out=str(tmp_path / "run"),
        data=DataConfig(source=(str(photos),), size=(16, 24), held_out=4, workers=0),
        model=ModelConfig(
            patch=(4,), width=16, depth=2, heads=2, decoder_width=8, decoder_depth=2, decoder_heads=2
        ),
        optim=OptimConfig(steps=7, warmup_steps=2, batch=6, micro_batch=4, base_lr=0.1),
        probe=ProbeConfig(every=7),
        run=RunConfig(log_every=2, evaluate_every=3, sample_every=7, checkpoint_every=2),
    )
