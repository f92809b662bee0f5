"""What a run shows of its progress."""

import pytest

from unmask.engine import console as module
from unmask.engine.console import RunConsole


def test_a_slow_start_does_not_count_in_the_time_that_is_left(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    console = RunConsole(speaks=True)
    console.log_to(tmp_path / "log")
    with console.progress(20, 120):
        now += 500  # the evaluation of step 0, the start of loader processes, the first step
        console.step_done(21)
        console.record({"step": 21, "loss": 1.0})
        for step in range(22, 62):
            now += 2
            console.step_done(step)
        console.record({"step": 61, "loss": 1.0})
    first, last = (tmp_path / "log").read_text().splitlines()
    assert "left" not in first
    assert "left 2.0 minutes" in last, "59 steps of 2 seconds"


@pytest.mark.parametrize("speaks", [True, False])
def test_only_the_main_process_speaks(tmp_path, capsys, speaks):
    console = RunConsole(speaks=speaks)
    console.log_to(tmp_path / "log")
    console.say("a message")
    assert ("a message" in capsys.readouterr().out) == speaks
    assert (tmp_path / "log").exists() == speaks
