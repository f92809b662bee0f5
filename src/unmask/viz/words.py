"""Names and numbers as they stand in pictures."""

NO_NAME = "(no name)"


def one_line(text: str, most: int) -> str:
    """Any text as one printable line of at most `most` characters, an ellipsis if it was cut."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split())) or NO_NAME
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def last_part(text: str, most: int) -> str:
    """The same of a path, which is told from others by its end."""
    line = one_line(text, len(text) + len(NO_NAME))
    return line if len(line) <= most else "…" + line[1 - most :].lstrip()


def escaped(text: str) -> str:
    """Any text as one printable line; escapes stand for what is not printable."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def percent(share: float) -> str:
    """A share in whole per cent, never rounded to none or to all."""
    if 0 < share <= 0.005:
        return "<1 %"
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"
