"""The Transformer block: queries, bias, windows, drop path, layer scale, both attention kernels."""

import pytest
import torch
from torch import Tensor

from unmask.core import blocks
from unmask.core.blocks import Attention, Block, attention_kernel, from_windows, to_windows

WIDTH, HEADS = 12, 3


@pytest.fixture(params=["fused", "plain"], autouse=True)
def kernel(request, monkeypatch):
    monkeypatch.setattr(blocks, "attention_kernel", lambda *_: request.param)


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, no parameter at a special value, so that each one matters."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return randomized(Block(WIDTH, HEADS, layer_scale=0.5))


def tokens(batch: int, count: int) -> Tensor:
    return torch.randn(batch, count, WIDTH, dtype=torch.float64)


def attend_by_hand(attn: Attention, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Token by token and head by head."""
    B, T, D = x.shape
    size = D // HEADS
    bias = torch.zeros(1, 1, 1, 1) if bias is None else bias
    bias = bias.expand(B, HEADS, T, T)
    q, k, v = (attn.qkv(x)[..., i * D : (i + 1) * D] for i in range(3))
    mixed = torch.zeros_like(x)
    for b in range(B):
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            for t in range(T):
                scores = k[b, :, part] @ q[b, t, part] / size**0.5 + bias[b, head, t]
                mixed[b, t, part] = (scores.exp() / scores.exp().sum()) @ v[b, :, part]
    return attn.proj(mixed)


@pytest.mark.parametrize("shape", [None, (1, 1, 5, 5), (1, HEADS, 5, 5), (2, HEADS, 5, 5), (2, 1, 1, 5)])
def test_attention_and_its_bias_by_hand(block, shape):
    x = tokens(2, 5)
    bias = None if shape is None else torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(block.attn(x, bias=bias), attend_by_hand(block.attn, x, bias))


def test_a_bias_of_minus_infinity_hides_a_token(block):
    x, bias = tokens(1, 4), torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    bias[..., 3] = -torch.inf
    torch.testing.assert_close(block(x, bias=bias)[:, :3], block(x[:, :3]))


@pytest.mark.parametrize("queries", [slice(0, 1), slice(2, 5), slice(-3, None), slice(None)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_queries_equal_a_slice_of_everything(block, queries, with_bias):
    x, keep = tokens(2, 6), torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    bias = torch.randn(1, HEADS, 6, 6, dtype=torch.float64) if with_bias else None
    asked = None if bias is None else bias[:, :, queries]
    torch.testing.assert_close(
        block(x, queries=queries, bias=asked, keep=keep), block(x, bias=bias, keep=keep)[:, queries]
    )


@pytest.mark.parametrize(
    ("grid", "side"), [((4, 4), 2), ((4, 6), 2), ((5, 7), 3), ((2, 3), 4), ((3, 5), 1), ((1, 4), 3)]
)
@pytest.mark.parametrize("with_bias", [False, True])
def test_windows_against_a_loop(block, grid, side, with_bias):
    """Padding is zeros after the norm, and is attended to."""
    (h, w), x = grid, tokens(2, grid[0] * grid[1])
    bias = torch.randn(1, HEADS, side**2, side**2, dtype=torch.float64) if with_bias else None
    normed = block.norm1(x)
    attended = torch.zeros_like(x)
    for top in range(0, h, side):
        for left in range(0, w, side):
            window, places = torch.zeros(2, side**2, WIDTH, dtype=torch.float64), {}
            for slot in range(side**2):
                row, column = top + slot // side, left + slot % side
                if row < h and column < w:
                    places[slot] = row * w + column
                    window[:, slot] = normed[:, row * w + column]
            result = block.attn(window, bias=bias)
            for slot, place in places.items():
                attended[:, place] = result[:, slot]
    expected = x + block.ls1(attended)
    expected = expected + block.ls2(block.mlp(block.norm2(expected)))
    torch.testing.assert_close(block(x, window=(grid, side), bias=bias), expected)
    assert torch.equal(from_windows(to_windows(x, grid, side), grid, side), x)


def test_one_window_over_the_whole_grid_is_global_attention(block):
    x = tokens(2, 9)
    torch.testing.assert_close(block(x, window=((3, 3), 3)), block(x))


def test_dropping_both_branches_is_the_identity(block):
    x = tokens(2, 4)
    assert torch.equal(block(x, keep=torch.zeros(2, 2)), x)


@pytest.mark.parametrize("window", [None, ((2, 3), 2)])
def test_drop_path_scales_each_branch_of_each_image(block, window):
    x, rate = tokens(4, 6), 0.25
    kept = 1 / (1 - rate)
    keep = torch.tensor([[kept, kept, 0, 0], [kept, 0, kept, 0]], dtype=torch.float64)
    full, half = block(x, window=window, keep=torch.ones(2, 4)), torch.tensor([[1.0] * 4, [0] * 4])
    torch.testing.assert_close(full, block(x, window=window))

    attended = x + keep[0].reshape(4, 1, 1) * (block(x, window=window, keep=half) - x)
    mlp = block.ls2(block.mlp(block.norm2(attended)))
    torch.testing.assert_close(
        block(x, window=window, keep=keep), attended + keep[1].reshape(4, 1, 1) * mlp
    )


def test_layer_scale_multiplies_each_branch(block):
    x = tokens(2, 4)
    expected = x + block.ls1.gamma * block.attn(block.norm1(x))
    expected = expected + block.ls2.gamma * block.mlp(block.norm2(expected))
    torch.testing.assert_close(block(x), expected)
    fresh = Block(WIDTH, HEADS, layer_scale=1e-4)
    assert torch.equal(fresh.ls1.gamma, torch.full((WIDTH,), 1e-4))
    assert not any("ls" in name for name, _ in Block(WIDTH, HEADS).named_parameters())


@pytest.mark.parametrize("options", ["nothing", "queries", "bias", "window"])
def test_plain_and_fused_attention_agree_forward_and_backward(block, monkeypatch, options):
    bias = torch.randn(1, HEADS, 4, 4, dtype=torch.float64, requires_grad=True)
    call = {
        "nothing": {},
        "queries": {"queries": slice(1, 3)},
        "bias": {"bias": bias},
        "window": {"bias": bias, "window": ((3, 2), 2)},
    }[options]
    x = tokens(2, 6 if options == "window" else 4).requires_grad_()
    wanted = [x, *block.parameters(), *([bias] if "bias" in call else [])]
    results = []
    for name in ("plain", "fused"):
        monkeypatch.setattr(blocks, "attention_kernel", lambda *_, name=name: name)
        y = block(x, **call)
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), wanted)))
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused)


@pytest.mark.parametrize("count", [4, 300])
def test_a_float32_bias_serves_a_bfloat16_block(count):
    block = Block(WIDTH, HEADS).bfloat16()
    x, bias = torch.randn(1, count, WIDTH).bfloat16(), torch.randn(1, HEADS, count, count)
    assert block(x, bias=bias).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("device", "dtype", "count", "expected"),
    [
        ("cpu", torch.bfloat16, 256, "plain"),
        ("cpu", torch.bfloat16, 257, "fused"),
        ("cpu", torch.float32, 50, "fused"),
        ("cuda", torch.bfloat16, 50, "fused"),
    ],
)
def test_the_rule_that_chooses_the_kernel(device, dtype, count, expected):
    assert attention_kernel(device, dtype, count) == expected


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="5 heads do not divide a width of 12: change"):
        Block(12, 5)


def test_recomputed_block_is_the_same(block):
    """Activation checkpointing changes neither outputs nor gradients, bit for bit."""
    x, bias = tokens(2, 6).requires_grad_(), torch.randn(1, HEADS, 4, 6, dtype=torch.float64)
    results = []
    for recomputes in (False, True):
        block.recomputes = recomputes
        keep = torch.tensor([[0.0, 2.0], [2.0, 2.0]])
        output = block(x, queries=slice(2, None), bias=bias, keep=keep)
        gradients = torch.autograd.grad(output.square().sum(), [x, *block.parameters()])
        results.append([output, *gradients])
    assert all(map(torch.equal, *results))
