"""Exports of ViT-B/16 give the same outputs in the library that they are for."""

import pytest

from tests_support import assert_same_state, changed, mae_spec, random_weights
from unmask.interop.export import export_weights
from unmask.interop.weights import read_weights

BASE = mae_spec(image_size=(224, 224), patch_size=(16, 16), channels=3, width=768, depth=12, heads=12)


@pytest.mark.slow
def test_base_in_timm(tmp_path):
    spec = changed(BASE, decoder_width=8, decoder_depth=1, decoder_heads=1)
    weights = random_weights(spec).encoder_only()
    path, difference = export_weights(weights, "timm", tmp_path / "timm")
    assert difference <= 1e-5
    assert_same_state(read_weights(path).state, weights.state)


@pytest.mark.slow
def test_base_in_transformers(tmp_path):
    weights = random_weights(BASE)
    path, difference = export_weights(weights, "hf", tmp_path / "hf")
    assert difference <= 1e-5
    assert_same_state(read_weights(path).state, weights.state)
