"""The losses of a small run, as they were: a change that should not change numbers leaves them alone.

Write them anew with: python tests/golden/test_loss_curve.py
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unmask
from unmask.config.commands import PretrainConfig, PretrainData
from unmask.config.settings import Autoencoder, Optim, Run

pytestmark = pytest.mark.usefixtures("blank_charts")

GOLDEN = Path(__file__).with_name("losses.json")
OTHER_MACHINE_TOLERANCE = 1e-4
"""Relative. Another processor or torch adds numbers up in another order."""


def losses(folder: Path, target: str) -> list[float]:
    source = folder / "images"
    source.mkdir(exist_ok=True)
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 32), Image.Resampling.BILINEAR).save(source / f"{i:02d}.png")
    config = PretrainConfig(
        out=str(folder / target),
        data=PretrainData(source=(str(source),), size=(16, 24), held_out=4, workers=0),
        model=Autoencoder(
            patch=(4,), width=24, depth=2, heads=3, decoder_width=16, decoder_depth=2, decoder_heads=2
        ),
        optim=Optim(steps=20, warmup_steps=4, batch=8, micro_batch=5, base_lr=0.1),
        run=Run(precision="fp32", log_every=1),
    )
    run = unmask.pretrain(replace(config, target=replace(config.target, kind=target)))
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["step"]]


def machine() -> str:
    threads = torch.get_num_threads()
    return f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {threads} thread(s)"


@pytest.mark.parametrize("target", ["pixels", "normalized-pixels"])
def test_losses_are_as_they_were(tmp_path, target):
    golden = json.loads(GOLDEN.read_text())
    got = losses(tmp_path, target)
    if machine() == golden["machine"]:
        assert got == golden[target]
    else:
        assert got == pytest.approx(golden[target], rel=OTHER_MACHINE_TOLERANCE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        curves = {t: losses(Path(place), t) for t in ("pixels", "normalized-pixels")}
    GOLDEN.write_text(json.dumps({"machine": machine(), **curves}, indent=1) + "\n")
