"""Runs with every mask strategy and target: the same when resumed, and drawn in pixels."""

import json
import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import unmask
from faults.test_resume import assert_same_run, signal_at
from unmask.config.commands import PretrainConfig, ReconstructConfig
from unmask.config.settings import Mask, MaskChoice, Optim, Run, Target
from unmask.config.tokenizer import TokenizerConfig, TokenizerData, TokenizerModel
from unmask.core.spec import MAESpec
from unmask.errors import CheckpointError, DataError, Interrupted
from unmask.interop.weights import read_weights
from unmask.runs.run import run as train
from unmask.tasks.pretrain import Pretrain
from unmask.tasks.tokenizer import TrainTokenizer
from unmask.use.reconstruct import run_reconstruction

pytestmark = pytest.mark.usefixtures("blank_charts")

FP32 = Run(precision="fp32", log_every=1, evaluate_every=7, sample_every=7, checkpoint_every=2)


@pytest.fixture
def config(tiny) -> PretrainConfig:
    return replace(tiny, run=FP32, probe=replace(tiny.probe, images=0))


@pytest.fixture(scope="session")
def tokenizer(photos, tmp_path_factory) -> Path:
    """A tokenizer for 4 x 6 patches, trained a little."""
    return train(
        TrainTokenizer(
            TokenizerConfig(
                out=str(tmp_path_factory.mktemp("tokenizer") / "run"),
                data=TokenizerData(source=(str(photos),), size=(16, 24), held_out=4, workers=0),
                model=TokenizerModel(vocabulary=8, downsampling=4, width=8, blocks=1),
                optim=Optim(steps=30, warmup_steps=2, batch=8, micro_batch=5, base_lr=0.32),
                run=replace(FP32, evaluate_every=30, sample_every=30, checkpoint_every=10),
            )
        )
    )


def losses(run: Path) -> list[float]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["step"]]


def newest(run: Path, key: str) -> float:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record[key] for record in records if record.get(key) is not None][-1]


def settings(name: str, tokenizer: Path, tmp_path: Path) -> dict:
    np.save(tmp_path / "mask.npy", np.arange(24).reshape(4, 6) % 3 > 0)
    return {
        "block": {"mask": Mask(strategy="block")},
        "grid": {"mask": Mask(strategy="grid", decode_share=0.5)},
        "file": {"mask": Mask(file=str(tmp_path / "mask.npy"))},
        "pca": {"target": Target(kind="pca")},
        "tokens": {"target": Target(kind="tokens", tokenizer=str(tokenizer))},
    }[name]


@pytest.mark.parametrize("name", ["block", "grid", "file", "pca", "tokens"])
def test_a_stopped_run_goes_on_bit_for_bit(config, tokenizer, tmp_path, monkeypatch, name):
    config = replace(config, **settings(name, tokenizer, tmp_path))
    whole = train(Pretrain(replace(config, out=str(tmp_path / "whole"))))
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(Pretrain(config))
    assert_same_run(whole, train(Pretrain(config)))
    assert all(map(math.isfinite, losses(whole)))
    assert newest(whole, "held_out/error") > 0
    pictures = sorted(path.name for path in (whole / "samples").glob("*00000007.png"))
    assert pictures == ["reconstruction-00000007.png", "reconstruction-ratios-00000007.png"]


def test_the_log_says_the_true_ratio(config):
    run = train(Pretrain(replace(config, mask=Mask(strategy="grid"))))
    log = (run / "train.log").read_text()
    assert "the encoder sees 6 and the decoder predicts 18; grid mask, ratio 0.75" in log


def test_the_given_mask_is_in_the_model(config, tmp_path):
    run = train(Pretrain(replace(config, **settings("file", tmp_path, tmp_path))))
    spec = read_weights(run).description.model
    assert isinstance(spec, MAESpec)
    assert (spec.mask.strategy, spec.visible) == ("given", 8)
    assert spec.mask.given == tuple(np.flatnonzero(np.arange(24) % 3 > 0).tolist())


def test_principal_components_are_saved_and_start_the_next_run(config, tmp_path):
    first = train(Pretrain(replace(config, target=Target(kind="pca"))))
    basis = load_file(first / "model.safetensors")["target.basis"]
    assert basis.shape == (6, 48)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(6))
    second = replace(config, target=Target(kind="pca"), init=str(first), out=str(tmp_path / "second"))
    assert torch.equal(load_file(train(Pretrain(second)) / "model.safetensors")["target.basis"], basis)
    third = replace(config, init=str(first), out=str(tmp_path / "third"))
    assert (
        "decoder, which predicts normalized-pixels" in (train(Pretrain(third)) / "train.log").read_text()
    )


def test_a_tokenizer_learns_and_says_so(tokenizer):
    assert losses(tokenizer)[-1] < losses(tokenizer)[0]
    assert newest(tokenizer, "tokens/error") > 0
    assert 1 <= newest(tokenizer, "tokens/perplexity") <= 8
    assert (tokenizer / "samples/tokens-00000030.png").exists()
    assert "--target.tokenizer" in (tokenizer / "train.log").read_text()


def test_ids_are_the_same_after_saving_and_loading(tokenizer, tmp_path):
    model, images = unmask.load(tokenizer), torch.randn(2, 3, 16, 24)
    assert torch.equal(model.ids(images), unmask.load(tokenizer / "model.safetensors").ids(images))


