"""The prose of source, help, reports and documents uses the field's words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

BETTER = {
    r"mend(s|ed|ing)?": "fix",
    r"aloud": "leave it out, or 'with a message'",
    r"surest": "most confident",
    r"commonest": "most frequent, or majority class",
    r"asked about": "query images",
    r"in peace": "cleanly",
    r"fore(tell|tells|told|see|sees)": "predict",
    r"such an? one": "name the thing",
    r"the reference('s)?(?! (images?|picture|run))": "the official MAE code",
    r"(?<!standard )deviations?": "standard deviation",
    r"running averages?": "EMA",
    r"peak rates?": "peak learning rate",
    r"base rates?": "base learning rate",
    r"held-out ratio": "held-out error vs harmonic fill",
    r"taken for": "classified as, assumed to be, treated as",
    r"as sure as": "calibrated",
    r"as often as it says": "reliability diagram",
    r"likelihood of each type": "split stratified by defect likelihood and cell type",
    r"the head is new": "head initialised randomly",
    r"parts the": "would split",
    r"anew": "again",
    r"beforehand": "before",
    r"wherein|whence|hitherto|thereof|therein|thereby|whereby|lest|nought|amiss|hence": "modern English",
    r"shall": "will, or must",
    r"\w+Error where|(?:None|NaN) where(?! a pixel)": "if",
    r"(?:is|are|was|and|; it is) said": "is reported, or with a note",
    r"by the clock": "wall-clock",
    r"likeliest": "most probable",
    r"is (?:a little )?flattered": "is optimistic",
    r"looks at the features": "evaluations of the features",
    r"passed over|passing over": "ignored, skipped",
    r"\w+\((?:s|es)": "units.counted",
    r"another than": "differs from, changes of",
    r"what usually helps is": "usually helps",
    r"worth nothing": "baseline",
    r"of one's own|one's own": "your own",
    r"by the images' names": "by a hash of their names",
    r"how they become samples": "crops, augmentation",
    r"what stands on the encoder": "the head",
    r"branches are dropped": "drop path (stochastic depth)",
    r"taken to be": "assumed to be",
}
"""A pattern of whole words, and what to write for it."""

ALLOWED = {
    ("deviation", "src/unmask/runs/study.py"): "a key of sweep.json",
}
"""Texts that hold a word which is a name elsewhere: (text, file) and the reason."""

NOUNLESS = re.compile(r"^Of\b")
"""How a docstring does not begin: with what it returns or holds instead."""

PATTERNS = {re.compile(rf"\b({words})\b", re.IGNORECASE): better for words, better in BETTER.items()}
DOCUMENTS = ("*.md", "docs/*.md", "benchmarks/*.md")
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted(page for pattern in DOCUMENTS for page in ROOT.glob(pattern))


class Text(NamedTuple):
    """Words that stand together, and the line at which they begin."""

    line: int
    words: str


def texts_of_source(source: str) -> Iterator[Text]:
    """String literals, docstrings among them, and comments; a comment of several lines is one text."""
    yield from _strings(ast.parse(source))
    comment = Text(0, "")
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        words, line = token.string.lstrip("#: "), token.start[0]
        if line != last + 1:
            yield comment
            comment = Text(line, "")
        comment, last = comment._replace(words=f"{comment.words} {words}"), line
    yield comment


def _strings(node: ast.AST) -> Iterator[Text]:
    if isinstance(node, ast.JoinedStr):
        yield Text(node.lineno, "".join(map(_piece, node.values)))
        parts = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        for part in parts:
            yield from _strings(part)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield Text(node.lineno, node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)


def _piece(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}"


def texts_of_page(page: str) -> Iterator[Text]:
    """Paragraphs."""
    line = 1
    for paragraph in re.split(r"(\n{2,})", page):
        yield Text(line, paragraph)
        line += paragraph.count("\n")


def faults(texts: Iterator[Text], name: str) -> list[str]:
    """Words that have a better one, as file:line."""
    return [
        f"{name}:{text.line}: '{found[0]}' -> {better}, in: {' '.join(text.words.split())[:150]}"
        for text in texts
        for pattern, better in PATTERNS.items()
        for found in pattern.finditer(" ".join(text.words.split()))
        if (text.words, name) not in ALLOWED
    ]


def test_the_sources_use_the_fields_words() -> None:
    found = [
        fault
        for path in SOURCES
        for fault in faults(texts_of_source(path.read_text()), str(path.relative_to(ROOT)))
    ]
    assert not found, "\n" + "\n".join(found)


def test_docstrings_begin_with_a_noun() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{text.line}: {text.words[:80]}"
        for path in SOURCES
        for text in texts_of_source(path.read_text())
        if NOUNLESS.match(text.words)
    ]
    assert not found, "\n" + "\n".join(found)


def test_the_documents_use_the_fields_words() -> None:
    found = [
        fault
        for path in PAGES
        for fault in faults(texts_of_page(path.read_text()), str(path.relative_to(ROOT)))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        '"""The mend of a page."""',
        "x = 1  # a mend",
        "# it is such\n# a one",
        'x = f"the {1} mend"',
        'x = ("held-out "\n     "ratio")',
        "x = f\"{y['mend']}\"",
    ],
)
def test_every_kind_of_text_is_read(source: str) -> None:
    assert len(faults(texts_of_source(source), "x.py")) == 1


def test_lines_of_a_page_are_counted() -> None:
    assert faults(texts_of_page("a\n\n\nb\nthe mend\n"), "x.md")[0].startswith("x.md:4: 'mend' -> fix")


@pytest.mark.parametrize("allowed", ALLOWED)
def test_allowed_texts_are_still_there(allowed: tuple[str, str]) -> None:
    text, name = allowed
    assert text in {each.words for each in texts_of_source((ROOT / name).read_text())}
