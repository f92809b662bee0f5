"""Faults 27 and 28: one process of several fails, or is given something else than the others."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import photograph
from distributed.test_two_processes import ENVIRONMENT, FLAGS

SECONDS = 30
"""From a failure to the end of all processes."""

SCRIPT = """
import os, signal, sys, time
from pathlib import Path

import unmask.engine.loop as loop
from unmask.cli.main import run
from unmask.errors import DataError

rank, how, *words = sys.argv[1:]
take = loop.take_step

def failing(session, state, *rest):
    if state.step == 3:
        (session.run.path / "failed-at").write_text(str(time.time()))
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError("of no kind we know") if how == "raise" else DataError("its images are gone")
    return take(session, state, *rest)

if os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    if how.startswith("--"):
        words += how.split("=")
    elif how.startswith("/"):
        words[1] = how
    else:
        loop.take_step = failing
sys.exit(run(words))
"""


def free_port() -> int:
    """One that nobody listens on, also not another run of these tests beside this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(tmp_path: Path, photos: Path, rank: int, how: str, *torchrun: str):
    """A run of two processes, of which one fails after 3 of 6 steps or is told something else."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
        "--monitor-interval=2",  # torchrun ends the others when it looks: they have time to speak
        *(torchrun or ["--standalone"]), str(tmp_path / "script.py"), str(rank), how,
        "pretrain", str(photos), "--out", str(tmp_path / "run"), *FLAGS,
    ]  # fmt: skip
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("kill", "unmask: the connection to another process broke, which was killed"),
        ("raise", "KeyError: 'of no kind we know'"),
        ("data", "unmask: its images are gone"),
    ],
)
def test_27_all_processes_end_with_one(photos, tmp_path, how, sentence, rank):
    result = start(tmp_path, photos, rank, how)
    took = time.time() - float((tmp_path / "run" / "failed-at").read_text())
    assert result.returncode != 0
    assert sentence in result.stderr, result.stderr[-3000:]
    assert ("process 1 failed first" in result.stderr) == (rank == 1 and how != "kill")
    assert took < SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_27_max_restarts(photos, tmp_path, rank):
    """Without --standalone torchrun keeps one store, with the addresses of processes that are gone."""
    result = start(tmp_path, photos, rank, "kill", "--max-restarts=1", f"--master-port={free_port()}")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "resuming exactly after step 2 of 6" in result.stdout
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["configuration", "list of images", "images that are not there"])
def test_28_processes_that_disagree(photos, tmp_path, what):
    """Refused before the first step, and no run directory is left."""
    others = tmp_path / "others"
    if what == "list of images":
        others.mkdir()
        for i in range(24):
            photograph(i, 16, 24).save(others / f"other-{i}.png")
    result = start(
        tmp_path, photos, 1, "--optim.base-lr=0.01" if what == "configuration" else str(others)
    )
    assert result.returncode != 0
    if others.exists() or what == "configuration":
        sentence = f"unmask: processes [1] have another {what} than process 0: start all of them with"
    else:
        sentence = f"unmask: there is no folder or file {others}"
    assert sentence in result.stderr, result.stderr[-3000:]
    assert "step 0/6" not in result.stdout
    assert not (tmp_path / "run").exists()
