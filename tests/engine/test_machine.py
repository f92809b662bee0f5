"""What is detected of a machine, and what overrides it."""

import pytest

import unmask
from unmask.engine.machine import detect_machine


@pytest.mark.parametrize(("value", "precision"), [("0", "fp32"), ("1", "bf16")])
def test_fast_bf16_can_be_overridden(tiny, monkeypatch, value, precision):
    """So that both arithmetics are tested on every processor."""
    monkeypatch.setenv("UNMASK_FAST_BF16", value)
    plan = unmask.pretrain(tiny, precision="auto", dry_run=True)
    assert plan.training.precision == precision
    assert unmask.pretrain(tiny, dry_run=True).training.precision == "fp32", "as it was asked for"


def test_fast_bf16_is_detected_unless_overridden(monkeypatch):
    monkeypatch.delenv("UNMASK_FAST_BF16", raising=False)
    detected = detect_machine("cpu")
    monkeypatch.setenv("UNMASK_FAST_BF16", "")
    assert detect_machine("cpu") == detected


def test_an_override_that_is_neither(monkeypatch):
    monkeypatch.setenv("UNMASK_FAST_BF16", "yes")
    with pytest.raises(ValueError, match=r"UNMASK_FAST_BF16 is .yes.: set it to 1 .* or 0 "):
        detect_machine("cpu")
