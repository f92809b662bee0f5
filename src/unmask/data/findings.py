"""What a check of annotations found, before anything is trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of oddity."""

    what: str
    """In the plural: 'boxes without area'."""
    count: int
    then: str
    """What happens to them: 'left out'."""
    examples: tuple[str, ...]
    """The first few, by the names of their files."""
    of_classes: bool = False
    """Whether it is about classes, which the parts of the data share, and so counts once in all."""

    def __str__(self) -> str:
        return f"{self.count} {self.what}: {self.then}; such as {', '.join(map(repr, self.examples))}"


@dataclass
class Tally:
    """Oddities of one kind as they are met: how many, and the first few, since there may be millions."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """One more."""
        self.count += 1
        if len(self.examples) < SHOWN:
            self.examples.append(example)

    def findings(self, what: str, then: str) -> list[Finding]:
        """See `found`."""
        return found(what, then, self.examples, self.count)


def found(
    what: str, then: str, examples: Iterable[str], count: int | None = None, *, of_classes: bool = False
) -> list[Finding]:
    """One finding, or none if there is no example; `count` if `examples` are only the first."""
    if count is None:
        examples = list(examples)
        count = len(examples)
    if not count:
        return []
    shown = tuple(islice(examples, SHOWN))
    return [Finding(what=what, count=count, then=then, examples=shown, of_classes=of_classes)]


def joined(several: Iterable[Sequence[Finding]]) -> tuple[Finding, ...]:
    """Findings of several parts of the data, those of one kind together, in the order of appearance."""
    kinds = dict[str, Finding]()
    for finding in (finding for findings in several for finding in findings):
        known = kinds.get(finding.what)
        kinds[finding.what] = finding if known is None else _sum(known, finding)
    return tuple(kinds.values())


def _sum(one: Finding, other: Finding) -> Finding:
    if one.of_classes:
        return max(one, other, key=lambda finding: finding.count)
    return Finding(
        what=one.what,
        count=one.count + other.count,
        then=one.then,
        examples=(*one.examples, *other.examples)[:SHOWN],
    )
