"""Optimizers, their parameter groups, and the learning rate of each step."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from unmask.config.plan import OptimizerName, TrainingPlan

TRUST = 0.001
"""LARS: length of a step relative to the weights, before the learning rate (paper, Table 10)."""

Groups = list[dict[str, Any]]
"""As torch's optimizers take them; `lr_scale`, if a group has one, multiplies its rate."""


def decay_groups(model: nn.Module, weight_decay: float) -> Groups:
    """Weights are decayed; biases and norms, all of one dimension, are not.

    Class and mask tokens have three dimensions and are decayed, as in the official MAE code.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def layer_decay_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    depth: int,
    weight_decay: float,
    layer_decay: float,
    undecayed: tuple[str, ...] = ("pos_embed", "cls_token", "relative_position"),
) -> Groups:
    """Groups whose learning rates fall towards the input (paper, Table 9; Clark et al. 2020).

    A group's `lr_scale` is layer_decay^(depth + 1 - layer), where the embeddings are layer 0, block i
    with its relative positions is layer i + 1, and all behind the blocks is layer depth + 1. Weights are
    decayed; what has one dimension, and parameters with a part of their name in `undecayed`, are not.

    timm counts a final norm to the last block; here it goes with the head, as in the official MAE code.
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        layer = _layer_of(name, depth)
        decayed = parameter.ndim > 1 and not set(name.split(".")) & set(undecayed)
        group = groups.setdefault(
            (layer, decayed),
            {
                "params": [],
                "weight_decay": weight_decay if decayed else 0.0,
                "lr_scale": layer_decay ** (depth + 1 - layer),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def _layer_of(name: str, depth: int) -> int:
    of_block = (
        r"(?:^|\.)(?:blocks|relative_position\.(?:tables|class_pairs|rows|columns))\.(\d+)(?:\.|$)"
    )
    if block := re.search(of_block, name):
        return int(block[1]) + 1
    return 0 if re.search(r"(?:^|\.)(?:cls_token|pos_embed|patch_embed)(?:\.|$)", name) else depth + 1


def build_optimizer(groups: Groups, plan: TrainingPlan) -> torch.optim.Optimizer:
    """The plan's optimizer; the loop sets the rate of each group before each step."""
    return OPTIMIZERS[plan.optimizer](groups, plan)


def _adamw(groups: Groups, plan: TrainingPlan) -> torch.optim.Optimizer:
    fused = plan.device in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=plan.lr, betas=plan.betas, fused=fused)


def _lars(groups: Groups, plan: TrainingPlan) -> torch.optim.Optimizer:
    """LARS (You et al. 2017) for weights; for biases and norms plain momentum without decay.

    `always_adapt`, since timm's otherwise adapts nothing if the weight decay is zero.
    """
    from timm.optim import Lars  # importing timm takes seconds, and few runs need it

    parts = [
        {**g, "params": weights, "always_adapt": True}
        for g in groups
        if (weights := [p for p in g["params"] if p.ndim > 1])
    ] + [
        {**g, "params": others, "always_adapt": False, "weight_decay": 0.0}
        for g in groups
        if (others := [p for p in g["params"] if p.ndim <= 1])
    ]
    return Lars(parts, lr=plan.lr, momentum=plan.momentum, trust_coeff=TRUST)


def _sgd(groups: Groups, plan: TrainingPlan) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=plan.lr, momentum=plan.momentum)


OPTIMIZERS: dict[OptimizerName, Callable[[Groups, TrainingPlan], torch.optim.Optimizer]] = {
    "adamw": _adamw,  # paper, Tables 8, 9 and 11
    "lars": _lars,  # Table 10
    "sgd": _sgd,  # works alike at a batch of 4096
}


def learning_rate(step: int, plan: TrainingPlan) -> float:
    """Linear warm-up from zero, then half a cosine or a line to the least; `step` counts from 0."""
    if step < plan.warmup_steps:
        return plan.lr * step / plan.warmup_steps
    progress = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    left = 1 - progress if plan.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return plan.min_lr + (plan.lr - plan.min_lr) * left


def update_weights(optimizer: torch.optim.Optimizer, scale: Tensor, clip: float | None) -> Tensor:
    """One step with all gradients times `scale`, and their norm clipped; forgets the gradients.

    Returns the norm before clipping. Where it is not finite, the weights and the optimizer's state
    stay as they are. Fused optimizers decide that on the device; for the others the host waits.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).to(scale) * scale
    if clip is not None:
        scale = scale * (clip / (norm + 1e-6)).clamp(max=1)
    torch._foreach_mul_(gradients, scale.to(gradients[0]))
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (~norm.isfinite()).to(gradients[0])  # type: ignore[attr-defined]
        optimizer.step()
    elif norm.isfinite():
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state, keyed by parameter name and state name."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"{names[p]}:{key}": value.detach().contiguous()
        for p, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`."""
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name, key = full_name.rsplit(":", 1)
        parameter = parameters[name]
        on_device = key != "step" or parameter.device.type == "cuda"
        optimizer.state[parameter][key] = value.to(parameter.device if on_device else "cpu")
