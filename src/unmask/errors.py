"""Mistakes that a user can correct. Each message is one sentence or two: what is wrong, and a fix.

The command turns them into exit codes: ValueError 2, DataError 3, CheckpointError 4.
"""

import signal

CPU_OUT_OF_MEMORY = ("DefaultCPUAllocator", "std::bad_alloc", "failed to map segment")
"""What messages hold if an allocation on a CPU fails, or a library as large as torch finds no room."""


def lacks_memory(error: BaseException) -> bool:
    """Whether the machine has too little memory, not counting that of a GPU."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in CPU_OUT_OF_MEMORY)


def printable(text: str) -> str:
    """Text for a terminal: escapes stand for what it would obey, or what is not UTF-8."""
    return "".join(
        c if c.isprintable() or c in "\n\u00a0" else c.encode("unicode_escape").decode() for c in text
    )


class DataError(ValueError):
    """The images cannot be used as they are."""


class AnnotationError(DataError):
    """What is annotated on an image cannot be used: a run stops, and does not pass over the image."""


class CheckpointError(ValueError):
    """Weights or a run directory cannot be used as they are."""


class DivergenceError(ValueError):
    """The gradient was not finite too often, or the weights no longer are."""


class PeerError(Exception):
    """Another process of the run failed first, or was killed."""


class Interrupted(Exception):
    """A signal stopped the run after it saved, if it had begun; the same command goes on."""

    def __init__(self, signal_number: int, step: int):
        name = signal.Signals(signal_number).name
        done = f"saved after step {step} and stopped" if step else "stopped before the first step"
        super().__init__(f"{done}, as {name} asked")
        # A scheduler warns with SIGUSR1 before SIGTERM: scripts look for one code.
        self.exit_code = 128 + (signal.SIGTERM if signal_number == signal.SIGUSR1 else signal_number)
