import re
from pathlib import Path

import pytest

from unmask.units import counted, data_size, duration

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))
OWN_WAY = re.compile(r"\} ?(?:[KMG]i?B|seconds|minutes|hours|days)\b|//? ?(?:2 ?\*\* ?[123]0|3600|60)\b")
"""A number in an f-string with its unit, or a division that makes one."""
ALLOWED = {
    "units.py": "the place",
    "cost/predict.py": "hours as a number, for JSON",
    "cost/predict_card.py": "hours to compare with the paper's",
    "runs/timed.py": "minutes as --time takes them",
}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 seconds"),
        (1.2, "1 second"),
        (89, "89 seconds"),
        (90, "1.5 minutes"),
        (5399, "90.0 minutes"),
        (5400, "1.5 hours"),
        (36 * 3600, "1.5 days"),
    ],
)
def test_a_duration_has_the_unit_that_suits(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1010 * 2**20, "1010 MiB"),
        (512.4 * 2**20, "512 MiB"),
        (1.234 * 2**30, "1.23 GiB"),
        (80 * 2**30, "80 GiB"),
    ],
)
def test_bytes_have_the_unit_that_suits(count, shown):
    assert data_size(count) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(1, "1 image"), (0, "0 images"), (12_345_678, "12345678 images"), (1.5, "1.5 images")],
)
def test_counts_are_whole(number, shown):
    assert counted(number, "image") == shown
    assert counted(2, "process") == "2 processes"


def test_nothing_else_writes_durations_and_sizes_in_a_way_of_its_own():
    found = [
        f"{path.name}: {line.strip()}"
        for path in SOURCES
        if path.relative_to(SOURCES[0].parents[0]).as_posix() not in ALLOWED
        for line in path.read_text().splitlines()
        if OWN_WAY.search(line)
    ]
    assert not found, "\n".join(found)
