"""Points at which a test makes a process fail: kill -9, an exception, a full or a broken disk.

`UNMASK_FAULT="checkpoint.rename:kill:2"` fails the second time that `checkpoint.rename` is reached. The
kinds are kill, raise, enospc and eio. Without the variable a point costs one comparison with None.
"""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

VARIABLE = "UNMASK_FAULT"
DISK_ERRORS = {"enospc": errno.ENOSPC, "eio": errno.EIO}
KINDS = ("kill", "raise", *DISK_ERRORS)

_FILE = ("write", "sync", "rename", "renamed")
POINTS = {
    "run": (*_FILE, "append"),
    "checkpoint": ("mkdir", *_FILE, "remove", "removed", "read"),
    "decode": ("open", "pixels"),
    "step": ("forward", "backward", "update", "done"),
    "model": _FILE,
    "bad_images": _FILE,
}
"""Points of each part of a run: `decode.pixels` is behind the header of an image, in a loader
process if there are any; `step.forward` is before each micro-batch, `step.update` before the optimizer's
step."""
NAMES = tuple(f"{part}.{point}" for part, points in POINTS.items() for point in points)


class InjectedError(Exception):
    """What the kind `raise` raises: no code of ours expects it."""


@dataclass
class _Armed:
    point: str
    kind: str
    countdown: int


def fault_point(name: str) -> None:
    """Fails here if a test has armed this point; otherwise does nothing."""
    if _armed is None:
        return
    assert name in NAMES, f"the fault point {name} is missing in POINTS"
    if _armed.point != name:
        return
    _armed.countdown -= 1
    if _armed.countdown == 0:
        _fail(_armed)


@contextmanager
def armed(fault: str) -> Iterator[None]:
    """Arms `point:kind` or `point:kind:n` for the calls inside the context.

    Raises ValueError if it is written otherwise.
    """
    global _armed
    earlier, _armed = _armed, _parse(fault)
    try:
        yield
    finally:
        _armed = earlier


def _parse(fault: str) -> _Armed:
    point, _, rest = fault.partition(":")
    kind, _, count = rest.partition(":")
    if point not in NAMES or kind not in KINDS or not (count or "1").isdecimal():
        raise ValueError(
            f"{VARIABLE} is {fault!r}: write point:kind:n, with a kind of {', '.join(KINDS)} and a "
            f"point of {', '.join(NAMES)}"
        )
    return _Armed(point, kind, int(count or "1"))


def _fail(fault: _Armed) -> None:
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.kind == "raise":
        raise InjectedError(f"at {fault.point}")
    number = DISK_ERRORS[fault.kind]
    raise OSError(number, os.strerror(number))


_armed = _parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
