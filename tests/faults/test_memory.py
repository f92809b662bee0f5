"""Faults 18, 26 and 30: nothing asks for more memory than its values need."""

import gzip
import json
import os
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import unmask
from faults_support import PASSED, in_child
from tests_support import PARTS, random_weights, spec_for
from unmask.config.image import PixelFormat
from unmask.data.decode.pictures import BadImage
from unmask.data.sources.find import find_images
from unmask.data.sources.idx import read_idx
from unmask.engine.machine import is_out_of_memory
from unmask.errors import CheckpointError, DataError
from unmask.interop.weights import write_model
from unmask.tasks.pretrain import Pretrain

ROOM = 2**30
"""Bytes beyond what the test process has already."""


def with_little_room(call, error: type[Exception]) -> int:
    """Calls in a process that cannot get more; 0 if it raises this error."""

    def limited():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        with pytest.raises(error):
            call()

    return in_child(limited)


def idx(*shape: int, values: bytes = b"") -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + values


@pytest.mark.parametrize(
    "shape", [(2**32 - 1, 0, 0), (2**32 - 1, 28, 28), (2**31, 1, 1), (2**32 - 1, 2**32 - 1, 2**32 - 1)]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_18_an_idx_file_that_promises_more_than_it_holds(tmp_path, shape, suffix):
    file = str(tmp_path / f"train-images-idx3-ubyte{suffix}")
    content = idx(*shape, values=bytes(100))
    with open(file, "wb") as stream:
        stream.write(gzip.compress(content) if suffix else content)
    assert with_little_room(lambda: read_idx(file), DataError) == PASSED


def test_18_a_gzipped_idx_file_is_unpacked_no_further_than_it_promises(tmp_path):
    """3 MB of gzip that hold 3 GB."""
    file = str(tmp_path / "train-images-idx3-ubyte.gz")
    million = gzip.compress(bytes(10**6))
    with open(file, "wb") as stream:
        stream.write(gzip.compress(idx(10, 10, 10)) + million * 3000)
    assert with_little_room(lambda: read_idx(file), DataError) == PASSED


def test_idx_files_are_read_as_before(tmp_path):
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    for suffix, packed in (("", idx(3, 4, 5, values=values.tobytes())), (".gz", None)):
        file = tmp_path / f"train-images-idx3-ubyte{suffix}"
        file.write_bytes(packed or gzip.compress(idx(3, 4, 5, values=values.tobytes())))
        assert (read_idx(str(file)) == values).all()


@pytest.mark.timeout(20)
def test_16_a_pipe_as_idx_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match="no ordinary file"):
        read_idx(str(tmp_path / "train-images-idx3-ubyte"))


def test_18_a_sparse_array_is_refused(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", dtype=np.float64, shape=(10, 10, 10**8))
    del array
    wanted = PixelFormat(channels=3)
    images = find_images((str(tmp_path),))
    found = images.decode(0, wanted)
    assert isinstance(found, BadImage)
    assert "GiB" in found.reason


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 10**6}, {"decoder_depth": 10**6}, {"width": 10**9}, {"decoder_width": 10**9},
        {"image_size": [10**6, 10**6]}, {"patch_size": [10**6, 10**6]}, {"patch_size": [0, 0]},
        {"channels": 10**9}, {"class_tokens": 10**9}, {"heads": 0}, {"heads": 3}, {"mlp_ratio": 1e9},
        {"mlp_ratio": 1e400}, {"depth": -1}, {"depth": None}, {"depth": "2"}, {"width": 1.5},
        {"channels": None}, {"image_size": 3}, {"image_size": []}, {"image_size": ["a", "b"]},
        {"heads": None}, {"target": 3}, {"decoder_heads": 0}, {"width": 0},
    ],
    ids=str,
)  # fmt: skip
def test_30_descriptions_of_models_that_the_weights_are_not(tmp_path, tiny, changes):
    weights = random_weights(spec_for(tiny))
    write_model(tmp_path, weights.state, weights.description)
    description = json.loads((tmp_path / "model.json").read_text())
    for name, value in changes.items():
        parts = [part for part, names in PARTS.items() if name in names]
        for part in parts or ["encoder"]:
            description["model"][part][PARTS.get(part, {}).get(name, name)] = value
    (tmp_path / "model.json").write_text(json.dumps(description))
    assert with_little_room(lambda: unmask.load(tmp_path), CheckpointError) == PASSED


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory: you "
        ),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=["torch", "python", "device"],
)
def test_26_out_of_memory_names_a_micro_batch(tiny, monkeypatch, error):
    def step(self, model, batch, draw):
        raise error

    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    monkeypatch.setattr(Pretrain, "step", step)
    with pytest.raises(ValueError, match=r"--optim\.micro-batch 2; the batch stays as it is"):
        unmask.pretrain(tiny)


def test_26_torch_says_so_on_this_machine():
    """The sentence that `is_out_of_memory` looks for."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
