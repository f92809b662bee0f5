"""Faults 17, 20, 21 and 27: loader processes that are stuck, killed or short of shared memory."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.utils.data import Dataset

import unmask
from data.test_loader import PLAN as LOADING
from faults_support import in_child, started
from tests_support import image_spec
from unmask.data import workers
from unmask.data.bad_images import BadImageLog
from unmask.data.centre_crops import CentreCrops
from unmask.data.decode.files import open_file
from unmask.data.decode.pictures import BadImage
from unmask.data.images import Images
from unmask.data.loader import Batches
from unmask.data.paths import PathList
from unmask.data.reading import reading
from unmask.data.shared import SharedImages
from unmask.data.sources.find import find_images
from unmask.engine.signals import StopRequest
from unmask.errors import DataError, Interrupted
from unmask.tasks.detections import find_all
from unmask.tasks.pixels import whole_images

pytestmark = pytest.mark.usefixtures("blank_charts")

EXIT_SECONDS = 10
"""Within these no process may be left behind."""


class Numbers(Dataset):
    """Samples 0 to 99; reading number 5 is like opening a file of a storage that does not answer."""

    def __init__(self, pipe: Path | None = None):
        self.pipe = pipe

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> torch.Tensor:
        with reading(f"file {index}"):
            if index == 5 and self.pipe:
                self.pipe.read_bytes()
            return torch.tensor([index])


def numbers(pipe: Path | None = None, **options):
    options = {"workers": 2, "timeout": 60.0, "batch_size": 2, "batch_bytes": 16, **options}
    return workers.load(Numbers(pipe), collate=torch.cat, **options)


@pytest.fixture
def pipe(tmp_path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], seconds: float = EXIT_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(is_there, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(is_there, pids))


def open_of_a_storage(name: str, how):
    """As `open_file`, but for a pipe, which stands for a storage that does not answer."""
    if name.endswith("stuck.png"):
        Path(name).read_bytes()
    return open_file(name, how)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("count", [0, 1])
def test_21_a_stuck_file_counts_as_a_bad_image(photos, tmp_path, count):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    os.mkfifo(folder / "stuck.png")
    images = find_images((str(folder),))
    paths = PathList([*images.paths, str(folder / "stuck.png")])
    images = replace(images, paths=paths, opener=open_of_a_storage)
    found = list(CentreCrops(images, image_spec((8, 8)), batch=25, workers=count, timeout=0.5))
    (bad,) = (bad for batch in found for bad in batch.bad)
    assert isinstance(bad, BadImage)
    assert bad.path.endswith("stuck.png")
    assert "TimeoutError: it could not be read within 0.5 s" in bad.reason
    assert sum(len(batch.indices) for batch in found) == 24


@pytest.mark.timeout(60)
def test_21_a_stopped_process_is_an_error_and_ends(children):
    batches = numbers(timeout=0.5)
    next(batches)
    pids = children()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DataError, match=r"done nothing for [\d.]+ \w+ .*run the same command again"):
        list(batches)
    assert gone(pids)


@pytest.mark.timeout(60)
def test_21_an_early_end_does_not_wait_for_a_stuck_file(children, pipe, monkeypatch):
    """Its process leaves by itself, and need not be killed."""
    monkeypatch.setattr(workers, "KILL_SECONDS", 60.0)
    batches = numbers(pipe)
    next(batches)
    pids, began = children(), time.monotonic()
    batches.close()
    assert gone(pids)
    assert time.monotonic() - began < EXIT_SECONDS


@pytest.mark.timeout(60)
def test_21_an_early_end_kills_processes_that_are_stopped(children, monkeypatch):
    monkeypatch.setattr(workers, "KILL_SECONDS", 0.5)
    batches = numbers()
    next(batches)
    pids = children()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    batches.close()
    assert gone(pids)


@pytest.mark.timeout(60)
def test_10_a_signal_ends_the_wait_for_a_stuck_file(pipe, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS_AFTER_SIGNAL", 0.5)
    with pytest.raises(DataError, match=r"stopping on a signal.*'file 5'"):
        list(numbers(pipe, stopping=lambda: True))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("within", [StopRequest, nullcontext])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_10_processes_outlive_a_signal_and_still_end(children, number, within):
    """In the loop, and in commands that a signal ends at once."""
    with within(), closing(numbers()) as batches:
        first = next(batches)
        pids = children()
        for pid in pids:
            os.kill(pid, number)
        assert torch.cat([first, *batches]).tolist() == list(range(100))
    assert gone(pids)


@pytest.mark.timeout(60)
def test_10_a_signal_in_a_process_that_is_not_prepared_yet(monkeypatch):
    prepare = workers._prepare

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        prepare(*arguments)

    monkeypatch.setattr(workers, "_prepare", signalled)
    assert torch.cat(list(numbers())).tolist() == list(range(100))


@pytest.mark.timeout(60)
def test_27_processes_end_with_a_killed_main_process(children, tmp_path, pipe):
    def main():
        batches = numbers(pipe)
        next(batches)
        (tmp_path / "pids").write_text(json.dumps(children()))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(main) == -signal.SIGKILL
    pids = json.loads((tmp_path / "pids").read_text())
    assert len(pids) == 2
    assert gone(pids)


@pytest.mark.timeout(60)
def test_27_processes_that_begin_after_the_main_process_was_killed(tmp_path, pipe, monkeypatch):
    prepare = workers._prepare

    def late(board, *arguments):
        (tmp_path / f"{os.getpid()}.pid").touch()
        while os.getppid() == board.main:
            time.sleep(0.01)
        prepare(board, *arguments)

    monkeypatch.setattr(workers, "_prepare", late)
    child = started(lambda: next(numbers(pipe)))
    deadline = time.monotonic() + EXIT_SECONDS
    while len(found := list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pids = [int(file.stem) for file in found]
    assert len(pids) == 2
    assert gone(pids)


KEPT = """
    import sys
    sys.path[:0] = {path!r}
    from faults.test_loader_processes import *
    from pathlib import Path
    batches = numbers(Path({pipe!r}))
    try:
        next(batches)
        raise DataError("as when all images are gone")
    finally:
        print("raised", flush=True)  # with the loader in the traceback
