"""The products that the limit runs are those of the model's forward and backward."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unmask.bench.limit import Limit
from unmask.bench.model import Setting, inputs, make_setting
from unmask.bench.setting import BenchConfig
from unmask.core.spec import DecoderSpec, MAESpec, ViTSpec
from unmask.cost.speed import square_rate

SMALL = MAESpec(
    encoder=ViTSpec(image_size=(16, 24), patch_size=(4, 4), channels=3, width=24, depth=2, heads=3),
    decoder=DecoderSpec(width=16, depth=2, heads=2),
)


def small_setting(batch: int = 3, *, image_size: tuple[int, int] = (16, 24), **changes) -> Setting:
    """A model of milliseconds; `changes` are those of a part of its spec, such as mask."""
    base = make_setting(BenchConfig(batch=batch, device="cpu", precision="fp32"), "quickstart")
    encoder = replace(SMALL.encoder, image_size=image_size)
    parts = {name: replace(getattr(SMALL, name), **values) for name, values in changes.items()}
    return Setting("small", replace(base.plan, model=replace(SMALL, encoder=encoder, **parts)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": {"loss_on": "all"}},
        {"mask": {"tokens_in_encoder": True}},
        {"decoder": {"depth": 1, "heads": 1}},
    ],
)
def test_flops_are_those_of_a_real_forward_and_backward(changes):
    setting = small_setting(**changes)
    model, (images, noise) = setting.spec.build(), inputs(setting)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(images, noise=noise).loss.backward()
    assert Limit(setting).flops == counter.get_total_flops()


def test_products_are_run_at_their_shapes(monkeypatch):
    """Counted by torch while they run, once each."""
    setting = small_setting()
    limit = Limit(setting)
    with FlopCounterMode(display=False) as counter:
        for p, times in limit.products.items():
            for _ in range(times):
                limit._run(p)()
    assert counter.get_total_flops() == limit.flops


def test_measure(monkeypatch):
    """Time is counted per product and by how often it occurs."""
    limit = Limit(small_setting())
    monkeypatch.setattr(limit, "_seconds", lambda run: 1.0)
    layers = 1 + 4 * 2 + 1 + (4 + 5) + 1  # the last block's queries have a projection of their own
    assert limit.measure() == 3 * (layers + 2 * 4) - 1, "the patches need no gradient"


def test_short_products_are_repeated(monkeypatch):
    limit, calls = Limit(small_setting()), []
    assert limit._seconds(lambda: calls.append(1)) < 1e-3
    assert len(calls) == 101


def test_rates_are_positive():
    assert square_rate("fp32", torch.device("cpu"), side=64, rounds=2) > 1e6
    assert Limit(small_setting()).measure() > 0
