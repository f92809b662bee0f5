"""Fault 10: with several processes a signal to any of them does not wait for an evaluation either."""

import subprocess
import sys

import pytest

from distributed.test_two_processes import ENVIRONMENT, FLAGS
from faults.test_kills import assert_same

SCRIPT = """
import os, signal, sys, threading, time

from torch.nn.modules.module import register_module_forward_hook

import unmask.engine.report as report
from unmask.cli.main import run

out, *words = sys.argv[1:]
rank, evaluate = os.environ["RANK"], report._evaluate

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

def hang(*_):
    terminate()
    time.sleep(60)

def in_its_own_part(*given):
    hook = register_module_forward_hook(hang)
    try:
        return evaluate(*given)
    finally:
        hook.remove()

def while_it_waits(*given):
    threading.Timer(1, terminate).start()
    return evaluate(*given)

def slowly(*given):
    time.sleep(3)
    return evaluate(*given)

def code_of(name, of_signalled=evaluate, of_others=evaluate, signalled=""):
    disturbed = of_signalled if rank in signalled else of_others
    report._evaluate = lambda *given: (disturbed if given[2] == 3 else evaluate)(*given)
    return run([*words, "--out", f"{out}/{name}"])

codes = [code_of("whole")]
for ranks in ("0", "1", "01"):
    name = f"own-part-{ranks}"
    codes += [code_of(name, in_its_own_part, evaluate, ranks), code_of(name)]
codes += [code_of("waiting-1", while_it_waits, slowly, "1"), code_of("waiting-1")]
assert codes == [0] + [143, 0] * 4, codes
"""


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_10_two_processes_leave_an_evaluation_together(photos, tmp_path):
    """A signal to the main one, another or both, in their own part, or while one waits for the other."""
    (tmp_path / "script.py").write_text(SCRIPT)
    words = ["pretrain", str(photos), *FLAGS, "--run.evaluate-every", "3"]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(tmp_path / "script.py"), str(tmp_path), *words,
    ]  # fmt: skip
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.count("saved after step 3 and stopped, as SIGTERM asked") == 4
    for name in ("own-part-0", "own-part-1", "own-part-01", "waiting-1"):
        assert_same(tmp_path / name, tmp_path / "whole")
