"""Loss spikes: losses far above those before them."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

WINDOW, FEWEST = 20, 8
"""Records that a loss is compared with; with fewer nothing is called a spike."""
SPREADS, SHARE = 8.0, 0.3
"""How far a spike is above the median: in median absolute differences from it, and in shares of it."""
IN_A_ROW, HUGE = 3, 5.0
"""Records of a spike, or how many medians the loss of a single one has: one batch of hard images also
has a high loss, twice or three times the median, and the next is as before."""


class Spike(NamedTuple):
    """A logged loss that is far above its predecessors."""

    step: int
    loss: float
    median: float

    @property
    def is_huge(self) -> bool:
        """Whether this loss alone shows it."""
        return self.loss > HUGE * abs(self.median)

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
    high: list[Spike] = []
    for record in records:
        if (loss := record.get("loss")) is None:
            continue
        before = usual[-WINDOW:]
        if len(before) < FEWEST or not _is_high(loss, before):
            usual.append(loss)
            high = []
            continue
        high.append(Spike(record["step"], loss, statistics.median(before)))
        if not (found and found[-1] in high) and (len(high) == IN_A_ROW or high[-1].is_huge):
            found.append(high[0])
        if len(high) == FEWEST:  # not a spike: this is how high losses are from now on
            usual, high = [loss], []
    return found


def newest_spike(records: Sequence[dict[str, Any]]) -> Spike | None:
    """The spike that shows with the newest record, if one does."""
    late = records[-2 * WINDOW :]
    found = spikes(late)
    return found[-1] if len(found) > len(spikes(late[:-1])) else None


def _is_high(loss: float, before: Sequence[float]) -> bool:
    median = statistics.median(before)
    spread = statistics.median(abs(other - median) for other in before)
    return loss > median + max(SPREADS * spread, SHARE * abs(median))
