"""Ctrl-C, SIGTERM, and SIGUSR1 of a cluster's scheduler: finish the step, save, leave."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")

REPEATED = 2.0
"""Seconds: `timeout` signals the process and then its group, and torchrun passes on a Ctrl-C that the
terminal sent to all; a signal that comes later is a person's, who presses again."""


class SignalReceived(BaseException):
    """A signal in the midst of what may be left undone. No `except Exception` catches it."""


class StopRequest:
    """Remembers the first signal; a later one stops at once, unless it is SIGUSR1: a mere warning."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._at_once = False

    def __enter__(self) -> "StopRequest":
        # Python takes handlers in the main thread only; elsewhere the caller stops the run.
        in_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) if in_main else ()
        self._earlier = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def at_once(self, act: Callable[[], T]) -> T:
        """What `act` returns, which a signal may leave undone. Raises SignalReceived, also if the signal
        came before."""
        if self.signal is not None:
            raise SignalReceived
        self._at_once = True
        try:
            return act()
        finally:
            self._at_once = False

    def later(self, act: Callable[[], T]) -> T:
        """What `act` returns, which no signal may leave in the midst of `at_once`.

        Raises SignalReceived when it is done; not if it raises, since that says all that is to be said.
        """
        self._at_once = False
        done = act()
        self._at_once = True
        if self.signal is not None:
            raise SignalReceived
        return done

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
            if self._at_once:
                raise SignalReceived
        elif number != signal.SIGUSR1 and time.monotonic() - self._since > REPEATED:
            os._exit(128 + number)
