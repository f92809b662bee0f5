"""What the benchmarks report, on models that take milliseconds."""

import gc
import json
import sys
import weakref
from dataclasses import replace

import pytest
import torch

from bench.test_limit import small_setting
from unmask.bench import data, peers, speedup, step
from unmask.bench.model import inputs, make_setting
from unmask.bench.run import run_bench
from unmask.bench.setting import BenchConfig
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import SIZES
from unmask.cost.cards import Card, show
from unmask.cost.count import count, count_activations, count_state
from unmask.cost.memory import free_bytes, saved_bytes, total_bytes
from unmask.cost.setting import named_model
from unmask.engine.machine import threads
from unmask.recipes.pretrain import PRETRAIN


@pytest.fixture
def config(monkeypatch) -> BenchConfig:
    for module in (step, speedup, peers):
        monkeypatch.setattr(module, "make_setting", lambda config, name: small_setting(config.batch))
    return BenchConfig(batch=4, rounds=1, device="cpu", threads=1)


def test_step(config):
    (card,) = run_bench("step", replace(config, rounds=2))
    r = card.record
    parts = [r[f"{part}_seconds"] for part in ("forward", "backward", "optimizer")]
    assert all(seconds > 0 for seconds in parts)
    assert sum(parts) == pytest.approx(r["seconds"], rel=0.5)
    assert r["images_per_second"] == pytest.approx(4 / r["seconds"])
    assert r["flops"] == 4 * count(small_setting().spec).training_flops
    assert r["flops_per_second"] == pytest.approx(r["flops"] / r["seconds"])
    assert r["share_of_limit"] == pytest.approx(r["limit_seconds"] / r["seconds"])
    assert r["peak_memory_gib"] > 0
    assert sum(r["profile"].values()) == pytest.approx(1)
    assert all(r["profile"][kind] > 0 for kind in ("matrix products", "attention", "optimizer"))
    assert (r["batch"], r["precision"], r["rounds"]) == (4, "fp32", 2)


def test_a_step_trains():
    """The timed step is a real one: the loss on its one batch falls."""
    training = step.our_step(small_setting())
    losses, loss_of = [], training.loss

    def loss(images, noise):
        losses.append(loss_of(images, noise))
        return losses[-1]

    training.loss = loss
    for _ in range(30):
        training.run()
    assert losses[-1] < losses[0]


def test_counting_bytes_leaves_nothing_behind():
    """What saves its own result would hold itself, and the model, for ever."""
    model = small_setting().spec.build()
    images, noise = inputs(small_setting())
    assert saved_bytes(model, lambda: model(images, noise=noise).loss) > 0
    weight = weakref.ref(model.decoder.decoder_pred.weight)
    del model
    gc.collect()
    assert weight() is None


def test_speedup(config):
    (card,) = run_bench("speedup", config)
    usual, ours, shallow = card.record["variants"]
    spec = small_setting().spec
    for v, mask_tokens, depth in ((usual, True, 8), (ours, False, 8), (shallow, False, 1)):
        variant = speedup.variant_of(spec, mask_tokens, depth)
        kept = count_activations(variant, "fp32")
        assert v["activation_bytes"] == 4 * kept.total
        assert v["micro_batch"] == 4
        assert v["seconds"] > 0
        assert v["paper"] is None
    assert usual["speedup"] == usual["flops_ratio"] == usual["memory_ratio"] == 1
    assert shallow["flops_ratio"] > ours["flops_ratio"] > 1
    assert shallow["memory_ratio"] > ours["memory_ratio"] > 1


def test_speedup_in_micro_batches(config, monkeypatch):
    """With room for two images and a half, four are run in twos, and all are timed and counted."""
    spec = speedup.variant_of(small_setting().spec, True, 8)
    state = count_state(spec, "fp32", average=False)
    room = state.weights + state.gradients + 2.5 * count_activations(spec, "fp32").total
    monkeypatch.setattr(speedup, "free_bytes", lambda _: room / speedup.MEMORY_SHARE)
    seen = []
    forward = MaskedAutoencoder.forward
    monkeypatch.setattr(
        MaskedAutoencoder,
        "forward",
        lambda self, images, **given: (seen.append(len(images)), forward(self, images, **given))[1],
    )
    (card,) = run_bench("speedup", config)
    first, *_, last = card.record["variants"]
    assert (first["micro_batch"], last["micro_batch"]) == (2, 4)
    assert seen[:5] == [3, 2, 2, 2, 2], "counted with three and two, warmed up, timed in twos"
    assert seen[-4:] == [3, 2, 2, 4]
    assert first["activation_bytes"] == 4 * count_activations(spec, "fp32").total
    assert card.rows[0][-1] == "2"