"""


@pytest.mark.slow
def test_21_the_command_ends_soon_after_an_error(tmp_path, pipe):
    script = textwrap.dedent(KEPT.format(path=sys.path, pipe=str(pipe)))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout.readline() == "raised\n"
        began = time.monotonic()
        assert main.wait(timeout=60) == 1
        assert time.monotonic() - began < EXIT_SECONDS


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (10**9, (2, False)),
        (10**6, (2, True)),
        (64 * 2**10, (2, True)),
        (4096, (0, False)),
        (0, (0, False)),
    ],
)
def test_21_shared_memory_is_measured(monkeypatch, free, expected):
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: usage)
    found = workers.sharing(2, 10**7)
    assert found[:2] == expected
    assert bool(found.note) is (free < 10**9)
    assert workers.sharing(0, 10**7) == (0, False, "")


def test_21_no_shared_memory_at_all(monkeypatch):
    def read_only(_):
        raise PermissionError

    monkeypatch.setattr(workers.shutil, "disk_usage", read_only)
    printed: list[str] = []
    assert torch.cat(list(numbers(say=printed.append))).tolist() == list(range(100))
    assert "going on without loader processes" in printed[0]


def test_21_decoded_images_are_kept_without_shared_memory(monkeypatch):
    def read_only():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(multiprocessing.get_context("fork"), "Lock", read_only)
    kept = SharedImages(2, 10**6, torch.uint8)
    kept.put(1, torch.ones(3, 4, 5, dtype=torch.uint8), (8, 10))
    pixels, size = kept.get(1)
    assert (pixels.sum(), size) == (60, (8, 10))


def test_21_whole_images_are_not_counted_as_crops(photos):
    """In 64 MB of shared memory, Docker's default, they come through pipes."""
    images, image = find_images((str(photos),)), image_spec((8, 8))
    whole = CentreCrops(
        images, image, batch=1, workers=2, cut=lambda picture: picture.pixels(image.pixels())
    )
    assert 2 * workers.BATCHES_AHEAD * whole.item_bytes > 64 * 2**20
    assert CentreCrops(images, image).item_bytes == 3 * 8 * 8


@pytest.mark.parametrize("command", ["segment", "detect"])
def test_21_the_time_for_an_image_holds_in_validation_too(command):
    images, loading = Images("none", PathList(["a.png"])), replace(LOADING, timeout=3.0)
    crops: list[CentreCrops] = []
    if command == "segment":
        crops.append(whole_images(images, image_spec((8, 8)), None, loading))
    else:
        with mock.patch(
            "unmask.tasks.detections.infer", lambda fn, found, *rest, **more: crops.append(found)
        ):
            find_all(None, images, image_spec((8, 8)), loading, torch.device("cpu"))
    assert crops[0].timeout == 3.0


