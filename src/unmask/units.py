"""Times, sizes and counts in the words of logs, reports and errors: one way for all of them."""

KIB, MIB, GIB = 2**10, 2**20, 2**30


def duration(seconds: float) -> str:
    """Seconds in the unit that suits: 1 second, 40 seconds, 2.5 hours."""
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    whole = round(seconds)
    return f"{whole} second" if whole == 1 else f"{whole} seconds"


def data_size(count: float) -> str:
    """Bytes in the unit that suits, to three digits: 96 bytes, 512 MiB, 1.23 GiB."""
    unit, length = next(
        (pair for pair in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)) if count >= pair[1]), ("bytes", 1)
    )
    value = count / length
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def counted(number: float, what: str) -> str:
    """A number of things: 1 block, 2 blocks, 3 processes."""
    text = str(number) if isinstance(number, int) else f"{number:g}"
    if number == 1:
        return f"{text} {what}"
    return f"{text} {what}es" if what.endswith("s") else f"{text} {what}s"