@pytest.mark.slow
def test_cross_entropy_falls_below_the_entropy_of_the_tokens(config, tokenizer):
    run = train(
        Pretrain(
            replace(
                config,
                target=Target(kind="tokens", tokenizer=str(tokenizer)),
                optim=Optim(steps=150, warmup_steps=10, batch=10, base_lr=0.08),
                run=replace(FP32, evaluate_every=150, sample_every=150, checkpoint_every=150),
            )
        )
    )
    task = Pretrain(replace(config, target=Target(kind="tokens", tokenizer=str(tokenizer))))
    entropy = entropy_of_tokens(task)
    assert np.mean(losses(run)[-20:]) < entropy - 0.1


def entropy_of_tokens(task: Pretrain) -> float:
    """Of the frequencies of the tokens of whole training images."""
    from unmask.data.centre_crops import load_centre_crops
    from unmask.data.normalize import normalize
    from unmask.runs.run import dry_run

    plan = dry_run(task)
    image = plan.image
    crops = load_centre_crops(task.find().training, image)
    assert task.tokens is not None
    ids = task.tokens.ids(normalize(crops, image.mean, image.std))
    share = torch.bincount(ids.flatten(), minlength=8).double() / ids.numel()
    return float(torch.special.entr(share).sum())


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"mask": Mask(strategy="grid", ratio=0.5)}, ValueError, "choose --mask.ratio 0.75"),
        ({"mask": Mask(file="absent.npy")}, DataError, "absent.npy cannot be read"),
        ({"mask": Mask(file="mask.npy", strategy="block")}, ValueError, "leave out these, or the file"),
        ({"target": Target(kind="tokens")}, ValueError, "--target.tokenizer RUN"),
        ({"target": Target(components=5)}, ValueError, "or write --target.kind pca"),
        ({"target": Target(tokenizer="run")}, ValueError, "or write --target.kind tokens"),
        ({"target": Target(kind="pca", components=49)}, ValueError, "no 49 PCA coefficients"),
    ],
)
def test_what_does_not_fit_is_one_sentence(config, tmp_path, monkeypatch, changes, error, sentence):
    monkeypatch.chdir(tmp_path)
    np.save("mask.npy", np.arange(24).reshape(4, 6) % 3 > 0)
    with pytest.raises(error, match=sentence):
        train(Pretrain(replace(config, **changes)))


def test_a_tokenizer_of_another_grid(config, tokenizer):
    data = replace(config.data, size=(16, 16))
    target = Target(kind="tokens", tokenizer=str(tokenizer))
    with pytest.raises(
        ValueError, match=r"4 x 6 tokens and the model one of 4 x 4 .* --data.size 16 16"
    ):
        train(Pretrain(replace(config, data=data, target=target)))


def test_what_is_no_tokenizer(config, tmp_path):
    run = train(Pretrain(config))
    target = Target(kind="tokens", tokenizer=str(run))
    with pytest.raises(CheckpointError, match="is no tokenizer: give a run of unmask tokenizer"):
        train(Pretrain(replace(config, target=target, out=str(tmp_path / "other"))))


def pictures(config: ReconstructConfig, mask: np.ndarray | None = None, **asked) -> bytes:
    """The grid that reconstruct draws."""
    return run_reconstruction(replace(config, **asked), mask)[0].read_bytes()


def test_a_tokenizer_is_refused_by_what_it_is(photos, tokenizer, tmp_path):
    shown = {"init": str(tokenizer), "out": str(tmp_path / "out")}
    with pytest.raises(CheckpointError, match="is a tokenizer, which draws no masked patches: give"):
        unmask.reconstruct(photos, **shown)
    for use in (unmask.evaluate, unmask.predict):
        with pytest.raises(
            CheckpointError, match="is a tokenizer, which knows no classes: give a run of"
        ):
            use(photos, **shown)
    with pytest.raises(CheckpointError, match="give a run of pre-training or classification"):
        unmask.embed(photos, init=str(tokenizer), out=str(tmp_path / "features.safetensors"))


def test_reconstruct_takes_every_mask(config, photos, tmp_path):
    run, own = train(Pretrain(config)), np.arange(24).reshape(4, 6) % 3 > 0
    np.save(tmp_path / "mask.npy", own)
    plain = ReconstructConfig(source=(str(photos),), init=str(run), out=str(tmp_path / "out"), count=2)
    file = MaskChoice(file=str(tmp_path / "mask.npy"))
    grids = [
        pictures(plain),
        pictures(plain, own),
        pictures(plain, mask_ratio=0.5),
        *(pictures(replace(plain, mask=MaskChoice(strategy=one))) for one in ("block", "grid")),
    ]
    assert len(set(grids)) == 5
    assert pictures(replace(plain, mask=file)) == grids[1]
    with pytest.raises(ValueError, match=r"leave out --mask\.strategy and --mask-ratio"):
        pictures(replace(plain, mask=file), mask_ratio=0.5)
    with pytest.raises(ValueError, match=r"leave out --mask-ratio, or choose --mask\.strategy random"):
        pictures(replace(plain, mask=MaskChoice(strategy="grid")), mask_ratio=0.5)


def test_reconstruct_draws_tokens(config, photos, tokenizer, tmp_path):
    run = train(Pretrain(replace(config, **settings("tokens", tokenizer, tmp_path))))
    asked = ReconstructConfig(source=(str(photos),), init=str(run), out=str(tmp_path / "out"), count=2)
    assert pictures(asked)
    (run / "tokenizer").rename(run / "elsewhere")
    with pytest.raises(CheckpointError, match="no tokenizer in"):
        pictures(asked)