def test_21_batches_through_pipes_are_the_same(photos, tmp_path, monkeypatch):
    from data.test_loader import IMAGE, PLAN, TRAINING, Crops

    images = find_images((str(photos),))
    log = BadImageLog(tmp_path / "bad_images.jsonl", images=24, max_share=0)
    printed: list[str] = []

    def steps(count: int) -> list:
        plan = replace(PLAN, workers=count)
        how = {"loading": plan, "training": TRAINING, "rank": 0, "bad_images": log}
        batches = Batches(images, Crops(), IMAGE, **how, say=printed.append)
        return [batch for step in batches.from_step(0) for batch in step]

    expected = steps(0)
    usage = shutil.disk_usage("/")._replace(free=60_000)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: usage)
    for one, other in zip(expected, steps(2), strict=True):
        assert all(a.equal(b) for a, b in zip(one.content, other.content, strict=True))
        assert one.samples.equal(other.samples)
    assert "through pipes" in printed[0]


SMALL_SHARED_MEMORY = """
    import sys
    sys.path[:0] = {path!r}
    from faults.test_loader_processes import *
    said = []
    found = torch.cat(list(numbers(say=said.append, batch_bytes=10**6)))
    print(found.tolist() == list(range(100)), said)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sentence"),
    [("size=64k", "through pipes"), ("size=4k", "without"), ("ro", "without")],
)
def test_21_in_a_mount_namespace(options, sentence):
    """64 KiB of shared memory, next to nothing, and a read-only one."""
    script = textwrap.dedent(SMALL_SHARED_MEMORY.format(path=sys.path))
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm && exec {sys.executable} -c '{script}'"
    mount = mount.replace("-c '", '-c "').removesuffix("'") + '"'
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("this user may not make a mount namespace")
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True)
    assert done.stdout.startswith("True"), done.stderr
    assert sentence in done.stdout


def ends_at(monkeypatch, step: int, number: int | None = None) -> None:
    """The data end before a step, as when a loader process is lost; perhaps after a signal."""
    original = Batches.from_step

    def from_step(self, start, stopping):
        with closing(original(self, start, stopping)) as batches:
            for current, micro_batches in enumerate(batches, start):
                if current == step:
                    if number:
                        os.kill(os.getpid(), number)
                    raise DataError("a loader process died")
                yield micro_batches

    monkeypatch.setattr(Batches, "from_step", from_step)


@pytest.mark.parametrize("number", [None, signal.SIGINT])
def test_21_the_state_is_saved_when_the_data_end(tiny, tmp_path, monkeypatch, number):
    """Three steps are done, and the last checkpoint is of step 2."""
    whole = load_file(unmask.pretrain(replace(tiny, out=str(tmp_path / "whole"))) / "model.safetensors")
    with monkeypatch.context() as patch:
        ends_at(patch, 3, number)
        with pytest.raises(Interrupted if number else DataError):
            unmask.pretrain(tiny)
    assert (Path(tiny.out) / "checkpoints" / "step-00000003").exists()
    again = load_file(unmask.pretrain(tiny) / "model.safetensors")
    assert all(again[name].equal(value) for name, value in whole.items())


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_10_a_signal_that_comes_twice_at_once_saves(tiny, monkeypatch, number):
    """`timeout` signals the process and its group; a scheduler may warn more than once."""
    original = Batches.from_step

    def from_step(self, start, stopping):
        for current, micro_batches in enumerate(original(self, start, stopping), start):
            if current == 3:
                os.kill(os.getpid(), number)
                os.kill(os.getpid(), signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM)
            yield micro_batches

    monkeypatch.setattr(Batches, "from_step", from_step)
    with pytest.raises(Interrupted, match=f"{number.name} asked") as stop:
        unmask.pretrain(tiny)
    assert stop.value.exit_code == (130 if number == signal.SIGINT else 143)
    assert (Path(tiny.out) / "checkpoints" / "step-00000004").exists()


def test_10_a_signal_a_while_after_the_first_stops_at_once():
    """As a person does who presses Ctrl-C again."""
    code = (
        "import os, signal, time\n"
        "from unmask.engine import signals\n"
        "signals.REPEATED = 0.2\n"
        "with signals.StopRequest():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.5)\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 130


def test_21_a_process_begins_when_the_threads_of_gloo_are_idle(monkeypatch):
    """Of Python before 3.12: forked in the midst of their last work, it may hang for ever."""
    monkeypatch.setattr(sys, "version_info", (3, 11))
    sleep, fork, done = time.sleep, os.fork, list[object]()
    monkeypatch.setattr(time, "sleep", lambda seconds: done.append(seconds) or sleep(seconds))
    monkeypatch.setattr(os, "fork", lambda: done.append(fork) or fork())
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with closing(numbers(workers=1)) as batches:
            next(batches)
    finally:
        dist.destroy_process_group()
    assert done.index(workers.SETTLE_SECONDS) < done.index(fork)
