"""Loss spikes: losses far above those before them."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

WINDOW, FEWEST = 20, 8
"""Records that a loss is compared with; with fewer nothing is called a spike."""
SPREADS, SHARE = 8.0, 0.3
"""How far a spike is above the median: in median absolute differences from it, and in shares of it."""


class Spike(NamedTuple):
    """A logged loss that is far above its predecessors."""

    step: int
    loss: float
    median: float

    def message(self) -> str:
        """What happened, and what usually helps."""
        return (
            f"loss spike at step {self.step}: {self.loss:.4g}, the median of the records before it is "
            f"{self.median:.4g}; if the loss does not come back, a lower --optim.base-lr, a longer "
            f"--optim.warmup-steps or --optim.clip 1 usually helps"
        )


def spikes(records: Sequence[dict[str, Any]]) -> list[Spike]:
    """All spikes among a run's records, by rising step; a spike of several records counts once.

    A loss is compared with the `WINDOW` logged losses before it, those of spikes left out.
    """
    found: list[Spike] = []
    usual: list[float] = []
    high = 0
    for record in records:
        if (loss := record.get("loss")) is None:
            continue
        before = usual[-WINDOW:]
        if len(before) < FEWEST or not _is_high(loss, before):
            usual.append(loss)
            high = 0
            continue
        if not high:
            found.append(Spike(record["step"], loss, statistics.median(before)))
        high += 1
        if high == FEWEST:  # not a spike: this is how high losses are from now on
            usual, high = [loss], 0
    return found


def newest_spike(records: Sequence[dict[str, Any]]) -> Spike | None:
    """The spike that begins with the newest record, if one does."""
    found = spikes(records[-2 * WINDOW :])
    return found[-1] if found and found[-1].step == records[-1]["step"] else None


def _is_high(loss: float, before: Sequence[float]) -> bool:
    median = statistics.median(before)
    spread = statistics.median(abs(other - median) for other in before)
    return loss > median + max(SPREADS * spread, SHARE * abs(median))
