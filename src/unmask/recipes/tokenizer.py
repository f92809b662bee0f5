"""Recipes of `unmask tokenizer`."""

from collections.abc import Callable

from unmask.config.settings import Optim
from unmask.config.tokenizer import TokenizerConfig, TokenizerData, TokenizerModel


def laptop_tokenizer() -> TokenizerConfig:
    """A small vocabulary of 8 x 8 pixels for the 12 x 12 patches of the recipe laptop, on a processor.

    Claim: none yet.
    Cost: 48,000 samples whatever the size of the folder.
    Command: unmask tokenizer FOLDER --recipe laptop-tokenizer
    """
    return TokenizerConfig(
        recipe="laptop-tokenizer",
        data=TokenizerData(size=(96,), crop_scale=(0.6, 1.0)),
        model=TokenizerModel(vocabulary=512, width=16, blocks=1),
        optim=Optim(steps=3000, warmup_steps=100, batch=16, base_lr=0.16, weight_decay=0.0),
    )


def vit_tokenizer() -> TokenizerConfig:
    """DALL-E's dimensions for the 14 x 14 patches of the paper's models, on GPUs.

    Claim: none; the paper took weights trained on 250 million images.
    Cost: 100 epochs; the encoder alone takes 40 % of a ViT-L's operations.
    Command: unmask tokenizer FOLDER --recipe vit-tokenizer
    """
    return TokenizerConfig(
        recipe="vit-tokenizer",
        optim=Optim(epochs=100, warmup_epochs=2, batch=512, base_lr=1e-3, weight_decay=0.0),
    )


TOKENIZER: dict[str, Callable[[], TokenizerConfig]] = {
    "laptop-tokenizer": laptop_tokenizer,
    "vit-tokenizer": vit_tokenizer,
}
