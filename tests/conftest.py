"""Small data that the tests make themselves. Shapes in signatures are checked here, and only here."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

hypothesis.settings.register_profile("unhurried", deadline=None)  # machines of CI are busy
hypothesis.settings.load_profile("unhurried")
torch.set_num_threads(1)  # tiny operations only get in each other's way
# Once fake tensors have registered a GPU, a first backward would start its threads, and tests that fork
# and train could not any more: the first is here.
torch.ones(1, requires_grad=True).sum().backward()
install_import_hook(["unmask.core", "unmask.models"], "beartype.beartype")

from unmask.config.classify import (  # noqa: E402  # after the hook
    Augment,
    Head,
    LabelledData,
    LabelledRun,
    TuneOptim,
)
from unmask.config.commands import PretrainConfig, PretrainData, ScratchConfig  # noqa: E402
from unmask.config.settings import Autoencoder, Encoder, FeatureProbe, Optim, Run  # noqa: E402


@pytest.fixture
def children() -> Callable[[], list[int]]:
    """The processes that this test has begun; the traceback of an earlier one may still keep others."""
    earlier = set(multiprocessing.active_children())
    return lambda: [one.pid for one in multiprocessing.active_children() if one not in earlier]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(request, monkeypatch) -> None:
    """Files that are not synced, but for tests that are marked `synced`; others cannot tell."""
    if request.node.get_closest_marker("synced") is None:
        monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture
def blank_charts(request, monkeypatch) -> None:
    """Charts of the usual sizes without their contents, but for tests that are marked `drawn`.

    For modules of other matters: to draw its charts is the most that a tiny run does.
    """

    def draw(canvas: FigureCanvasAgg) -> None:
        canvas.renderer = canvas.get_renderer()

    if request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr(FigureCanvasAgg, "draw", draw)


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
    """A run of 7 steps in fp32: 4 x 6 patches, batches of 6 in micro-batches of 4 and 2."""
    return PretrainConfig(
        out=str(tmp_path / "run"),
        data=PretrainData(source=(str(photos),), size=(16, 24), held_out=4, workers=0),
        model=Autoencoder(
            patch=(4,), width=16, depth=2, heads=2, decoder_width=8, decoder_depth=2, decoder_heads=2
        ),
        optim=Optim(steps=7, warmup_steps=2, batch=6, micro_batch=4, base_lr=0.1),
        probe=FeatureProbe(every=7),
        run=Run(precision="fp32", log_every=2, evaluate_every=3, sample_every=7, checkpoint_every=2),
    )


ENCODER = Encoder(patch=(4,), width=16, depth=2, heads=2)
STRIPES = {"near": 1.0, "dog & <b>": 3.0, "=far": 6.0}


@pytest.fixture(scope="session")
def stripes(tmp_path_factory) -> Path:
    """Three classes of stripes, 16 pictures each."""
    folder = tmp_path_factory.mktemp("labelled") / "stripes"
    rng = np.random.default_rng(0)
    x = np.arange(28) / 10
    for name, frequency in STRIPES.items():
        (folder / name).mkdir(parents=True)
        for i in range(16):
            row = 127 + 100 * np.sin(frequency * x + rng.uniform(0, 6))
            noisy = row + rng.normal(0, 15, (20, 28))
            Image.fromarray(np.uint8(noisy.clip(0, 255))).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def scratch(stripes, tmp_path) -> ScratchConfig:
    """A classifier from scratch in fp32, with everything random switched on."""
    return ScratchConfig(
        out=str(tmp_path / "run"),
        data=LabelledData(source=(str(stripes),), size=(16, 24), workers=0, crop_scale=(0.5, 1)),
        model=ENCODER,
        head=Head(drop_path=0.3),
        augment=Augment(erasing=0.3),
        optim=TuneOptim(
            steps=7, warmup_steps=2, batch=8, micro_batch=6, base_lr=0.05, layer_decay=0.75, ema=0.9
        ),
        run=LabelledRun(precision="fp32", log_every=1, evaluate_every=3, checkpoint_every=2),
    )
