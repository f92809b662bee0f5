"""A discrete VAE (Ramesh et al. 2021, Zero-Shot Text-to-Image Generation, appendix A).

Both halves are convolutional networks of bottleneck residual blocks: max-pooling on the way to the
tokens, nearest-neighbour upsampling on the way back. In training a token is a soft choice from the
vocabulary, drawn by Gumbel's trick.

Legend: B images, C channels, H x W pixels, h x w tokens, V vocabulary, D channels within.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unmask.core.spec import Size
from unmask.models.tokenizer_spec import TokenizerSpec

SCALE, OFFSET = 0.8, 0.1
"""DALL-E's map of pixels from [0, 1], which keeps their logits finite."""


class TokenizerOutput(NamedTuple):
    """`loss` is the error plus the weighted divergence."""

    loss: Float[Tensor, ""]
    error: Float[Tensor, ""]
    """Mean squared error of the pixels that count."""
    divergence: Float[Tensor, ""]
    """KL divergence of a cell's distribution from the uniform one, in nats: 0 to log V."""
    images: Float[Tensor, ""] | float
    """How many the loss is a mean over, those that count in part in part."""


class Tokenizer(nn.Module):
    """Encoder to logits over the vocabulary, decoder back to pixels."""

    def __init__(self, spec: TokenizerSpec):
        super().__init__()
        self.spec = spec
        groups = spec.downsampling.bit_length()
        widths = [spec.width << i for i in range(groups)]
        gain = (groups * spec.blocks) ** -2.0
        drawn = spec.channels * (2 if spec.pixels == "logit-laplace" else 1)
        self.encoder = nn.Sequential(
            nn.Conv2d(spec.channels, spec.width, 7, padding=3),
            _groups(spec.width, widths, (3, 3, 3, 1), spec.blocks, gain, nn.MaxPool2d(2)),
            nn.ReLU(),
            nn.Conv2d(widths[-1], spec.vocabulary, 1),
        )
        self.embedding = nn.Conv2d(spec.vocabulary, spec.width // 2, 1)
        self.decoder = nn.Sequential(
            _groups(
                *(spec.width // 2, widths[::-1], (1, 3, 3, 3), spec.blocks, gain),
                nn.Upsample(scale_factor=2, mode="nearest"),
            ),
            nn.ReLU(),
            nn.Conv2d(spec.width, drawn, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                nn.init.zeros_(cast(Tensor, module.bias))

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        *,
        temperature: float,
        noise: Float[Tensor, "B V h w"],
        divergence_weight: float = 0.0,
        valid: Bool[Tensor, "B C H W"] | None = None,
    ) -> TokenizerOutput:
        """The training loss: how far the drawn images are from the given, plus the weighted divergence.

        The divergence counts once per cell, as the paper's does: its weight is divided by the values of
        a cell. Logits and losses are computed in float32.

        Args:
            images: normalised images.
            temperature: of the soft choice: low ones are close to a hard one.
            noise: uniform in [0, 1).
            divergence_weight: the paper's beta.
            valid: the pixels that count.
        """
        if self.spec.pixels != "normalized":
            raise ValueError("DALL-E's weights are used as they are: train a tokenizer of your own")
        if valid is not None:
            images = images.where(valid, 0)
        logits = self.logits(images).float()
        gumbel = -(-noise.clamp(1e-10, 1 - 1e-7).log()).log()
        choice = ((logits + gumbel) / temperature).softmax(dim=1)
        drawn = self.decoder(self.embedding(choice)).float()
        squared = (drawn - images).square()
        error = squared.mean()
        count: Tensor | float = float(len(images))
        if valid is not None:
            total = valid.sum()
            error = squared.where(valid, 0).sum() / total.clamp(min=1)
            count = total / images[0].numel()
        log_share = logits.log_softmax(dim=1)
        uniform = torch.full_like(log_share[0, 0], self.spec.vocabulary).log()
        divergence = (log_share.exp() * (log_share + uniform)).sum(dim=1).mean()
        cell = self.spec.channels * self.spec.downsampling**2
        return TokenizerOutput(error + divergence_weight / cell * divergence, error, divergence, count)

    def logits(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B V h w"]:
        """Logits of every token at every position."""
        if self.spec.pixels == "logit-laplace":
            images = SCALE * images + OFFSET
        return self.encoder(images)

    def ids(self, images: Float[Tensor, "B C H W"]) -> Int[Tensor, "B h w"]:
        """The most probable token of every cell. DALL-E's takes pixels from 0 to 1."""
        return self.logits(images).argmax(dim=1)

    def pixels(self, ids: Int[Tensor, "B h w"]) -> Float[Tensor, "B C H W"]:
        """The images that tokens stand for, as `ids` takes images."""
        table, bias = self.embedding.weight[:, :, 0, 0].mT, cast(Tensor, self.embedding.bias)
        drawn = self.decoder(F.embedding(ids, table).permute(0, 3, 1, 2) + bias[:, None, None])
        if self.spec.pixels == "normalized":
            return drawn
        return ((drawn[:, : self.spec.channels].sigmoid() - OFFSET) / SCALE).clamp(0, 1)


class Residual(nn.Module):
    """Four convolutions through a quarter of the channels, added to what came in."""

    def __init__(self, inputs: int, outputs: int, kernels: Sequence[int], gain: float):
        super().__init__()
        hidden = outputs // 4
        widths = [inputs, hidden, hidden, hidden, outputs]
        self.gain = gain
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], kernel, padding=kernel // 2)
            for i, kernel in enumerate(kernels)
        )
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B _ h w"]:
        added = x
        for convolution in self.convolutions:
            added = convolution(added.relu())
        return self.skip(x) + self.gain * added


def gumbel_noise(
    seeds: Int[Tensor, "B"], vocabulary: int, grid: Size, device: torch.device
) -> Float[Tensor, "B V h w"]:
    """Uniform noise that each image's own seed decides, so that no division of a batch matters.

    It is drawn on the device; the seeds are on the CPU.
    """
    generator = torch.Generator(device)
    rows = [
        torch.rand(vocabulary, *grid, generator=generator.manual_seed(seed), device=device)
        for seed in seeds.tolist()
    ]
    return torch.stack(rows)


def perplexity(counts: Float[Tensor, "V"]) -> float:
    """Perplexity of the use of tokens: 1 if all cells have the same, V if all are used equally often."""
    share = counts.double() / counts.sum()
    return float(torch.special.entr(share).sum().exp())


def _groups(
    inputs: int,
    widths: Sequence[int],
    kernels: Sequence[int],
    blocks: int,
    gain: float,
    between: nn.Module,
) -> nn.Sequential:
    """Groups of residual blocks, one for each width, and a change of resolution between two groups."""
    layers: list[nn.Module] = []
    for group, width in enumerate(widths):
        layers += [between] if group else []
        for block in range(blocks):
            layers.append(Residual(width if block else inputs, width, kernels, gain))
        inputs = width
    return nn.Sequential(*layers)