def test_published_figures():
    figures = [speedup.published_speedup("large", *choice) for choice in speedup.VARIANTS]
    assert figures == [None, 2.8, 3.7]
    assert [speedup.published_speedup("huge", *c) for c in speedup.VARIANTS] == [None, 3.5, 4.1]
    assert speedup.published_speedup("base", False, 8) is None


def test_peers(config, monkeypatch):
    """transformers is there for the tests; what is not is named."""
    monkeypatch.setitem(sys.modules, "lightly.models", None)
    monkeypatch.setattr(peers, "make_setting", lambda *_: square_setting())
    (card,) = run_bench("peers", config)
    ours, theirs = card.record["libraries"]
    assert (ours["name"], theirs["name"]) == ("unmask", "transformers")
    assert ours["trained_parameters"] == theirs["trained_parameters"]
    assert theirs["unmask_is_faster"] == pytest.approx(theirs["seconds"] / ours["seconds"])
    assert len(ours["seconds_of_rounds"]) == 1
    (left_out,) = card.notes
    assert "lightly" in left_out
    assert "unmask[peers]" in left_out


def test_peers_that_cannot_build_the_model_are_left_out(config):
    (card,) = run_bench("peers", config)
    assert [library["name"] for library in card.record["libraries"]] == ["unmask"]
    assert all("square images" in note for note in card.notes)
    assert len(card.notes) == len(peers.PEERS)


def square_setting():
    return small_setting(image_size=(16, 16))


@pytest.mark.parametrize("target", ["pixels", "normalized-pixels"])
def test_lightly_computes_the_same_loss(target):
    """Its modules are put together by us: with our weights they give our loss."""
    pytest.importorskip("lightly", reason="lightly is not installed: pip install 'unmask[peers]'")
    spec = small_setting(image_size=(16, 16), target={"kind": target}).spec
    torch.manual_seed(0)
    ours = spec.build()
    theirs, loss = peers.build_lightly(spec)
    encoder, decoder, embed, predict = theirs
    state = ours.decoder.state_dict()
    inner = {name.removeprefix("decoder_"): value for name, value in state.items()}
    encoder.vit.load_state_dict(ours.encoder.state_dict())
    for module, prefix in ((embed, "embed."), (predict, "pred.")):
        own = {n.removeprefix(prefix): inner.pop(n) for n in list(inner) if n.startswith(prefix)}
        module.load_state_dict(own)
    decoder.load_state_dict(inner)
    images, noise = torch.randn(3, 3, 16, 16), torch.rand(3, 16)
    torch.testing.assert_close(loss(images, noise), ours(images, noise=noise).loss)


def test_all_runs_each(config, monkeypatch):
    monkeypatch.setattr(peers, "PEERS", {})
    monkeypatch.setattr(speedup, "VARIANTS", speedup.VARIANTS[-1:])
    monkeypatch.setattr(data, "MADE", (("JPEG", 60, 40, 1),))
    monkeypatch.setattr(data, "COPIES", 4)
    cards = run_bench("all", config)
    assert [card.record["bench"] for card in cards] == ["data", "loader", "step", "speedup", "peers"]
    with pytest.raises(ValueError, match="there is no benchmark warp: choose one of data"):
        run_bench("warp", config)


@pytest.mark.parametrize("name", ["small-step", *SIZES, *PRETRAIN])
def test_models_by_name(name):
    setting = make_setting(BenchConfig(device="cpu"), name)
    assert setting.batch == (64 if name == "small-step" else 32)
    assert setting.spec is setting.plan.model


def test_the_small_step():
    spec = make_setting(BenchConfig(), "small-step").spec
    assert (spec.encoder.width, spec.encoder.depth) == (192, 6)
    assert (spec.decoder.width, spec.decoder.depth) == (96, 2)
    assert spec.encoder.patches == 144


def test_no_such_model():
    with pytest.raises(ValueError, match="there is no model enormous: choose small-step"):
        named_model("enormous")


@pytest.mark.parametrize("field", ["batch", "threads", "rounds"])
def test_numbers_are_checked(field):
    with pytest.raises(ValueError, match=f"--{field} is 0 and must be 1 or more"):
        run_bench("step", BenchConfig(**{field: 0}))


def test_threads_are_set_and_put_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_memory_of_the_machine():
    assert 0 < free_bytes(torch.device("cpu")) <= total_bytes()


def test_cards(capsys):
    card = Card(title="A [title]", columns=("", "w/ [M]"), rows=[("a", "b [c]")], record={"bench": "x"})
    show([card])
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {"bench": "x"}
    assert "A [title]" in lines
    assert any("w/ [M]" in line for line in lines)
    assert any("b [c]" in line for line in lines)
    show([card, Card(title="", rows=[]), card])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"results": [{"bench": "x"}] * 2}
