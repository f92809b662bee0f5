"""The benchmarks by name."""

from collections.abc import Callable

from unmask.bench.data import bench_data
from unmask.bench.peers import bench_peers
from unmask.bench.setting import BenchConfig
from unmask.bench.speedup import bench_speedup
from unmask.bench.step import bench_step
from unmask.config.fields import check
from unmask.cost.cards import Card

BENCHES: dict[str, Callable[[BenchConfig], list[Card]]] = {
    "data": bench_data,
    "step": bench_step,
    "speedup": bench_speedup,
    "peers": bench_peers,
}
"""In the order of `all`: from `step` on the process keeps freed memory, as training does, and the usual
data pipeline would profit from that."""


def run_bench(name: str, config: BenchConfig) -> list[Card]:
    """Runs one benchmark, or `all`; ValueError if there is none of that name."""
    if name != "all" and name not in BENCHES:
        raise ValueError(f"there is no benchmark {name}: choose one of {', '.join(BENCHES)}, all")
    check(config)
    chosen = list(BENCHES) if name == "all" else [name]
    return [card for each in chosen for card in BENCHES[each](config)]
