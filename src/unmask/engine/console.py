"""What a person sees of a run: a progress bar in a terminal, plain lines elsewhere."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from unmask.engine.task import Metric
from unmask.errors import CheckpointError, printable
from unmask.storage import FULL, open_regular
from unmask.units import GIB, data_size, duration

SECONDS_BETWEEN_LINES = 10.0


class RunConsole:
    """Speaks to the terminal and to train.log; silent on all processes but the main one."""

    def __init__(self, *, speaks: bool, metrics: Sequence[Metric] = ()):
        """`metrics`: what else to show of a record."""
        self.metrics = metrics
        self.console = Console(quiet=not speaks, highlight=False, soft_wrap=True)
        self._log: Path | None = None
        self._unlogged: list[str] = []
        self._speaks = speaks
        self._progress: Progress | None = None
        self._bar: Any = None
        self._values = Text()
        self._last_line = -SECONDS_BETWEEN_LINES
        self._started: tuple[int, float] | None = None

    def log_to(self, path: Path) -> None:
        """Writes to `path` from now on, with all messages so far."""
        if self._speaks:
            self._log = path
            for text in self._unlogged:
                self._write(text)
            self._unlogged.clear()

    def say(self, text: str) -> None:
        """One line; escapes stand for what of a name is not printable."""
        if not self._speaks:
            return
        text = printable(text)
        if self._log is None:
            self._unlogged.append(text)
        else:
            self._write(text)
        self.console.print(text, markup=False)

    @contextmanager
    def progress(self, start: int, steps: int) -> Iterator[None]:
        """Shows a bar, if the output is a terminal."""
        self._steps = steps
        if not self.console.is_terminal or not self._speaks:
            yield
            return
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns)
        self._bar = self._progress.add_task("", total=steps, completed=start)
        try:
            with Live(Group(self._progress, self._values), console=self.console, refresh_per_second=4):
                yield
        finally:
            self._progress = None

    def step_done(self, step: int) -> None:
        """Moves the bar. The time that is left counts from the first step's end: a start is no step."""
        self._started = self._started or (step, time.perf_counter())
        if self._progress:
            self._progress.update(self._bar, completed=step)

    def record(self, record: dict[str, Any]) -> None:
        """Shows a metrics record."""
        values = describe(record, self.metrics)
        if self._progress:
            self._values.plain = values
        now = time.perf_counter()
        due = now - self._last_line >= SECONDS_BETWEEN_LINES or record["step"] == self._steps
        if self._log is not None and due:
            self._last_line = now
            line = f"step {record['step']}/{self._steps}  {values}  {self._time_left(record['step'])}"
            self._write(line)
            if not self._progress:
                self.console.print(line, markup=False)

    def _time_left(self, step: int) -> str:
        start, began = self._started or (step, 0.0)
        if step <= start:
            return ""
        seconds = (time.perf_counter() - began) / (step - start) * (self._steps - step)
        ends = time.strftime("%H:%M", time.localtime(time.time() + seconds))
        return f"left {duration(seconds)}, ends {ends}"

    def _write(self, text: str) -> None:
        assert self._log is not None
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n".encode("utf-8", "replace")
        try:
            with (
                open_regular(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as descriptor,
                open(descriptor, "wb", closefd=False) as file,
            ):
                file.write(line)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise CheckpointError(
                f"{self._log} cannot be written ({error.strerror}): remove it, or make it an ordinary "
                f"file of yours, and run the same command again"
            ) from error


def describe(record: dict[str, Any], metrics: Sequence[Metric] = ()) -> str:
    """A metrics record in one line: the loss, what the task measures, and how fast it goes."""
    forms = {
        "loss": "loss {:.4f}",
        **{m.key: f"{m.label} {m.format}" for m in metrics if m.on_console},
        "lr": "lr {:.2e}",
        "grad_norm": "gradient norm {:.2f}",
        "images_per_second": "{:.0f} images/s",
        "data_wait": "waiting for data {:.0%}",
    }
    present = ((form, record.get(name)) for name, form in forms.items())
    words = [form.format(value) for form, value in present if value is not None]
    if (memory := record.get("memory_gib")) is not None:
        words.append(f"memory {data_size(memory * GIB)}")
    return "  ".join(words)
