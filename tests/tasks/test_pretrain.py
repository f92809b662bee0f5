"""Runs of every shape and option: they train, they reconstruct, and they keep their promises."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unmask
from conftest import photograph
from tests_support import mae_spec, random_weights
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import LossOn
from unmask.engine.machine import detect_machine
from unmask.interop.official import to_official
from unmask.interop.weights import write_model
from unmask.storage import unsealed

pytestmark = pytest.mark.usefixtures("blank_charts")

BF16_TOLERANCE = 2e-3
"""Relative, of losses; 3e-4 is usual here."""


def last_record(run) -> dict:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.drawn
def test_one_channel_96_by_160(tiny, tmp_path):
    folder = tmp_path / "grey"
    folder.mkdir()
    for i in range(12):
        photograph(i, 120, 200).convert("L").save(folder / f"{i}.tif")
    data = replace(tiny.data, source=(str(folder),), size=(96, 160))
    model = replace(tiny.model, patch=(16, 8))
    run = unmask.pretrain(replace(tiny, data=data, model=model))
    trained = unmask.load(run)
    assert trained.encoder.channels == 1
    assert trained.encoder.grid == (6, 20)
    assert len(trained.description.image.mean) == 1
    assert math.isfinite(last_record(run)["held_out/ratio"])
    for path in unmask.reconstruct(folder, init=run, out=tmp_path / "pictures", mask_ratio=0.9):
        with Image.open(path) as picture:
            assert picture.size[0] > 300


@pytest.mark.parametrize("target", ["pixels", "normalized-pixels"])
@pytest.mark.parametrize("loss_on", LossOn.__args__)
def test_objectives(tiny, target, loss_on):
    config = replace(tiny, target=replace(tiny.target, kind=target, loss_on=loss_on))
    run = unmask.pretrain(config)
    assert unmask.load(run).spec.target.kind == target
    assert math.isfinite(last_record(run)["held_out/ratio"])


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("mask", {"unit": 2}),
        ("model", {"class_tokens": 0}),
        ("model", {"class_tokens": 3}),
        ("model", {"decoder_depth": 1}),
        ("optim", {"clip": 0.1}),
        ("data", {"held_out": 0}),
    ],
)
def test_options(tiny, section, changes):
    config = replace(tiny, **{section: replace(getattr(tiny, section), **changes)})
    run = unmask.pretrain(config)
    assert math.isfinite(last_record(run)["loss"])
    assert isinstance(unmask.load(run), MaskedAutoencoder)


def test_bf16_learns_what_fp32_does(tiny, tmp_path):
    """On every processor; bf16 has 8 bits of precision: 1/256 is its rounding of one number."""
    found = {}
    for precision in ("fp32", "bf16"):
        out, run = str(tmp_path / precision), replace(tiny.run, precision=precision, log_every=1)
        path = unmask.pretrain(replace(tiny, out=out, run=run))
        assert json.loads((path / "plan.json").read_text())["training"]["precision"] == precision
        records = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
        found[precision] = [(r["loss"], r["grad_norm"]) for r in records if r["step"]]
    assert found["bf16"] != found["fp32"]
    for (loss, norm), (exact_loss, exact_norm) in zip(found["bf16"], found["fp32"], strict=True):
        assert loss == pytest.approx(exact_loss, rel=BF16_TOLERANCE)
        assert norm == pytest.approx(exact_norm, rel=5 * BF16_TOLERANCE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_compiled_run_learns_the_same(tiny, tmp_path):
    """In a process of its own: the shape checks of the tests stop the compiler."""
    import subprocess
    import sys

    from unmask.config.io import to_json

    tiny = replace(tiny, model=replace(tiny.model, depth=1, decoder_depth=1))
    tiny = replace(tiny, optim=replace(tiny.optim, steps=3, micro_batch=None))
    losses = []
    for compiled in (False, True):
        out = tmp_path / f"compiled-{compiled}"
        config = replace(tiny, recipe="", out=None, run=replace(tiny.run, log_every=1))
        (tmp_path / "config.json").write_text(to_json(config))
        words = ["pretrain", "--recipe", str(tmp_path / "config.json"), "--out", str(out)]
        switch = ["--run.compile", "on"] if compiled else []
        result = subprocess.run(
            [sys.executable, "-m", "unmask", *words, *switch],
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        losses.append(last_record(out)["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_average_is_what_is_kept(tiny):
    run = unmask.pretrain(replace(tiny, optim=replace(tiny.optim, ema=0.5)))
    kept = load_file(run / "model.safetensors")
    newest = max((run / "checkpoints").iterdir())
    average, last = load_file(newest / "average.safetensors"), load_file(newest / "model.safetensors")
    name = "encoder.blocks.0.mlp.fc1.weight"
    assert kept[name].equal(average[name])
    assert not kept[name].equal(last[name])
    assert unmask.load(run).description.weights == "EMA"


def test_init_from_an_encoder_leaves_the_decoder_new(tiny, tmp_path):
    first = unmask.pretrain(tiny)
    state = load_file(first / "model.safetensors")
    encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
    description = unsealed(json.loads((first / "model.json").read_text()))
    (tmp_path / "encoder").mkdir()
    from safetensors.torch import save_file

    save_file(encoder, tmp_path / "encoder" / "model.safetensors")
    alone = {"type": "encoder", "encoder": description["model"]["encoder"]}
    (tmp_path / "encoder" / "model.json").write_text(
        json.dumps({**description, "model": alone, "sha256": None})
    )
    frozen = replace(tiny, out=str(tmp_path / "second"), optim=replace(tiny.optim, base_lr=0.0))
    second = load_file(unmask.pretrain(frozen, init=tmp_path / "encoder") / "model.safetensors")
    assert all(second[name].equal(value) for name, value in encoder.items())
    assert not second["decoder.mask_token"].equal(state["decoder.mask_token"])


def test_initial_weights_depend_on_the_seed_alone(tiny, tmp_path):
    still = replace(tiny, optim=replace(tiny.optim, base_lr=0.0))
    weights = []
    for i, seed in enumerate((0, 0, 1)):
        torch.rand(i + 1)  # whatever was drawn before
        config = replace(still, out=str(tmp_path / f"{i}"), run=replace(tiny.run, seed=seed))
        weights.append(load_file(unmask.pretrain(config) / "model.safetensors")["encoder.cls_token"])
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_a_device_that_is_not_there():
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"--run.device cpu"):
            detect_machine("cuda")


def test_images_are_seen_as_the_weights_of_init_saw_them(tiny, tmp_path):
    """With their mean and standard deviation, of a run or the official code, unless told otherwise."""
    spec = mae_spec(
        image_size=(16, 16), patch_size=(4, 4), channels=3, width=16, depth=2, heads=2,
        decoder_width=8, decoder_depth=2, decoder_heads=2,
    )  # fmt: skip
    weights = random_weights(spec)
    write_model(tmp_path, weights.state, weights.description)
    torch.save({"model": to_official(weights.state)}, tmp_path / "official.pth")
    known = weights.description.image
    image = unmask.pretrain(tiny, init=tmp_path, dry_run=True).image
    assert (image.mean, image.std) == (known.mean, known.std)
    image = unmask.pretrain(tiny, init=tmp_path / "official.pth", dry_run=True).image
    assert (image.mean, image.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = unmask.pretrain(tiny, init=tmp_path, dry_run=True, data_mean=(0.1, 0.2, 0.3)).image
    assert (image.mean, image.std) == ((0.1, 0.2, 0.3), known.std)
    assert unmask.pretrain(tiny, dry_run=True).image.mean != known.mean
