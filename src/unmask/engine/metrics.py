"""What a run measured, one record per logged step, in metrics.jsonl and metrics.csv."""

import csv
import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from unmask.engine.run_directory import RunDirectory
from unmask.errors import CheckpointError
from unmask.storage import from_json, read_regular
from unmask.units import counted

JSONL, CSV = "metrics.jsonl", "metrics.csv"
DAMAGED = "metrics.damaged.jsonl"
"""Where lines go that are no records."""


def _silent(_: str) -> None:
    """For callers without a console."""


class MetricsLog:
    """Appends records; on resume, forgets those after the checkpoint."""

    def __init__(self, run: RunDirectory, last_step: int | None, say: Callable[[str], None] = _silent):
        """`last_step`: the newest record to keep; None keeps nothing.

        Damaged lines are moved to another file, and it says so. The table is written again: a kill may
        have come between a checkpoint and its table.
        """
        self.run = run
        found, damaged = parse_metrics(_content(run))
        self.records = [r for r in found if last_step is not None and r["step"] <= last_step]
        if damaged:
            run.append(DAMAGED, b"".join(line + b"\n" for line in damaged))
            lines = counted(len(damaged), "line")
            say(f"{lines} of {JSONL} cannot be read: moved to {run.path / DAMAGED}")
        run.write(JSONL, "".join(map(_line, self.records)))
        if self.records:
            self.write_csv()

    def add(self, record: dict[str, Any]) -> None:
        """Non-finite numbers are written as null."""
        record = finite(record)
        self.records.append(record)
        self.run.append(JSONL, _line(record))

    def sync(self) -> None:
        """Makes the records durable: before the checkpoint that counts on them."""
        self.run.sync(JSONL)

    def write_csv(self) -> None:
        """One header with every name that any record has."""
        names = dict.fromkeys(name for record in self.records for name in record)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        self.run.write(CSV, text.getvalue())


def read_metrics(run: RunDirectory) -> list[dict[str, Any]]:
    """All whole records, by rising step; damaged lines are left out."""
    return parse_metrics(_content(run))[0]


def parse_metrics(content: bytes) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The records among the lines of a file, by rising step, and the lines that are none.

    A last line without its end, which a kill cuts short, is neither.
    """
    *lines, _ = content.split(b"\n")
    parsed = [(line, record) for line in lines if (record := _record(line)) is not None]
    damaged = [line for line in lines if _record(line) is None]
    records: list[dict[str, Any]] = []
    for i, (line, record) in enumerate(parsed):
        last = records[-1]["step"] if records else -1
        following = parsed[i + 1][1]["step"] if i + 1 < len(parsed) else math.inf
        if last < record["step"] and not last < following < record["step"]:
            records.append(record)
        else:  # a step out of its order has a damaged number, or is there twice
            damaged.append(line)
    return records, damaged


def finite(record: dict[str, Any]) -> dict[str, Any]:
    """The same with null in place of non-finite numbers, which every JSON reader takes."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


def is_record(value: Any) -> bool:
    """Whether it is a JSON object with a step, whose values are numbers or null."""
    if not isinstance(value, dict) or type(value.get("step")) is not int or value["step"] < 0:
        return False
    return all(map(_is_value, value.values()))


def _content(run: RunDirectory) -> bytes:
    try:
        return read_regular(run.path / JSONL, most=2**31)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise CheckpointError(f"{run.path / JSONL} cannot be read ({error}): remove it") from error


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None if that is no record."""
    try:
        record = from_json(line)
    except ValueError:
        return None
    return record if is_record(record) else None


def _is_value(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_number(value: Any) -> bool:
    """Whether a float can hold it, as JSON has it: no truth value, NaN or integer of 400 digits."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


@dataclass
class Meter:
    """Weighted sums since the last record; saved, so that a resumed run logs the same."""

    weight: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    """Over the whole run: steps whose gradient was not finite."""

    def add(self, totals: dict[str, float], weight: float) -> None:
        """Adds one step: sums already multiplied by their weight."""
        self.weight += weight
        for name, total in totals.items():
            self.sums[name] = self.sums.get(name, 0.0) + total

    def averages(self) -> dict[str, float]:
        """The averages since the last call, which empties the meter."""
        averages = {name: total / self.weight for name, total in self.sums.items() if self.weight}
        self.weight, self.sums = 0.0, {}
        return averages

    def state(self) -> dict[str, Any]:
        """For a checkpoint; floats survive JSON exactly."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Any) -> "Meter":
        """The inverse of `state`. Raises ValueError if it is something else."""
        if not isinstance(state, dict) or set(state) != {"weight", "sums", "skipped_steps"}:
            raise ValueError("the sums of the log are missing")
        sums, skipped = state["sums"], state["skipped_steps"]
        if not isinstance(sums, dict) or not all(map(_is_number, (*sums.values(), state["weight"]))):
            raise ValueError("the sums of the log are no numbers")
        if type(skipped) is not int or skipped < 0:
            raise ValueError(f"the number of skipped steps is {skipped!r}")
        return cls(float(state["weight"]), sums, skipped)


def detached_total(loss: Tensor, weight: float | Tensor) -> Tensor:
    """A micro-batch's share of the step's sum; in double precision if the device has it."""
    precision = torch.float32 if loss.device.type == "mps" else torch.float64
    return loss.detach().to(precision) * weight


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
