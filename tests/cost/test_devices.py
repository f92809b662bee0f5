"""The table of devices: plausible, and with a source."""

import pytest

from unmask.cost.devices import ALIASES, DEVICES, find_device, parse_devices


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("8xh100", (8, "h100")),
        ("H100", (1, "h100")),
        ("2xcpu", (2, "cpu")),
        ("64xa100-80", (64, "a100-80")),
        ("4xrtx-4090", (4, "rtx-4090")),
        ("rtx-4090", (1, "rtx-4090")),
        ("128xtpu-v3", (128, "tpu-v3")),
    ],
)
def test_parse(text, parsed):
    assert parse_devices(text) == parsed


@pytest.mark.parametrize(
    ("text", "sentence"), [("0xh100", "no device at all"), ("h1000", "there is no device h1000: choose")]
)
def test_mistakes(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        find_device(parse_devices(text)[1])


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_has_a_peak_and_a_source(name):
    device = DEVICES[name]
    rates = [rate for rate in (device.fp32, device.bf16) if rate is not None]
    assert rates == sorted(rates), "bf16 is the faster"
    assert all(10 < rate < 5000 for rate in rates)
    assert 10 < device.memory_gib < 300
    assert device.source


def test_aliases_and_absent_arithmetic():
    assert all(find_device(alias) is DEVICES[name] for alias, name in ALIASES.items())
    with pytest.raises(ValueError, match=r"V100.*choose --run.precision fp32"):
        find_device("v100").peak("bf16")
    with pytest.raises(ValueError, match=r"TPU.*choose --run.precision bf16"):
        find_device("tpu-v3").peak("fp32")
