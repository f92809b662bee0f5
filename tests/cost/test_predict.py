"""Predicted hours and memory."""

import json
from dataclasses import replace

import pytest
import torch

from unmask.config.commands import PretrainConfig
from unmask.cost.count import count, count_state
from unmask.cost.memory import saved_bytes
from unmask.cost.paper import TABLE_2, of_model, variant_of
from unmask.cost.predict import predict, predict_here
from unmask.cost.predict_card import prediction_cards, scaled
from unmask.cost.setting import named_model
from unmask.errors import CheckpointError
from unmask.models.classifier_spec import EncoderSpec
from unmask.recipes.pretrain import PRETRAIN

LARGE = named_model("vit-large-800")


def test_hours_by_hand():
    p = predict(LARGE, devices="8xh100", utilisation=0.5)
    flops = count(of_model("large")).training_flops
    steps = -(-800 * 1_281_167 // 4096)
    assert p.total_flops == flops * steps * 4096
    assert p.hours == pytest.approx(flops * steps * 4096 / (8 * 989.4e12 * 0.5) / 3600)
    assert p.images_per_second == pytest.approx(8 * 989.4e12 * 0.5 / flops)
    assert p.loader_cores == pytest.approx(p.images_per_second * 0.005, abs=1)
    assert predict(LARGE, devices="16xh100", utilisation=0.5).hours == pytest.approx(p.hours / 2)


@pytest.mark.parametrize("run", TABLE_2, ids=lambda run: run.name)
def test_the_papers_hours_come_back_with_the_utilisation_that_they_imply(run):
    assert 0.25 < run.utilisation() < 0.4
    recipe = named_model(f"vit-{run.encoder}-800")
    config = replace(
        recipe,
        model=replace(recipe.model, decoder_depth=run.decoder_depth),
        mask=replace(recipe.mask, tokens_in_encoder=run.mask_tokens),
    )
    p = predict(config, devices="128xtpu-v3", utilisation=run.utilisation())
    assert p.hours == pytest.approx(run.hours, rel=1e-4)


def test_a_token_target_pays_for_its_tokenizer(tmp_path):
    """DALL-E's encoder takes about 40 % of a ViT-L's operations (paper, Reconstruction target)."""
    tokens = replace(LARGE, target=replace(LARGE.target, kind="tokens"))
    plain, p = predict(LARGE, devices="8xh100"), predict(tokens, devices="8xh100")
    whole = count(EncoderSpec(encoder=p.model.encoder)).flops
    assert p.tokens.encoder_flops / whole == pytest.approx(0.4, abs=0.1)
    samples = p.plan.training.steps * p.plan.training.batch
    made = p.total_flops - samples * count(p.model).training_flops
    assert made == samples * p.tokens.encoder_flops
    assert p.hours > plain.hours
    (card, _) = prediction_cards(p)
    assert "more for the tokens of an image" in dict(card.rows)["tokenizer"]
    assert card.record["tokenizer_forward_flops"] == p.tokens.encoder_flops
    assert prediction_cards(plain)[0].record["tokenizer_forward_flops"] == 0
    held = p.replicated().state - replace(p, tokenizer=None).replicated().state
    assert held == 4 * p.tokens.parameters
    missing = replace(tokens, target=replace(tokens.target, tokenizer=str(tmp_path / "gone")))
    with pytest.raises(CheckpointError, match="gone"):
        predict(missing, devices="8xh100")


def test_table_2_is_consistent():
    for encoder in ("large", "huge"):
        first, *others = (run for run in TABLE_2 if run.encoder == encoder)
        for run in others:
            assert run.speedup == pytest.approx(first.hours / run.hours, abs=0.06)


def test_memory_by_hand():
    p = predict(LARGE, devices="4xa100-80")
    cost, state = count(p.model), count_state(p.model, "bf16", "cuda", average=False)
    ddp, fsdp = p.replicated(), p.sharded()
    assert ddp.state == 4 * cost.parameters + 4 * 4 * cost.trained + state.half_weights
    shards = (4 * cost.parameters + 3 * 4 * cost.trained) / 4
    assert fsdp.state == pytest.approx(shards + 3 * 4 * cost.largest_block)
    room = 0.9 * 80 * 2**30 - ddp.state
    assert ddp.images_at_once == room // p.activation_bytes[0] < ddp.images_at_once_checkpointed
    alone = predict(LARGE, devices="a100-80").replicated()
    assert alone.state == ddp.state - state.gradients, "one process exchanges nothing"
    averaged = replace(LARGE, optim=replace(LARGE.optim, ema=0.9999))
    more = predict(averaged, devices="4xa100-80").replicated()
    assert more.state == ddp.state + 4 * cost.parameters


def test_activations_are_those_of_a_real_model():
    """In fp32, where nothing comes on top."""
    p = predict(named_model("quickstart"), devices="v100")
    model = p.model.build()
    images, noise = torch.randn(2, 3, 96, 96), torch.rand(2, 144)
    assert saved_bytes(model, lambda: model(images, noise=noise).loss) == 2 * p.activation_bytes[0]


def test_repeats_share_the_decoding():
    """As measured: with 2 and 4 repeats 1.5 and 2 times the samples."""

    def cores(repeats: int) -> float:
        config = replace(LARGE, data=replace(LARGE.data, repeats=repeats))
        p = predict(config, devices="8xh100")
        return p.loader_cores / p.images_per_second

    assert cores(1) / cores(2) == pytest.approx(1.5, rel=0.01)
    assert cores(1) / cores(4) == pytest.approx(2, rel=0.01)


def test_too_small_a_device():
    large = predict(LARGE, devices="2xv100")
    (card, _) = prediction_cards(large)
    assert 0 < large.replicated().images_at_once < 128
    assert "--optim.micro-batch" in card.notes[0]
    wide = replace(LARGE, model=replace(LARGE.model, width=8192, depth=6))
    none = predict(wide, devices="2xl4")
    assert none.replicated().images_at_once == 0
    assert "no image fits" in prediction_cards(none)[0].notes[0]


def test_this_machine_is_measured(monkeypatch):
    monkeypatch.setattr("unmask.cost.predict.square_rate", lambda *_: 50e9)
    p = predict(named_model("quickstart"), devices="2xcpu")
    assert (p.count, p.peak, p.utilisation) == (2, 50e9, 0.5)
    assert "measured here" in p.device.source
    assert p.plan.training.device == "cpu"
    assert predict_here(p.plan) == p


@pytest.mark.parametrize(
    ("name", "devices"),
    [*((name, "8xh100") for name in PRETRAIN), ("laptop", "16xl4"), ("laptop", "v100")],
)
def test_every_recipe_and_kind_of_device(name, devices):
    cards = prediction_cards(predict(named_model(name), devices=devices))
    record = json.loads(json.dumps(cards[0].record))
    assert record["hours"] > 0
    assert len(record["paper"]) == 6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"devices": "3xh100"}, "3 processes do not divide a batch of 4096: choose"),
        ({"devices": "h100", "utilisation": 1.5}, "must be above 0 and at most 1"),
        ({"devices": "h100", "images": 0}, "--images must be 1 or more"),
        ({"devices": "h100", "images": 100}, "more than the 100 training images"),
        ({"devices": "h100", "decode_ms": -1.0}, "--decode-ms 0 or more"),
    ],
)
def test_mistakes(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        predict(PretrainConfig(), **changes)


def test_the_variant_changes_nothing_else():
    large = of_model("large")
    assert variant_of(large, False, 8) == large


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 F"), (999, "999 F"), (1500, "1.5 kF"), (1.2e20, "120 EF"), (3e22, "30 ZF")],
)
def test_scaled(value, text):
    assert scaled(value, "F") == text
