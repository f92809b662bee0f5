"""Keeps the warnings of other libraries out of the terminal."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("tifffile", "pydicom", "PIL")
WARNED = "other libraries warn of damage in it, which costs no image (their warnings are not shown)"


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]):
        super().__init__(logging.WARNING)
        self._said = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


@contextmanager
def quietly() -> Iterator[list[str]]:
    """What is warned of or logged meanwhile, when it ends; nothing of it is shown."""
    messages: list[str] = []
    collector, loggers = _Collector(messages), [logging.getLogger(name) for name in LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(collector)
        logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield messages
            finally:
                messages.extend(str(warning.message) for warning in caught)
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(collector)
            logger.propagate = propagate


def notes_on(messages: list[str]) -> tuple[str, ...]:
    """One note, however many warnings there were."""
    return (WARNED,) if messages else ()
