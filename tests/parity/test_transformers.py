"""Our model equals transformers' ViTMAE when both carry the same weights and see the same noise."""

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from tests_support import changed, mae_spec
from unmask.core.mae import MaskedAutoencoder
from unmask.core.spec import MAESpec

BASE = mae_spec(image_size=(224, 224), patch_size=(16, 16), channels=3, width=768, depth=12, heads=12)
ODD = mae_spec(
    image_size=(40, 40),
    patch_size=(8, 8),
    channels=2,
    width=24,
    depth=3,
    heads=3,
    mlp_ratio=3.0,
    decoder_width=20,
    decoder_depth=2,
    decoder_heads=5,
    mask_ratio=0.6,
)
ARCHITECTURES = pytest.mark.parametrize(
    "base", [pytest.param(BASE, marks=pytest.mark.slow), ODD], ids=["base-224", "odd"]
)
TARGETS = pytest.mark.parametrize("target", ["pixels", "normalized-pixels"])


def transformers_model(spec: MAESpec) -> ViTMAEForPreTraining:
    a, decoder = spec.encoder, spec.decoder
    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=a.image_size[0],
            patch_size=a.patch_size[0],
            num_channels=a.channels,
            hidden_size=a.width,
            num_hidden_layers=a.depth,
            num_attention_heads=a.heads,
            intermediate_size=int(a.width * a.mlp_ratio),
            decoder_hidden_size=decoder.width,
            decoder_num_hidden_layers=decoder.depth,
            decoder_num_attention_heads=decoder.heads,
            decoder_intermediate_size=int(decoder.width * decoder.mlp_ratio),
            mask_ratio=spec.mask.ratio,
            norm_pix_loss=spec.target.kind == "normalized-pixels",
            layer_norm_eps=1e-6,
        )
    )
    return model.eval()


def to_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Written anew here, so that the package's own adapters are tested against it too."""
    renamed = {}
    for name, value in state.items():
        side, name = name.split(".", 1)
        if side == "encoder":
            name = "vit." + name.replace("blocks.", "layers.")
            for ours in ("cls_token", "pos_embed", "patch_embed.proj"):
                theirs = {
                    "pos_embed": "position_embeddings",
                    "patch_embed.proj": "patch_embeddings.projection",
                }
                name = name.replace(f"vit.{ours}", f"vit.embeddings.{theirs.get(ours, ours)}")
            name = name.replace("vit.norm.", "vit.layernorm.")
        else:
            name = "decoder." + name.replace("decoder_blocks.", "decoder_layers.")
        name = name.replace("norm1", "layernorm_before").replace("norm2", "layernorm_after")
        name = name.replace("attn.proj", "attention.o_proj")
        if ".attn.qkv." in name:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.{part}_proj")] = third
        else:
            renamed[name] = value
    return renamed


def from_transformers(ours: dict, theirs: dict) -> dict:
    state = {}
    for name, value in ours.items():
        parts = [theirs[key] for key in to_transformers({name: value})]
        state[name] = torch.cat(parts)
    return state


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter matters: none is zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


@ARCHITECTURES
@TARGETS
@pytest.mark.parametrize("direction", ["ours to theirs", "theirs to ours"])
def test_loss_and_prediction(base, target, direction):
    torch.manual_seed(0)
    spec = changed(base, target=target)
    a, ours, theirs = (
        spec.encoder,
        randomized(MaskedAutoencoder(spec)),
        randomized(transformers_model(spec)),
    )
    if direction == "ours to theirs":
        theirs.load_state_dict(to_transformers(ours.state_dict()))
    else:
        ours.load_state_dict(from_transformers(ours.state_dict(), theirs.state_dict()))

    images = torch.randn(2, a.channels, *a.image_size)
    noise = torch.rand(2, ours.encoder.grid[0] * ours.encoder.grid[1])
    with torch.no_grad():
        output = ours(images, noise=noise)
        everything = ours.reconstruct(images, noise)
        expected = theirs(images, noise=noise)

    assert torch.equal(output.is_masked, expected.mask.bool())
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(everything, expected.logits, atol=1e-5, rtol=0)
    masked = expected.logits[expected.mask.bool()].view_as(output.prediction)
    torch.testing.assert_close(output.prediction, masked, atol=1e-5, rtol=0)


def test_gradients():
    torch.manual_seed(0)
    ours, theirs = randomized(MaskedAutoencoder(ODD)), transformers_model(ODD).train()
    theirs.load_state_dict(to_transformers(ours.state_dict()))
    images, noise = torch.randn(3, 2, 40, 40), torch.rand(3, 25)
    ours(images, noise=noise).loss.backward()
    theirs(images, noise=noise).loss.backward()
    gradients = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    for name, p in theirs.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(to_transformers(gradients)[name], p.grad, atol=1e-5, rtol=1e-4)
