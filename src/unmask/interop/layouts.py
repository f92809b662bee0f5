"""Weights as trainers leave them: behind prefixes, beside other parts, or under mmpretrain's names.

Wrappers only put a prefix before every name (`module.` of DistributedDataParallel, `_orig_mod.` of
torch.compile, `model.` of a LightningModule); libraries put the encoder beside a decoder or a head
(`backbone.vit.` and `decoder.` of lightly, `encoder.vit.` of stable-pretraining, `backbone.` and `neck.`
of mmpretrain). All are read alike: the encoder is wherever its patch embedding is.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from unmask.errors import CheckpointError
from unmask.interop.description import HEAD_LEFT_OUT
from unmask.interop.official import DECODER_NAMES

ENCODER_MARK, DECODER_MARK = "patch_embed.proj.weight", "decoder_embed.weight"
"""Names that every encoder and every decoder of the official MAE code has."""
MMPRETRAIN_MARK = "patch_embed.projection.weight"
MMPRETRAIN = [
    (r"(^|\.)patch_embed\.projection\.", r"\1patch_embed.proj."),
    (r"(^|\.)layers\.(\d+)\.(ln1|ln2|attn|ffn)\.", r"\1blocks.\2.\3."),
    (r"(blocks\.\d+)\.ln([12])\.", r"\1.norm\2."),
    (r"(blocks\.\d+)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
    (r"(^|\.)neck\.ln1\.", r"\1neck.decoder_norm."),
    (r"(^|\.)ln1\.(weight|bias)$", r"\1norm.\2"),
    (r"(^|\.)ln2\.(weight|bias)$", r"\1fc_norm.\2"),
]
"""mmpretrain's names and those of the official MAE code, applied one after the other."""
PARTS_SHOWN = 3


class Found(NamedTuple):
    """Weights under the names of the official MAE code, and notes on what was left out."""

    state: dict[str, Tensor]
    notes: tuple[str, ...]


def find_layout(state: dict[str, Tensor]) -> Found:
    """Encoder, decoder and head, wherever they are; the weights as they are if there is no encoder.

    Raises CheckpointError if there are several encoders.
    """
    if any(name.endswith(MMPRETRAIN_MARK) for name in state):
        state = {_from_mmpretrain(name): value for name, value in state.items()}
    encoder, decoder = _place(state, ENCODER_MARK), _place(state, DECODER_MARK)
    if encoder is None:
        return Found(state, ())
    found, beside = dict[str, Tensor](), list[str]()
    for name, value in state.items():
        if decoder is not None and _is_of_decoder(name, decoder):
            found[name.removeprefix(decoder)] = value
        elif name.startswith(encoder):
            found[name.removeprefix(encoder)] = value
        else:
            beside.append(name)
    notes = [_left_out(beside)] if beside else []
    heads = [name for name in found if name.startswith("head.")]
    if heads and (decoder is not None or any("mask_token" in name for name in beside)):
        notes.append(HEAD_LEFT_OUT)  # which pre-training never trained
        found = {name: value for name, value in found.items() if name not in heads}
    return Found(found, tuple(notes))


def _place(names: Iterable[str], mark: str) -> str | None:
    """The prefix of the part that has this name; None if there is none."""
    ends = (name for name in names if name == mark or name.endswith(f".{mark}"))
    prefixes = [name.removesuffix(mark) for name in ends]
    if len(prefixes) > 1:
        which = ", ".join(map(repr, prefixes))
        raise CheckpointError(
            f"these weights hold {len(prefixes)} encoders or decoders, under {which}, and nothing says "
            f"which is meant: save the weights of one alone"
        )
    return prefixes[0] if prefixes else None


def _is_of_decoder(name: str, place: str) -> bool:
    return name.startswith(place) and name.removeprefix(place).startswith(DECODER_NAMES)


def _from_mmpretrain(name: str) -> str:
    for pattern, ours in MMPRETRAIN:
        name = re.sub(pattern, ours, name)
    return name


def _left_out(beside: list[str]) -> str:
    """A note that names the parts by the beginnings of their names."""
    parts = Counter(name.rpartition(".")[0].split(".")[0] or name for name in beside)
    shown = ", ".join(list(parts)[:PARTS_SHOWN]) + (", ..." if len(parts) > PARTS_SHOWN else "")
    return f"{len(beside)} tensors beside the encoder were left out ({shown})"
