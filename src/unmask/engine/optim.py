"""AdamW, its parameter groups, and the learning rate of each step."""

import math
from typing import Any

import torch
from torch import nn

from unmask.config.plan import TrainingPlan


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights are decayed; biases and norms, all of one dimension, are not.

    Class and mask tokens have three dimensions and are decayed, as in the reference.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(groups: list[dict[str, Any]], plan: TrainingPlan) -> torch.optim.AdamW:
    """AdamW (paper, Table 8); the loop sets the rate before each step."""
    fused = plan.device in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=plan.lr, betas=plan.betas, fused=fused)


def learning_rate(step: int, plan: TrainingPlan) -> float:
    """Linear warm-up from zero, then half a cosine to zero; `step` counts from 0."""
    if step < plan.warmup_steps:
        return plan.lr * step / plan.warmup_steps
    progress = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    return plan.lr * 0.5 * (1 + math.cos(math.pi * progress))


def scale_gradients(parameters: list[nn.Parameter], scale: float, clip: float | None) -> float:
    """Multiplies all gradients and clips their norm; returns the norm before clipping."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients)) * scale
    if clip is not None and norm > clip:
        scale *= clip / (norm + 1e-6)
    if scale != 1:
        torch._foreach_mul_(gradients, scale)
    return norm
