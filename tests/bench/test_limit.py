"""The products that the limit runs are those of the model's forward and backward."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unmask.bench.limit import Limit, square_rate
from unmask.bench.setting import BenchConfig, Setting, inputs, make_setting
from unmask.core import Architecture, MaskedAutoencoder

SMALL = Architecture(
    image_size=(16, 24), patch_size=(4, 4), channels=3, width=24, depth=2, heads=3,
    decoder_width=16, decoder_depth=2, decoder_heads=2,
)  # fmt: skip


def small_setting(batch: int = 3, **changes) -> Setting:
    base = make_setting(BenchConfig(batch=batch, device="cpu", precision="fp32"), "quickstart")
    return Setting("small", replace(base.plan, architecture=replace(SMALL, **changes)))


@pytest.mark.parametrize(
    "changes", [{}, {"loss_on": "all"}, {"mask_tokens_in_encoder": True}, {"decoder_depth": 1}]
)
def test_flops_are_those_of_a_real_forward_and_backward(changes):
    setting = small_setting(**changes)
    model, (images, noise) = MaskedAutoencoder(setting.architecture), inputs(setting)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(images, noise=noise).loss.backward()
    assert Limit(setting).flops == counter.get_total_flops()


def test_products_are_run_at_their_shapes(monkeypatch):
    """Counted by torch while they run, once each."""
    setting = small_setting()
    limit = Limit(setting)
    with FlopCounterMode(display=False) as counter:
        for p in limit.products:
            for run in limit._runs(p):
                for _ in range(p.times):
                    run()
    assert counter.get_total_flops() == limit.flops


def test_measure(monkeypatch):
    """Time is counted per product and by how often it occurs."""
    limit = Limit(small_setting())
    monkeypatch.setattr(limit, "_seconds", lambda run: 1.0)
    runs = sum(p.times * (3 if p.inputs_need_gradient else 2) for p in limit.products)
    assert limit.measure() == runs


def test_short_products_are_repeated(monkeypatch):
    limit, calls = Limit(small_setting()), []
    assert limit._seconds(lambda: calls.append(1)) < 1e-3
    assert len(calls) == 101


def test_rates_are_positive():
    assert square_rate("fp32", torch.device("cpu"), side=64, rounds=2) > 1e6
    assert Limit(small_setting()).measure() > 0
