"""Runs each test that docs/reliability.md names, and prints its table with results: `make faults`."""

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"\| (?P<case>\d+,? [^|]+) \| (?P<seen>[^|]+) \| `(?P<test>[\w/.]+::\w+)` \|")


class Outcomes:
    """Collects what became of each test, whatever its parameters."""

    def __init__(self) -> None:
        self.of: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test passes if none of its parts fails; one that is skipped says so."""
        name = report.nodeid.split("[")[0].removeprefix("tests/")
        if report.failed or report.skipped or report.when == "call":
            self.of[name].add(report.outcome)

    def verdict(self, test: str) -> str:
        """pass, fail, skipped, or missing."""
        found = self.of.get(test, set())
        if "failed" in found:
            return "FAIL"
        return "pass" if "passed" in found else "skipped" if found else "MISSING"


def rows() -> list[re.Match[str]]:
    """The lines of the table."""
    return list(ROW.finditer((TESTS.parent / "docs" / "reliability.md").read_text()))


def main() -> int:
    """Returns 0 if every case passes or is skipped."""
    found, outcomes = rows(), Outcomes()
    named = sorted({f"{TESTS / row['test']}" for row in found})
    pytest.main(
        ["-q", "--no-header", "--tb=short", f"--rootdir={TESTS.parent}", *named], plugins=[outcomes]
    )
    verdicts = [outcomes.verdict(row["test"]) for row in found]
    for row, verdict in zip(found, verdicts, strict=True):
        print(f"{verdict:<8} {row['case']:<60} {row['test']}")
    counts = {verdict: verdicts.count(verdict) for verdict in ("pass", "skipped", "FAIL", "MISSING")}
    print(f"{len(found)} cases: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return int(counts["FAIL"] + counts["MISSING"] > 0)


if __name__ == "__main__":
    sys.exit(main())
