"""Faults 18, 26 and 30: nothing asks for more memory than its values need."""

import gzip
import json
import os
import resource
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import unmask
from data.makers import write_dicom
from faults_support import PASSED, in_child
from models.test_detector import ENCODER, SMALL
from models.test_segmenter import SPEC as SEGMENTER
from tests_support import PARTS, image_spec, random_weights, spec_for
from unmask.config.image import PixelFormat
from unmask.data.decode import pictures
from unmask.data.decode.file_sizes import BYTES_PER_PIXEL
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.sources.find import find_images
from unmask.data.sources.idx import read_idx
from unmask.engine.machine import is_out_of_memory
from unmask.errors import CheckpointError, DataError
from unmask.interop.description import Description, Weights
from unmask.interop.models import build
from unmask.interop.weights import write_model
from unmask.models.detector_spec import DetectorSpec
from unmask.storage import unsealed
from unmask.tasks.pretrain import Pretrain

ROOM = 2**30
"""Bytes beyond what the test process has already."""


NOT_ASKED = r"^(?!.*allocate memory)"
"""What an error says that is none of memory: a larger machine would have had it."""


def memory_pages() -> list[int]:
    """Of this process: all that it asked for, and what is in memory."""
    return [int(word) for word in Path("/proc/self/statm").read_text().split()[:2]]


def resident() -> int:
    return memory_pages()[1] * resource.getpagesize()


def with_little_room(call, error: type[Exception], says: str | None = None) -> int:
    """Calls in a process that cannot get more; 0 if it raises this error, which says so."""

    def limited():
        used = memory_pages()[0] * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        with pytest.raises(error, match=says):
            call()

    return in_child(limited)


def idx(*shape: int, values: bytes = b"") -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + values


