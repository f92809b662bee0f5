"""How the encoder and the decoder start."""

from typing import cast

from torch import Tensor, nn


def initialize(module: nn.Module) -> None:
    """The official MAE code's initialisation, drawn from torch's global generator.

    Xavier-uniform for every Linear, and for the patch projection seen as a Linear; biases 0;
    normal(0.02) for class and mask tokens.
    """
    for m in module.modules():
        if isinstance(m, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(m.weight.detach().flatten(1))
            nn.init.zeros_(cast(Tensor, m.bias))
    for name, parameter in module.named_parameters():
        if name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)
