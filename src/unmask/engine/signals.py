"""Ctrl-C, SIGTERM, and SIGUSR1 of a cluster's scheduler: finish the step, save, leave."""

import os
import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """Remembers the first signal; a second one stops at once, unless it is SIGUSR1: a mere warning."""

    def __init__(self) -> None:
        self.signal: int | None = None

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

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number != signal.SIGUSR1:
            os._exit(128 + number)
        self.signal = self.signal or number
