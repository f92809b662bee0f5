"""A run as one page that opens anywhere: no scripts, nothing fetched, pictures inside."""

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

STYLE = """
:root { color-scheme: light dark; --line: #8885; --quiet: #6b6b6b; }
@media (prefers-color-scheme: dark) { :root { --quiet: #a5a5a5; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; overflow-wrap: anywhere; }
section { margin: 2rem 0; overflow-x: auto; }
table { border-collapse: collapse; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
tr { border-bottom: 1px solid var(--line); }
.facts th { font-weight: 400; color: var(--quiet); min-width: 6.5rem; }
.facts td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
h2 { font-size: 1.2rem; }
dt { color: var(--quiet); }
dd { margin: 0 0 .8rem; }
code { font: .9rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; background: #fff; }
img { border: 1px solid var(--line); border-radius: 4px; }
.picture { cursor: zoom-in; }
.picture input { position: absolute; opacity: 0; }
.picture input:focus-visible + span img { outline: 3px solid; }
.picture input:checked + span { position: fixed; inset: 0; z-index: 1; overflow: auto; }
.picture input:checked + span { background: Canvas; cursor: zoom-out; }
.picture input:checked + span img { max-width: none; min-width: 100%; border: 0; }
figcaption { color: var(--quiet); }
.flag { display: inline-block; }
"""


class Table(NamedTuple):
    """Rows of text under a header."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Commands(NamedTuple):
    """What to type next, under a heading: (what it does, the command)."""

    caption: str
    rows: Sequence[tuple[str, str]]


class Link(NamedTuple):
    """Another page, by its place relative to this one."""

    text: str
    place: Path


def report_html(
    title: str,
    *,
    facts: Sequence[tuple[str, str]],
    pictures: Sequence[tuple[str, bytes]],
    tables: Sequence[Table] = (),
    summary: Table | None = None,
    opening: Sequence[tuple[str, bytes]] = (),
    commands: Commands | None = None,
    links: Sequence[Link] = (),
) -> str:
    """A self-contained page; every string is shown as it is, never read as HTML.

    Args:
        facts: (name, value), in the order of reading.
        pictures: (caption, PNG); the caption also stands in for those who do not see the picture.
        tables: below the pictures.
        summary: above facts and pictures.
        opening: pictures above everything.
        commands: below these.
        links: pages of the runs that this page compares, at its end.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [_figure(caption, png) for caption, png in opening]
    if commands:
        parts.append(_commands(commands))
    if summary:
        parts.append(_table(summary))
    if facts:
        parts.append(_facts(facts))
    parts += [_figure(caption, png) for caption, png in pictures]
    parts += [_table(table) for table in tables]
    if links:
        parts.append(_links(links))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{_text(value)}</td></tr>' for name, value in facts
    ]
    return "\n".join(['<section><table class="facts">', *rows, "</table></section>"])


def _text(value: str) -> str:
    """As HTML; a line never ends within a flag, at its hyphens."""
    return re.sub(r"(?<![\w-])--[\w.-]+", r'<span class="flag">\g<0></span>', escape(value))


def _figure(caption: str, png: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    text = escape(caption)
    # A tap, or the space bar, shows it in its own size over the page, and again puts it back.
    return (
        '<figure>\n<label class="picture"><input type="checkbox" aria-label="enlarge"><span>'
        f'<img src="{source}" alt="{text}"></span></label>\n<figcaption>{text}</figcaption>\n</figure>'
    )


def _commands(commands: Commands) -> str:
    rows = [
        f"<dt>{escape(what)}</dt><dd><code>{_text(command)}</code></dd>"
        for what, command in commands.rows
    ]
    return "\n".join([f"<section><h2>{escape(commands.caption)}</h2><dl>", *rows, "</dl></section>"])


def _links(links: Sequence[Link]) -> str:
    rows = [f'<li><a href="{quote(bytes(link.place))}">{escape(link.text)}</a></li>' for link in links]
    return "\n".join(["<section><h2>Reports of the single runs</h2><ul>", *rows, "</ul></section>"])


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = ["".join(f"<td>{escape(value)}</td>" for value in row) for row in table.rows]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<section><table>\n<caption>{escape(table.caption)}</caption>\n"
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></section>"
    )
