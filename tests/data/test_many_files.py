"""22: a hundred thousand files; start-up and memory stay bounded."""

import gc
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import photograph
from data.test_loader import PLAN, TRAINING, batches

FILES, FOLDERS, CONTENTS = 100_000, 100, 4
SECONDS = 60
MEMORY_MIB = 150
"""More than the same command needs for a hundred files."""
TINY = (
    "--data.size 16 --data.workers 2 --model.patch 4 --model.width 16 --model.depth 1 --model.heads 2 "
    "--model.decoder-width 8 --model.decoder-depth 1 --model.decoder-heads 2 --optim.batch 8 "
    "--optim.steps 4 --optim.warmup-steps 0"
).split()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Many names for a few files: a file system allows a file some ten thousand of them."""
    place = tmp_path_factory.mktemp("many")
    for i in range(CONTENTS):
        photograph(i, 24, 32).save(place / f"{i}.jpg", quality=90)
    for name, count in (("few", 100), ("many", FILES)):
        for folder in range(FOLDERS):
            (place / name / f"{folder:02d}").mkdir(parents=True)
        for i in range(count):
            os.link(place / f"{i % CONTENTS}.jpg", place / name / f"{i % FOLDERS:02d}" / f"{i:06d}.jpg")
    return place


def run(folders, *words: str) -> tuple[float, float]:
    """Seconds, and MiB at the peak of the process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "UNMASK_CACHE": str(folders / "cache")}
    script = (
        "import re, sys; from unmask.cli.main import run; code = run(sys.argv[1:]); "
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=environment, cwd=folders, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return time.monotonic() - began, int(done.stdout.splitlines()[-1]) / 1024


FLAGS = {"check": [], "pretrain": TINY}


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="how much memory is used is read from /proc"),
]


@pytest.mark.parametrize("command", FLAGS)
def test_22_many_files(folders, command):
    runs = {}
    for name in ("few", "many"):
        out = f"{command}-{name}"
        runs[name] = run(folders, command, str(folders / name), "--out", out, *FLAGS[command])
    seconds, memory = runs["many"]
    print(f"{command}: {seconds:.1f} s, {memory:.0f} MiB; of a hundred files {runs['few']}")
    assert seconds < SECONDS
    assert memory < runs["few"][1] + MEMORY_MIB


def test_22_workers_touch_no_names(folders, tmp_path):
    """What a worker has for itself does not grow with the images that it has read."""
    done = subprocess.run(  # they would copy pages of what other tests left in this process
        [sys.executable, "-c", "from data.test_many_files import growth; growth()", folders, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "UNMASK_CACHE": str(tmp_path)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    grown = json.loads(done.stdout)
    assert len(grown) == 2
    assert max(grown) < 3, f"MiB {grown}"


def growth() -> None:
    """Prints the MiB by which each worker grows while it reads thousands of images."""
    folders, place = map(Path, sys.argv[1:])
    samples = 5000  # of which each lay on a page of its own, were they Python's strings
    training = replace(TRAINING, batch=50, process_batch=50, micro_batch=50, steps=samples // 50)
    gc.collect()
    gc.freeze()  # else workers copy the pages of all objects when they collect garbage
    steps = batches(folders / "many", place, replace(PLAN, workers=2), training).from_step(0)
    for _ in range(10):
        next(steps)
    workers = [process.pid for process in multiprocessing.active_children()]
    before = [own_memory(pid) for pid in workers]
    for _ in range(training.steps - 16):  # they are some steps ahead, and leave after the last
        next(steps)
    grown = [own_memory(pid) - mib for pid, mib in zip(workers, before, strict=True)]
    steps.close()
    print(json.dumps(grown))


def own_memory(pid: int) -> float:
    """MiB that no other process shares."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE))) / 1024