@pytest.mark.parametrize(
    ("shape", "holds", "says"),
    [
        ((2**32 - 1, 0, 0), 0, "1 to 2147483648 values are read"),
        ((2**32 - 1, 28, 28), 100, "1 to 2147483648 values are read"),
        ((2**31 + 1, 1, 1), 100, "1 to 2147483648 values are read"),
        ((2**32 - 1, 2**32 - 1, 2**32 - 1), 100, "1 to 2147483648 values are read"),
        ((4, 5, 6), 100, "it holds 100 values and promises"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_18_an_idx_file_that_promises_more_than_it_holds(tmp_path, shape, holds, says, suffix):
    file = str(tmp_path / f"train-images-idx3-ubyte{suffix}")
    content = idx(*shape, values=bytes(holds))
    with open(file, "wb") as stream:
        stream.write(gzip.compress(content) if suffix else content)
    assert with_little_room(lambda: read_idx(file), DataError, says) == PASSED


def test_18_an_idx_file_that_holds_more_than_it_promises(tmp_path):
    """Refused before the 2 GB are read that it promises: a sparse file holds 3."""
    file = str(tmp_path / "train-images-idx3-ubyte")
    with open(file, "wb") as stream:
        stream.write(idx(2000, 1000, 1000))
        stream.truncate(3 * 10**9)
    assert with_little_room(lambda: read_idx(file), DataError, "it holds 2999999984 values") == PASSED


@pytest.mark.parametrize(
    ("shape", "says"),
    [((10, 10, 10), "it holds more values"), ((3000, 1000, 1000), "1 to 2147483648 values are read")],
)
def test_18_a_gzipped_idx_file_is_unpacked_no_further_than_it_promises(tmp_path, shape, says):
    """3 MB of gzip that hold 3 GB."""
    file = str(tmp_path / "train-images-idx3-ubyte.gz")
    million = gzip.compress(bytes(10**6))
    with open(file, "wb") as stream:
        stream.write(gzip.compress(idx(*shape)) + million * 3000)
    assert with_little_room(lambda: read_idx(file), DataError, says) == PASSED


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


def decoded(folder: Path, **wanted: Any) -> torch.Tensor | BadImage:
    return find_images((str(folder),)).decode(0, PixelFormat(**wanted))


def test_18_a_sparse_array_is_refused(tmp_path):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", dtype=np.float64, shape=(10, 10, 10**8))
    found = decoded(tmp_path, channels=3)
    assert isinstance(found, BadImage)
    assert "100000000 channels of 10 x 10 pixels take 74.5 GiB, over the 1.86 GiB" in found.reason


@pytest.mark.parametrize(
    ("shape", "pixel_type", "sentence"),
    [
        (
            (600, 1900, 1900),
            "uint8",
            "600 channels of 1900 x 1900 pixels take 2.02 GiB, over the 1.86 GiB",
        ),
        ((5, 12_000, 14_000), "float32", "5 channels of 14000 x 12000 pixels take 3.13 GiB"),
        ((5, 16_000, 14_000), "uint8", "14000 x 16000 pixels are over --data.max-megapixels"),
        ((8, 12_000, 14_000), "another", "it has 8 channels and 3 are wanted"),
    ],
)
def test_18_bands_count_as_pixels(tmp_path, shape, pixel_type, sentence):
    """Refused before they are read: a sparse file holds them."""
    file = str(tmp_path / "a.tif")
    options = {"photometric": "minisblack", "planarconfig": "separate"}
    tifffile.memmap(file, shape=shape, dtype=np.uint8, **options)

    def refused():
        other = pixel_type == "another"
        kind = "uint8" if other else pixel_type
        found = decoded(tmp_path, channels=3 if other else shape[0], pixel_type=kind)
        assert isinstance(found, BadImage)
        assert sentence in found.reason
        raise DataError(found.reason)

    assert with_little_room(refused, DataError) == PASSED


def test_18_of_webp_a_sixth_less_is_allowed(tmp_path):
    """Its decoder holds two frames of a film, and another copy is made."""
    Image.new("RGB", (100, 100)).save(tmp_path / "a.webp")
    found = decoded(tmp_path, channels=3, max_pixels=100 * 100)
    assert isinstance(found, BadImage)
    assert "3 channels of 100 x 100 pixels take 117 KiB, over the 97.7 KiB" in found.reason


SIDE, PART = 4472, 10
"""An image of 20 megapixels, a tenth of what is allowed, may take a tenth of 2 GiB on the way."""
LIBRARIES = 2**25
"""Bytes that decoders take of any image."""


def write_rgba(file: Path, mode: str, color: Any, **options: Any) -> None:
    Image.new(mode, (SIDE, SIDE), color).save(file, **options)


def write_webp(file: Path) -> None:
    side = int(SIDE * (10 / 12) ** 0.5)  # of WebP a sixth less is allowed
    Image.new("RGB", (side, side), (1, 2, 3)).save(file, lossless=True)


def write_deep_png(file: Path) -> None:
    pixels = np.full((SIDE, SIDE, 4), 40_000, dtype=np.uint16)
    file.write_bytes(imagecodecs.png_encode(pixels, level=1))


def write_tiff(file: Path, channels: int, dtype: str) -> None:
    value_bytes = max(4, np.dtype(dtype).itemsize)
    pixels = np.zeros((SIDE, SIDE * BYTES_PER_PIXEL // channels // value_bytes, channels), dtype)
    tifffile.imwrite(file, pixels.squeeze(), photometric="minisblack", compression="zlib")


def write_colours(file: Path) -> None:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    write_dicom(file, pixels, photometric="YBR_FULL_422", jpeg=imagecodecs.jpeg8_encode(pixels))


HEAVY: dict[str, tuple[str, Callable[[Path], None], dict[str, Any]]] = {
    "transparent": ("a.png", partial(write_rgba, mode="RGBA", color=(1, 2, 3, 128)), {"channels": 3}),
    "palette": ("a.png", partial(write_rgba, mode="P", color=0, transparency=0), {"channels": 3}),
    "inks": ("a.jpg", partial(write_rgba, mode="CMYK", color=0), {"channels": 3}),
    "film": ("a.webp", write_webp, {"channels": 3}),
    "progressive": (
        "a.jpg",
        partial(write_rgba, mode="CMYK", color=0, progressive=True),
        {"channels": 3},
    ),
    "colours": ("a.dcm", write_colours, {"channels": 3}),
    "deep": ("a.png", write_deep_png, {"channels": 3}),
    "bands with no-data": (
        "a.tif",
        partial(write_tiff, channels=5, dtype="uint16"),
        {"channels": 5, "pixel_type": "float32", "nodata": 7},
    ),
    "float64 with no-data": (
        "a.tif",
        partial(write_tiff, channels=1, dtype="float64"),
        {"channels": 1, "pixel_type": "float32", "nodata": 7},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEAVY)
def test_18_decoding_takes_little_more_than_the_pixels(tmp_path, monkeypatch, kind):
    name, write, wanted = HEAVY[kind]
    write(tmp_path / name)
    monkeypatch.setattr(pictures, "STRIP_VALUES", pictures.STRIP_VALUES // PART)

    def measured():
        before = resident()
        found = decoded(tmp_path, **{"max_pixels": 4 * SIDE * SIDE, **wanted})
        assert isinstance(found, torch.Tensor), found
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        beyond = peak - before - found.nbytes
        assert beyond < 2 * 2**30 / PART + LIBRARIES, f"{beyond / 2**20:.0f} MiB"

    assert in_child(measured) == PASSED


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
    description = unsealed(json.loads((tmp_path / "model.json").read_text()))
    for name, value in changes.items():
        parts = [part for part, names in PARTS.items() if name in names]
        for part in parts or ["encoder"]:
            description["model"][part][PARTS.get(part, {}).get(name, name)] = value
    (tmp_path / "model.json").write_text(json.dumps(description))
    assert with_little_room(lambda: unmask.load(tmp_path), CheckpointError, NOT_ASKED) == PASSED


@pytest.mark.parametrize(
    ("spec", "changes"),
    [(DetectorSpec(encoder=ENCODER, **SMALL), {"head_width": 10**9}), (SEGMENTER, {"width": 10**7})],
    ids=["detector", "segmenter"],
)
def test_30_descriptions_of_heads_that_the_weights_are_not(spec, changes):
    described = Description(model=replace(spec, **changes), image=image_spec(spec.encoder.image_size))
    weights = Weights(spec.build().state_dict(), described)
    assert with_little_room(lambda: build(weights), CheckpointError, NOT_ASKED) == PASSED


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


def test_26_too_little_memory_is_no_fault_of_an_image():
    """But one that is refused memory though there is room for any image asks for too much."""
    asked = {"numpy": partial(np.empty, 2**60, np.uint8), "torch": partial(torch.empty, 2**60)}
    for allocate, error in zip(asked.values(), (MemoryError, RuntimeError), strict=True):

        def opened(name, reading, allocate=allocate):
            raise AssertionError(allocate())

        images = Images("test", PathList(["a.png"]), opener=opened)
        assert isinstance(images.decode(0, PixelFormat(channels=3)), BadImage)
        assert with_little_room(partial(images.decode, 0, PixelFormat(channels=3)), error) == PASSED


def test_26_torch_says_so_on_this_machine():
    """The sentence that `is_out_of_memory` looks for."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)
