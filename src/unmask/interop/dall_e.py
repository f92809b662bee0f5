"""DALL-E's published discrete VAE, whose tokens the paper's Table 1d predicts.

Its weights come as two pickled modules, which unmask never opens. Write them once as a safetensors file:
the state dict of the encoder under `encoder.` and of the decoder under `decoder.`, so that there are
`encoder.blocks.input.w`, `encoder.blocks.group_1.block_1.res_path.conv_1.w`,
`encoder.blocks.output.conv.w`, `decoder.blocks.input.w` and so on, biases as `.b`.
"""

import re
from typing import Any

from torch import Tensor

from unmask.config.image import ImageSpec
from unmask.errors import CheckpointError
from unmask.interop.description import Description, Weights
from unmask.models.tokenizer_spec import TokenizerSpec

FIRST, LAST = "encoder.blocks.input.w", "encoder.blocks.output.conv.w"
LICENCE = "DALL-E's discrete VAE, (c) 2021 OpenAI, Modified MIT License: say that it was used"
"""The file LICENSE of github.com/openai/DALL-E, which the package on PyPI holds too; that package's
metadata say BSD."""
NAME = re.compile(
    r"(?P<half>encoder|decoder)\.blocks\."
    r"(?:(?P<end>input|output\.conv)|group_(?P<group>\d+)\.block_(?P<block>\d+)\."
    r"(?:id_path|res_path\.conv_(?P<layer>\d)))\.(?P<kind>[wb])"
)
ENDS = {
    ("encoder", "input"): "encoder.0",
    ("encoder", "output.conv"): "encoder.3",
    ("decoder", "input"): "embedding",
    ("decoder", "output.conv"): "decoder.2",
}
GROUPS = {"encoder": "encoder.1", "decoder": "decoder.0"}


def is_dall_e(state: dict[str, Tensor]) -> bool:
    """Whether these are its names."""
    return FIRST in state


def read_dall_e(state: dict[str, Tensor]) -> Weights:
    """Its weights as a tokenizer of ours, for images of any size; raises CheckpointError if they are
    incomplete."""
    matches = {name: NAME.fullmatch(name) for name in state}
    odd = [name for name, match in matches.items() if not match]
    missing = [name for name in (LAST, "decoder.blocks.input.w") if name not in state]
    if odd or missing:
        problem = f"hold {odd[0]}" if odd else f"lack {missing[0]}"
        raise CheckpointError(
            f"these weights look like DALL-E's discrete VAE and {problem}: write encoder and "
            f"decoder into one safetensors file, under encoder. and decoder."
        )
    found = [match for match in matches.values() if match]
    groups = max(int(match["group"]) for match in found if match["group"])
    blocks = max(int(match["block"]) for match in found if match["block"])
    width, channels = state[FIRST].shape[:2]
    spec = TokenizerSpec(
        image_size=None,
        channels=channels,
        vocabulary=state[LAST].shape[0],
        downsampling=2 ** (groups - 1),
        width=width,
        blocks=blocks,
        pixels="logit-laplace",
    )
    image = ImageSpec(size=(112, 112), channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
    ours = {_our_name(match, blocks): state[name] for name, match in matches.items() if match}
    return Weights(ours, Description(model=spec, image=image, licence_note=LICENCE))


def _our_name(match: Any, blocks: int) -> str:
    kind = {"w": "weight", "b": "bias"}[match["kind"]]
    if match["end"]:
        return f"{ENDS[match['half'], match['end']]}.{kind}"
    place = (int(match["group"]) - 1) * (blocks + 1) + int(match["block"]) - 1  # pooling between groups
    layer = f"convolutions.{int(match['layer']) - 1}" if match["layer"] else "skip"
    return f"{GROUPS[match['half']]}.{place}.{layer}.{kind}"
