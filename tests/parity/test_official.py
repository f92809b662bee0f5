"""What `--to official` writes, read without our reader: by timm, whose model the official code is built
on, and by transformers, for the decoder.
"""

import timm
import torch
from test_transformers import to_transformers, transformers_model

from tests_support import changed, mae_spec, random_classifier, random_weights, whole_head
from unmask.core.spec import ViTSpec
from unmask.interop.export import export_weights, random_input
from unmask.interop.weights import build

SPEC = mae_spec(
    image_size=(32, 32), patch_size=(8, 8), channels=3, width=24, depth=3, heads=3, mlp_ratio=4.0,
    decoder_width=16, decoder_depth=2, decoder_heads=4, mask_ratio=0.6,
)  # fmt: skip
CLASSES = tuple("abcde")


def timm_model(e: ViTSpec, **arguments) -> torch.nn.Module:
    model = timm.models.VisionTransformer(
        img_size=e.image_size, patch_size=e.patch_size, in_chans=e.channels, embed_dim=e.width,
        depth=e.depth, num_heads=e.heads, mlp_ratio=e.mlp_ratio, **arguments,
    )  # fmt: skip
    return model.eval()


def exported(weights, tmp_path) -> dict[str, torch.Tensor]:
    path, _ = export_weights(weights, "official", tmp_path / "official.pth")
    return torch.load(path, weights_only=True)["model"]


def is_of_decoder(name: str) -> bool:
    return name.startswith(("decoder_", "mask_token"))


def test_the_encoder_in_timm(tmp_path):
    weights = random_weights(SPEC)
    state = exported(weights, tmp_path)
    theirs = timm_model(SPEC.encoder, num_classes=0)
    theirs.load_state_dict({n: v for n, v in state.items() if not is_of_decoder(n)}, strict=True)
    images, _ = random_input(SPEC.encoder)
    with torch.no_grad():
        wanted = build(weights.encoder_only())(images)
        torch.testing.assert_close(theirs.forward_features(images), wanted, atol=1e-5, rtol=0)


def test_the_whole_in_transformers(tmp_path):
    for target in ("pixels", "normalized-pixels"):
        spec = changed(SPEC, target=target)
        weights = random_weights(spec)
        sides = {True: "decoder", False: "encoder"}
        state = exported(weights, tmp_path)
        theirs = transformers_model(spec)
        names = {f"{sides[is_of_decoder(name)]}.{name}": value for name, value in state.items()}
        theirs.load_state_dict(to_transformers(names), strict=True)
        images, noise = random_input(spec.encoder)
        with torch.no_grad():
            found, wanted = theirs(images, noise=noise), build(weights)(images, noise=noise)
        torch.testing.assert_close(found.loss, wanted.loss, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            found.logits, build(weights).reconstruct(images, noise), atol=1e-5, rtol=0
        )


def test_classifiers_in_timm(tmp_path):
    """The official code fine-tunes timm's model with its own pooling, and probes with a BatchNorm."""
    images, _ = random_input(SPEC.encoder)
    for pool, timms in (("mean", "avg"), ("class", "token")):
        for batch_norm in (False, True):
            head = whole_head(classes=CLASSES, pool=pool, batch_norm=batch_norm)
            weights = random_classifier(SPEC, head)
            theirs = timm_model(SPEC.encoder, num_classes=len(CLASSES), global_pool=timms)
            if batch_norm:
                norm = torch.nn.BatchNorm1d(SPEC.encoder.width, affine=False, eps=1e-6)
                theirs.head = torch.nn.Sequential(norm, theirs.head)
            theirs.load_state_dict(exported(weights, tmp_path), strict=True)
            with torch.no_grad():
                torch.testing.assert_close(
                    theirs.eval()(images), build(weights)(images), atol=1e-5, rtol=0
                )
