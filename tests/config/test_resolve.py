"""From request to plan."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests_support import facts, resolved
from unmask.config.commands import PretrainConfig, PretrainData
from unmask.config.fields import pair
from unmask.config.io import from_dict, to_json
from unmask.config.plan import Plan
from unmask.config.settings import Autoencoder, Mask, Optim, Run
from unmask.tasks.pretrain import Pretrain

DEFAULT = PretrainConfig()


def test_the_papers_numbers():
    plan = resolved(DEFAULT)
    t, m, e = plan.training, plan.model, plan.model.encoder
    assert t.lr == pytest.approx(1.5e-4 * 4096 / 256)
    assert t.steps == -(-800 * 1_281_167 // 4096)
    assert t.warmup_steps == round(40 * 1_281_167 / 4096)
    assert (e.width, e.depth, e.heads, e.patch_size) == (768, 12, 12, (16, 16))
    assert (m.decoder.width, m.decoder.depth, m.decoder.heads) == (512, 8, 16)
    assert (m.visible, m.masked) == (49, 147)
    assert any("49" in note and "147" in note for note in Pretrain(DEFAULT).check(plan, None))


def test_processes_and_micro_batches():
    config = replace(DEFAULT, optim=Optim(batch=96, micro_batch=20))
    t = resolved(config, world_size=4).training
    assert (t.process_batch, t.micro_batch) == (24, 20)


@pytest.mark.parametrize(
    ("asked", "fast", "chosen"),
    [("auto", True, "bf16"), ("auto", False, "fp32"), ("bf16", False, "bf16"), ("fp32", True, "fp32")],
)
def test_precision(asked, fast, chosen):
    config = replace(DEFAULT, run=Run(precision=asked))
    plan = resolved(config, fast_bf16=fast)
    assert plan.training.precision == chosen
    assert any("bf16" in note for note in plan.notes) == (asked != "fp32")


def test_micro_batch_on_a_gpu():
    assert resolved(DEFAULT, device="cuda").training.micro_batch == 128
    assert resolved(DEFAULT).training.micro_batch == 4096


@pytest.mark.parametrize(
    ("run", "steps", "batch", "compiled"),
    [
        (Run(), 9_999, 128, False),  # it would take longer than it saves
        (Run(), 10_000, 128, True),
        (Run(), 5_000, 256, True),  # as many micro-batches
        (Run(time="4m"), None, 128, False),
        (Run(time="5m"), None, 128, True),
        (Run(compile="off"), 10_000, 128, False),
        (Run(compile="on"), 10, 128, True),
    ],
)
def test_compiles_on_a_gpu_if_the_run_is_long_enough(run, steps, batch, compiled):
    config = replace(DEFAULT, run=run, optim=Optim(steps=steps, warmup_steps=1, batch=batch))
    assert resolved(config, device="cuda", compiles=True).training.compile is compiled
    assert resolved(config, device="cuda", compiles=False).training.compile is (run.compile == "on")


def model(**changes) -> dict:
    return {"model": Autoencoder(**changes)}


def optim(**changes) -> dict:
    return {"optim": Optim(**changes)}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": PretrainData(size=(220,))}, r"patch of 16 pixels does not divide.*224"),
        ({"data": PretrainData(size=(1, 2, 3))}, r"--data.size 96 160"),
        ({"data": PretrainData(crop_scale=(0.0, 1.0))}, r"--data.crop-scale"),
        (model(width=770), r"choose --model.width 768"),
        (model(decoder_width=100), r"--model.decoder-width"),
        (model(depth=0), r"--model.depth is 0"),
        (model(heads=0), r"--model.heads is 0"),
        (model(class_tokens=-1), r"class-tokens"),
        (optim(batch=0), r"--optim.batch is 0 and must be 1 or more"),
        (optim(base_lr=math.inf), r"--optim.base-lr is inf and must be finite"),
        (optim(base_lr=math.nan), r"--optim.base-lr is nan and must be finite"),
        (optim(clip=-1.0), r"--optim.clip"),
        (optim(betas=(1.0, 1.0)), r"--optim.betas takes two numbers .* got 1 1: write"),
        ({"mask": Mask(ratio=1.5)}, r"ratio of 1.5 is no share .* between 0 and 1"),
        (optim(ema=1.5), r"between 0 and 1"),
        ({"run": Run(log_every=0)}, r"--run.log-every"),
        ({"run": Run(seed=-1)}, r"--run.seed"),
        ({"data": PretrainData(std=(0.2, 0.0, 0.2))}, r"--data.std"),
        (optim(warmup_steps=10, steps=5), r"--optim.warmup-steps"),
        (optim(batch=2_000_000), r"--optim.batch 1048576"),
    ],
)
def test_what_does_not_fit_says_the_fix(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        resolved(replace(DEFAULT, **changes))


def test_04_world_size_that_does_not_divide_the_batch():
    with pytest.raises(ValueError, match=r"3 processes .* 4095 or 4098"):
        resolved(DEFAULT, world_size=3)


def test_mask_ratio_that_keeps_nothing():
    config = replace(DEFAULT, mask=replace(DEFAULT.mask, ratio=0.999))
    with pytest.raises(ValueError, match="keeps 0 of 196"):
        resolved(config)


@given(st.integers(1, 9), st.integers(1, 9))
def test_pair(height, width):
    assert pair("x", (height,)) == (height, height)
    assert pair("x", (height, width)) == (height, width)


def test_json_round_trip():
    import json

    config = replace(DEFAULT, data=PretrainData(size=(96, 160), mean=(0.5,)))
    assert from_dict(PretrainConfig, json.loads(to_json(config))) == config
    plan = resolved(config)
    assert from_dict(Plan, json.loads(to_json(plan))) == plan
    with pytest.raises(ValueError, match="has no speed"):
        from_dict(PretrainConfig, {"speed": 1})
    assert facts().held_out_images == 256
