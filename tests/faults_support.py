"""Real kills: what is called here runs in a child process that a fault point ends."""

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import nullcontext

from unmask.faults import armed

PASSED, FAILED = 0, 1


def started(call: Callable[[], object], fault: str | None = None) -> int:
    """Calls in a forked process, with a fault point armed; returns the process's id.

    It ends with 0 if the call returned, 1 if it raised.
    """
    child = os.fork()
    if child == 0:
        code = FAILED
        try:
            with armed(fault) if fault else nullcontext():
                call()
            code = PASSED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def in_child(call: Callable[[], object], fault: str | None = None) -> int:
    """Calls in a forked process; returns what os.waitstatus_to_exitcode gives: -9 if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(started(call, fault), 0)[1])


KILLED = -signal.SIGKILL


def silent(_: str) -> None:
    """For callers that say something."""
