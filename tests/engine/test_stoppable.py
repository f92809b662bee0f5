"""A signal at any moment of an evaluation: each process votes as often as the others do."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unmask.distributed.processes import Processes
from unmask.engine.signals import SignalReceived, StopRequest
from unmask.engine.stoppable import StoppedTogether, stopped_together

EXCHANGES = 2
OURS = ("stoppable.py", "signals.py", "processes.py", Path(__file__).name)


class Votes:
    """Processes whose others vote as they are told to, from a number of votes on."""

    def __init__(self, monkeypatch, others_stop_at: int | None = None):
        self.cast, self.sums = list[float](), 0
        self._others_stop_at = others_stop_at
        monkeypatch.setattr(Processes, "sum", lambda _, values: self._sum(values))

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        if values.numel() > 1:
            self.sums += 1
            return values
        self.cast.append(values.item())
        return values + float(len(self.cast) - 1 == self._others_stop_at)


def evaluate(processes: Processes) -> str:
    for _ in range(EXCHANGES):
        processes.sum(torch.zeros(2))
    return "scores"


def signalled_at(event: int, act: Callable[[], object]) -> tuple[bool, BaseException | None]:
    """Whether so many lines of ours were there to interrupt, and what `act` raised."""
    seen, raised = 0, None

    def trace(frame, *_):
        nonlocal seen
        if Path(frame.f_code.co_filename).name not in OURS:
            return None
        seen += 1
        if seen == event:
            os.kill(os.getpid(), signal.SIGTERM)
        return trace

    sys.settrace(trace)
    try:
        act()
    except SignalReceived as error:
        raised = error
    finally:
        sys.settrace(None)
    return seen >= event, raised


def test_10_a_signal_at_any_line(monkeypatch):
    """The process says once that it stops, and nothing after that; or it goes on to the end."""
    processes, endings, event = Processes(1, 2, torch.device("cpu")), set[int](), 0
    while True:
        event += 1
        votes = Votes(monkeypatch)
        with StopRequest() as stop:
            there, raised = signalled_at(event, lambda: stopped_together(processes, stop, evaluate))
        if not there:
            break
        if raised is None:
            assert votes.cast == [0.0] * (EXCHANGES + 1)
        else:
            assert isinstance(raised, StoppedTogether)
            assert votes.cast == [0.0] * (len(votes.cast) - 1) + [1.0]
            assert votes.sums == len(votes.cast) - 1, "no exchange that the others do not join"
        endings.add(len(votes.cast) if raised else 0)
    assert endings == {0, *range(1, EXCHANGES + 2)}


@pytest.mark.parametrize("stop_at", range(EXCHANGES + 1))
def test_10_a_signal_while_others_stop(monkeypatch, stop_at):
    """At any line, too: those who have agreed to stop vote no more."""
    processes, event = Processes(0, 2, torch.device("cpu")), 0
    while True:
        event += 1
        votes = Votes(monkeypatch, stop_at)
        with StopRequest() as stop:
            there, raised = signalled_at(event, lambda: stopped_together(processes, stop, evaluate))
        assert isinstance(raised, StoppedTogether)
        assert 1.0 not in votes.cast[:-1]
        assert len(votes.cast) <= stop_at + 1
        if not there:
            break
