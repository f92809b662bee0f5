"""What a run measured, one record per logged step, in metrics.jsonl and metrics.csv."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from unmask.engine.run_directory import RunDirectory

JSONL, CSV = "metrics.jsonl", "metrics.csv"


class MetricsLog:
    """Appends records; on resume, forgets those after the checkpoint."""

    def __init__(self, run: RunDirectory, last_step: int | None):
        """`last_step`: the newest record to keep; None keeps nothing."""
        self.run = run
        self.records = [r for r in read_metrics(run) if last_step is not None and r["step"] <= last_step]
        run.write(JSONL, "".join(map(_line, self.records)))

    def add(self, record: dict[str, Any]) -> None:
        """Non-finite numbers are written as null, which every JSON reader takes."""
        record = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()
        }
        self.records.append(record)
        with (self.run.path / JSONL).open("a") as file:
            file.write(_line(record))

    def write_csv(self) -> None:
        """One header with every name that any record has."""
        names = dict.fromkeys(name for record in self.records for name in record)
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        self.run.write(CSV, text.getvalue())


def read_metrics(run: RunDirectory) -> list[dict[str, Any]]:
    """All whole records; a line that a kill cut short is left out."""
    path = run.path / JSONL
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


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


def detached_total(loss: Tensor, weight: float) -> Tensor:
    """A micro-batch's share of the step's sum; in double precision where the device has it."""
    precision = torch.float32 if loss.device.type == "mps" else torch.float64
    return loss.detach().to(precision) * weight


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
