"""unmask bench NAME: measured speed."""

from unmask.bench.setting import BenchConfig
from unmask.cli.arguments import parse

DESCRIPTION = (
    "First word, what to measure. data: reading images, against the usual pipeline. step: images per "
    "second, and the share of the machine's own limit. speedup: the paper's Table 2, mask tokens in the "
    "encoder against none. peers: the same step in other libraries (pip install 'unmask[peers]'). "
    "all: each of them. The last line is JSON."
)


def main(argv: list[str]) -> None:
    """Measures, and prints cards and a line of JSON."""
    config, words = parse(BenchConfig(), argv, prog="unmask bench NAME", description=DESCRIPTION)
    if len(words) != 1:
        raise ValueError("bench takes one name: write unmask bench data, step, speedup, peers or all")

    from unmask import api
    from unmask.cost.cards import show

    show(api.bench(words[0], config))
