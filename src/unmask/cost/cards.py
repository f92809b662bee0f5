"""A result as a card for people and a record for programs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_OF_FILES = 120


@dataclass(frozen=True, kw_only=True)
class Card:
    """`rows` are shown as a table, under `columns` if it has a head."""

    title: str
    setting: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str] = ()
    record: dict[str, Any] = field(default_factory=dict)
    """Empty if another card's record holds this one's numbers."""


def show(cards: Sequence[Card]) -> None:
    """Prints the cards, and one JSON line last."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=WIDTH_OF_FILES)
    for card in cards:
        table = Table(box=None, pad_edge=False, show_header=bool(card.columns))
        for name in card.columns:
            table.add_column(Text(name), no_wrap=True)
        for row in card.rows:
            table.add_row(*map(Text, row))
        console.print(card.title, style="bold", markup=False)
        if card.setting:
            facts = ", ".join(f"{name} {value}" for name, value in card.setting.items())
            console.print(facts, markup=False)
        console.print(table)
        for note in card.notes:
            console.print(note, markup=False)
        console.print()
    records = [card.record for card in cards if card.record]
    print(json.dumps(records[0] if len(records) == 1 else {"results": records}))
