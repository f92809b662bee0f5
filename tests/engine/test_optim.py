"""Optimizers against their formulas, layer decay against timm, and state that survives a checkpoint."""

import math
from dataclasses import replace

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from tests_support import plan_for
from unmask.config.commands import PretrainConfig
from unmask.engine import checkpoint
from unmask.engine.optim import (
    TRUST,
    build_optimizer,
    decay_groups,
    layer_decay_groups,
    learning_rate,
    restore_optimizer,
    update_weights,
)

PLAN = replace(plan_for(PretrainConfig()), lr=0.3, momentum=0.9)
UNDECAYED = {"pos_embed", "cls_token"}


def tiny_vit(pool: str) -> nn.Module:
    return timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=5, global_pool=pool
    )


def per_parameter(model: nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    names = {p: name for name, p in model.named_parameters()}
    return {names[p]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_layer_decay_equals_timm(pool):
    model = tiny_vit(pool)
    theirs = param_groups_layer_decay(
        model, weight_decay=0.05, layer_decay=0.75, no_weight_decay_list=UNDECAYED
    )
    named = model.named_parameters()
    ours = layer_decay_groups(named, depth=3, weight_decay=0.05, layer_decay=0.75)
    got, expected = per_parameter(model, ours), per_parameter(model, theirs)
    assert got.keys() == expected.keys() == {name for name, _ in model.named_parameters()}
    for name in got:
        if name.startswith("norm."):  # timm counts it to the last block
            assert got[name] == (1.0, 0.0)
            assert expected[name] == (0.75, 0.0)
        else:
            assert got[name] == pytest.approx(expected[name])
    assert got["patch_embed.proj.weight"] == pytest.approx((0.75**4, 0.05))
    assert got["head.weight"] == (1.0, 0.05)


def test_layer_decay_knows_the_encoder_inside_a_model_and_leaves_out_what_is_frozen():
    others = nn.ModuleList([nn.Linear(2, 2)])
    model = nn.ModuleDict({"encoder": tiny_vit("token"), "decoder_blocks": others})
    model["encoder"].patch_embed.requires_grad_(False)
    groups = layer_decay_groups(model.named_parameters(), depth=3, weight_decay=0.05, layer_decay=0.5)
    got = per_parameter(model, groups)
    assert got["encoder.blocks.0.mlp.fc1.weight"] == (0.125, 0.05)
    assert got["encoder.cls_token"] == (0.0625, 0.0)
    assert got["decoder_blocks.0.weight"] == (1.0, 0.05)
    assert not any("patch_embed" in name for name in got)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.bias = nn.Parameter(torch.randn(4))


def descend(model: Two, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
            parameter.grad = noise + parameter.detach()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lars_is_its_formula(weight_decay):
    model, plan = Two(), replace(PLAN, optimizer="lars")
    optimizer = build_optimizer(decay_groups(model, weight_decay), plan)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    momenta = torch.zeros_like(weight), torch.zeros_like(bias)
    for step in range(3):
        noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
        gradient = noise + weight
        adapted = TRUST * weight.norm() / (gradient.norm() + weight_decay * weight.norm())
        momentum = 0.9 * momenta[0] + adapted * (gradient + weight_decay * weight)
        noise = torch.randn(4, generator=torch.Generator().manual_seed(step))
        plain = 0.9 * momenta[1] + noise + bias
        weight, bias, momenta = weight - 0.3 * momentum, bias - 0.3 * plain, (momentum, plain)
        descend(model, optimizer, range(step, step + 1))
    torch.testing.assert_close(model.weight.detach(), weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(model.bias.detach(), bias, rtol=1e-5, atol=1e-7)


def test_lars_never_decays_a_bias_and_keeps_the_scale_of_its_group():
    model = Two()
    groups = [{"params": list(model.parameters()), "weight_decay": 0.1, "lr_scale": 0.5}]
    weights, others = build_optimizer(groups, replace(PLAN, optimizer="lars")).param_groups
    assert (weights["always_adapt"], weights["weight_decay"], weights["lr_scale"]) == (True, 0.1, 0.5)
    assert (others["always_adapt"], others["weight_decay"], others["lr_scale"]) == (False, 0.0, 0.5)


def test_sgd_is_its_formula():
    model = Two()
    before = model.weight.detach().clone()
    optimizer = build_optimizer(decay_groups(model, 0.0), replace(PLAN, optimizer="sgd"))
    first = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) + before
    descend(model, optimizer, range(1))
    after = model.weight.detach().clone()
    torch.testing.assert_close(after, before - 0.3 * first)
    second = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)) + after
    descend(model, optimizer, range(1, 2))
    torch.testing.assert_close(model.weight.detach(), after - 0.3 * (0.9 * first + second))


@pytest.mark.parametrize("kind", ["adamw", "lars", "sgd"])
def test_state_survives_a_checkpoint(tmp_path, kind):
    plan = replace(PLAN, optimizer=kind)

    def fresh() -> tuple[Two, torch.optim.Optimizer]:
        model = Two()
        return model, build_optimizer(decay_groups(model, 0.05), plan)

    model, optimizer = fresh()
    descend(model, optimizer, range(3))
    checkpoint.save(tmp_path, checkpoint.collect(3, model, optimizer, None, {}), keep=1)
    descend(model, optimizer, range(3, 6))

    again, restored = fresh()
    found = checkpoint.load_newest(tmp_path, print)
    again.load_state_dict(found.tensors["model"])
    restore_optimizer(restored, again, found.tensors["optimizer"])
    assert {name.split(":")[1] for name in found.tensors["optimizer"]} == (
        {"step", "exp_avg", "exp_avg_sq"} if kind == "adamw" else {"momentum_buffer"}
    )
    descend(again, restored, range(3, 6))
    assert again.weight.equal(model.weight)
    assert again.bias.equal(model.bias)


def test_cosine_ends_at_the_least_rate():
    plan = replace(PLAN, steps=110, warmup_steps=10, lr=2.0, min_lr=0.5)
    assert learning_rate(5, plan) == 1.0
    assert learning_rate(10, plan) == 2.0
    assert learning_rate(60, plan) == pytest.approx(1.25)
    assert learning_rate(110, plan) == pytest.approx(0.5)


def test_frozen_parameters_have_no_say_in_the_norm():
    model = Two()
    model.weight.grad = torch.ones(3, 4)
    optimizer = build_optimizer(decay_groups(model, 0.05), PLAN)
    assert update_weights(optimizer, torch.tensor(2.0), None).item() == pytest.approx(2 * 12**0.5)
    assert model.weight.grad is None


@pytest.mark.parametrize("name", ["adamw", "lars", "sgd"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_25_a_bad_gradient_changes_nothing(name, bad):
    model, plan = Two(), replace(PLAN, optimizer=name)
    optimizer = build_optimizer(decay_groups(model, 0.05), plan)

    def step(value: float) -> float:
        for p in model.parameters():
            p.grad = torch.full_like(p, value)
        return update_weights(optimizer, torch.tensor(1.0), None).item()

    def everything() -> list[torch.Tensor]:
        moments = (v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v))
        return [x.clone() for x in (*model.parameters(), *moments)]

    assert math.isfinite(step(1.0))
    before = everything()
    assert not math.isfinite(step(bad))
    assert all(map(torch.equal, everything(), before))
    step(1.0)
    assert not any(map(torch.equal, everything()[:2], before[:2]))


def test_relative_positions_learn_with_their_block_and_are_not_decayed():
    names = ["relative_position.tables.0", "relative_position.class_pairs.1", "encoder.blocks.1.mlp.w"]
    parameters = [nn.Parameter(torch.zeros(2, 2, 2)) for _ in names]
    groups = layer_decay_groups(
        zip(names, parameters, strict=True), depth=2, weight_decay=0.1, layer_decay=0.5
    )
    found = {
        names[next(i for i, p in enumerate(parameters) if p is one)]: (g["lr_scale"], g["weight_decay"])
        for g in groups
        for one in g["params"]
    }
    assert found == dict(zip(names, [(0.25, 0.0), (0.5, 0.0), (0.5, 0.1)], strict=True))
