"""BatchNorm equals torch's in one process, and one over the whole batch in two with gloo."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from unmask.models.feature_norm import FeatureNorm

WIDTH, EPS = 4, 1e-5
BATCH = 5


def batch(maps: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and the gradient of what is made of them."""
    g = torch.Generator().manual_seed(0)
    shape = (BATCH, WIDTH, 3, 2) if maps else (BATCH, WIDTH)
    return torch.randn(shape, generator=g) * 3 + 1, torch.randn(shape, generator=g)


def parametrized(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, WIDTH + 1))
        norm.bias.copy_(torch.arange(WIDTH) - 1.5)
    return norm


def torchs(maps: bool) -> nn.Module:
    return parametrized((nn.BatchNorm2d if maps else nn.BatchNorm1d)(WIDTH, eps=EPS))


def ours() -> nn.Module:
    return parametrized(FeatureNorm(WIDTH, affine=True, eps=EPS))


def outcome(norm: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> list[torch.Tensor]:
    """Outputs, all gradients, statistics."""
    x = x.clone().requires_grad_()
    out = norm(x)
    out.backward(gradient)
    return [
        *(out.detach(), x.grad, norm.weight.grad, norm.bias.grad),
        *(norm.running_mean, norm.running_var, norm.num_batches_tracked),
    ]


@pytest.mark.parametrize("maps", [False, True])
def test_equals_torchs_in_one_process(maps):
    x, gradient = batch(maps)
    one, other = ours(), torchs(maps)
    for found, wanted in zip(outcome(one, x, gradient), outcome(other, x, gradient), strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(one.eval()(x), other.eval()(x))
    assert one.state_dict().keys() == other.state_dict().keys()


def test_nothing_to_normalise():
    norm = ours()
    assert norm(torch.zeros(0, WIDTH, 3, 2)).shape == (0, WIDTH, 3, 2)
    assert norm.num_batches_tracked == 0
    assert norm.running_mean.isfinite().all()


def one_of_two(rank: int, port: int, folder: str) -> None:
    """The first process has two of the features, or none, and the other the rest."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for share, maps in CASES:
        x, gradient = batch(maps)
        rows = slice(None, share) if rank == 0 else slice(share, None)
        found[share, maps] = outcome(ours(), x[rows], gradient[rows])
    empty = ours()
    empty(torch.zeros(0, WIDTH, 3, 2))
    found["empty"] = [empty.running_mean, empty.running_var, empty.num_batches_tracked]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


CASES = [(share, maps) for share in (2, 0) for maps in (False, True)]


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(one_of_two, (port, str(tmp_path)), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for case in CASES:
        one, two, wanted = first[case], second[case], outcome(torchs(case[1]), *batch(case[1]))
        together = [torch.cat([a, b]) for a, b in zip(one[:2], two[:2], strict=True)]
        summed = [a + b for a, b in zip(one[2:4], two[2:4], strict=True)]
        for found, expected in zip([*together, *summed, *one[4:]], wanted, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert all(a.equal(b) for a, b in zip(one[4:], two[4:], strict=True))
    mean, variance, count = first["empty"]
    assert (count, mean.abs().sum(), variance.sum()) == (0, 0, WIDTH)
