"""A run whose encoder gets mask tokens (paper, Table 1c), from flag to file."""

import json
from dataclasses import replace

import pytest
import torch

import unmask
from unmask.config.settings import Mask
from unmask.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("blank_charts")


def test_a_run_with_mask_tokens_in_the_encoder(tiny):
    config = replace(tiny, mask=Mask(tokens_in_encoder=True))
    run = unmask.pretrain(config)
    plan = json.loads((run / "plan.json").read_text())
    assert plan["model"]["mask"]["tokens_in_encoder"]
    assert any("Table 1c" in note for note in plan["notes"])
    model = unmask.load(run)
    assert model.encoder_mask_token.shape == (1, 1, 16)
    images, noise = torch.randn(2, 3, 16, 24), torch.rand(2, 24)
    assert model.reconstruct(images, noise, 0.9).isfinite().all()
    assert all(
        path.exists() for path in unmask.reconstruct(tiny.data.source[0], init=run, out=run / "x")
    )
    with pytest.raises(CheckpointError, match="layout"):
        unmask.export(run, to="official")
