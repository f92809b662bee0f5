"""Encoder features equal timm's Vision Transformer with the same weights."""

import timm
import torch

from unmask.core.spec import SIZES
from unmask.core.vit import VisionTransformer


def assert_features_agree(ours: VisionTransformer, theirs: torch.nn.Module) -> None:
    for parameter in ours.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.02)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, ours.channels, *ours.image_size)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(images), theirs.eval().forward_features(images), atol=1e-5, rtol=0
        )


def test_base():
    torch.manual_seed(0)
    size = {k: v for k, v in SIZES["base"].items() if k != "patch"}
    ours = VisionTransformer(image_size=(224, 224), patch_size=(16, 16), **size)
    assert_features_agree(ours, timm.create_model("vit_base_patch16_224", num_classes=0))


def test_not_square_four_channels_layer_scale():
    torch.manual_seed(0)
    ours = VisionTransformer(
        image_size=(24, 40), patch_size=(4, 8), channels=4, width=24, depth=2, heads=3, layer_scale=0.1
    )
    theirs = timm.models.VisionTransformer(
        img_size=(24, 40), patch_size=(4, 8), in_chans=4, embed_dim=24, depth=2, num_heads=3,
        init_values=0.1, num_classes=0,
    )  # fmt: skip
    assert_features_agree(ours, theirs)
