"""An encoder with a linear head: fine-tuning, linear probing, partial tuning, from scratch.

Legend: B images, C channels, H x W pixels, T tokens, D width.
A state dict without `encoder.` before its names is timm's VisionTransformer's.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unmask.core.blocks import LAYER_NORM_EPS
from unmask.core.features import BATCH, check_pool, in_batches
from unmask.core.vit import VisionTransformer
from unmask.models.classifier_spec import HeadPool
from unmask.models.feature_norm import FeatureNorm

HEAD_STD, PROBE_HEAD_STD = 2e-5, 0.01
"""Standard deviation of a new head's weights: in fine-tuning, and on normalised features (Tables 9 and
10, as released)."""


class Classifier(nn.Module):
    """An encoder, what pools its tokens, and a linear layer.

    pool "class" takes the (first) class token after the encoder's final norm (Table 9); "mean"
    the mean of the patch tokens and then a norm of its own, `fc_norm`, in place of the encoder's
    (the released settings, and timm's meaning of 'avg').

    `normalize_features` puts a BatchNorm without parameters of its own before the head: the linear
    probe's (Table 10). In training it takes the statistics of the micro-batch at hand.

    The encoder becomes part of the model: with pool "mean" it loses its final norm. The head is
    drawn from torch's global generator.

    Raises ValueError if the encoder has no class token to pool.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        classes: int,
        pool: HeadPool,
        normalize_features: bool = False,
    ):
        super().__init__()
        if pool == "class" and not encoder.class_tokens:
            raise ValueError(
                "this encoder has no class token to classify by: pool the mean of the patches instead"
            )
        width = encoder.cls_token.shape[-1]
        self.encoder, self.pool = encoder, pool
        self.fc_norm: nn.Module = nn.Identity()
        if pool == "mean":
            self.fc_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
            encoder.norm = nn.Identity()  # type: ignore[assignment]
        self.feature_norm = FeatureNorm(width) if normalize_features else nn.Identity()
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.head.weight, std=PROBE_HEAD_STD if normalize_features else HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, images: Float[Tensor, "B C H W"], *, keep: Float[Tensor, "depth 2 B"] | None = None
    ) -> Float[Tensor, "B classes"]:
        """Logits; `keep` is drop path, as `drop_path_keep` draws it."""
        return self.head(self.feature_norm(self.pooled(images, keep=keep)))

    def features(
        self,
        images: Float[Tensor, "B C H W"],
        *,
        pool: str = "mean",
        layer: int | None = None,
        batch: int = BATCH,
    ) -> Float[Tensor, "B *N D"]:
        """The encoder's features of whole images, without gradients; see `VisionTransformer.features`.

        With pool "mean" those of a classifier that pools the mean are what its head is given, a
        probe's before the BatchNorm.

        Raises ValueError as the encoder does, and if the classifier's final norm, which stands behind
        the mean, would have to stand on anything else.
        """
        if self.pool == "class" or layer is not None:
            return self.encoder.features(images, pool=pool, layer=layer, batch=batch)
        check_pool(pool, self.encoder.class_tokens)
        if pool != "mean":
            raise ValueError(
                f"this classifier's final norm is for the mean of the patches: choose --pool mean, or "
                f"take what its last block gives, --layer {len(self.encoder.blocks)}"
            )
        return in_batches(self, self.pooled, images, batch)

    def pooled(
        self, images: Float[Tensor, "B C H W"], *, keep: Float[Tensor, "depth 2 B"] | None = None
    ) -> Float[Tensor, "B D"]:
        """One vector per image: what the head, and the probe's norm before it, are given."""
        tokens = self.encoder(images, keep=keep)
        if self.pool == "class":
            return tokens[:, 0]
        return self.fc_norm(tokens[:, self.encoder.class_tokens :].mean(dim=1))

    def folded_head(self) -> tuple[Float[Tensor, "classes D"], Float[Tensor, "classes"]]:
        """Weight and bias of the one linear layer that the head is together with the probe's norm.

        What takes a model without that norm, such as timm, has to be given these.
        """
        if not isinstance(norm := self.feature_norm, FeatureNorm):
            return self.head.weight, self.head.bias
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight = self.head.weight * (norm.running_var + norm.eps).rsqrt()
        return weight, self.head.bias - weight @ norm.running_mean


def drop_path_keep(
    depth: int, rate: float, batch: int, rng: np.random.Generator
) -> Float[Tensor, "depth 2 B"]:
    """Draws drop path (Huang et al. 2016): a factor for both branches of each block, per image.

    A branch is dropped, factor 0, at a rate that rises linearly from 0 in the first block to `rate`
    in the last; else its factor is 1 / (1 - its rate), so that the mean stays 1.

    Raises ValueError if the rate is not in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a drop path rate of {rate} is not in [0, 1): the paper's are 0.1 and 0.2")
    rates = torch.linspace(0, rate, depth)[:, None, None]
    uniform = torch.from_numpy(rng.random((depth, 2, batch), dtype=np.float32))
    return (uniform >= rates) / (1 - rates)


def set_trainable(model: Classifier, blocks: float | int | None) -> list[str]:
    """Says by `requires_grad` what is trained, and returns those names (paper, Fig. 9).

    - None: everything, the positions included.
    - 0: the head alone; the linear probe.
    - 0.5: also the second half of the last block (`norm2`, `mlp` and, if there is one,
      `ls2`), and the norm behind the blocks (`encoder.norm` or `fc_norm`).
    - 1, 2, ...: that many whole blocks from the end, that norm and the head; n.5 adds the half of
      the block before them. Embeddings and positions stay as they are.

    Raises ValueError for a number that is not so many half blocks.
    """
    depth = len(model.encoder.blocks)
    check_trainable(depth, blocks)
    prefixes = _trained_prefixes(depth, blocks)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def check_trainable(depth: int, blocks: float | int | None) -> None:
    """Raises ValueError for a number that is not so many half blocks of an encoder of that depth."""
    if blocks is not None and not (0 <= blocks <= depth and float(2 * blocks).is_integer()):
        raise ValueError(
            f"{blocks:g} blocks cannot be tuned: this encoder has {depth}; choose 0 for the head alone, "
            f"0.5 for the last block's MLP, or a number up to {depth}"
        )


def _trained_prefixes(depth: int, blocks: float | int | None) -> tuple[str, ...]:
    if blocks is None:
        return ("",)
    first = depth - int(blocks)
    whole = [f"encoder.blocks.{i}." for i in range(first, depth)]
    parts = ("norm2", "mlp", "ls2") if blocks != int(blocks) else ()
    half = [f"encoder.blocks.{first - 1}.{part}." for part in parts]
    norms = ["encoder.norm.", "fc_norm."] if blocks else []
    return (*whole, *half, *norms, "head.")
