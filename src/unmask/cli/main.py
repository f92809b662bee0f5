"""The command `unmask`: finds the subcommand, and turns errors into sentences and exit codes."""

import difflib
import importlib
import io
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from unmask.cli.processes import is_main_process, process_count
from unmask.errors import CheckpointError, DataError, Interrupted, PeerError, lacks_memory, printable
from unmask.storage import FULL, free_space
from unmask.tasks import TASKS
from unmask.units import data_size


class Command(NamedTuple):
    """What it does, and the function that does it, as module:function in this room."""

    summary: str
    place: str


BEFORE_TRAINING = {
    "quickstart": Command(
        "pre-train on handwritten digits in a few minutes, and measure what that gains", "use:quickstart"
    ),
    "check": Command(
        "check a folder of images: counts, sizes, unreadable files, what the model will see", "use"
    ),
}
AFTER_TRAINING = {
    "knn": Command("k-NN classification and linear probe on frozen features", "use"),
    "evaluate": Command("evaluate a classifier, detector or segmenter on labelled images", "use"),
    "predict": Command("predict classes, objects or label maps of new images", "use"),
    "reconstruct": Command("draw a model's reconstructions of masked images", "use"),
    "embed": Command("write the features (embeddings) of images to a file", "use"),
    "export": Command("export a model to another library's format", "use:export"),
    "replay": Command("take one step of a run again and see what went wrong in it", "use:replay"),
    "ablate": Command("repeat one of the paper's ablations on your own images", "ablate:main"),
    "plan": Command(
        "predict hours, memory and loader cores of a pre-training run on other devices", "plan:main"
    ),
    "bench": Command("measure speed: a step, the paper's Table 2, other libraries", "bench:main"),
    "list": Command("list recipes and model sizes", "list:main"),
}


def commands() -> dict[str, Command]:
    """All commands, in the order of the help; those that train are the registry's tasks."""
    training = {name: Command(entry.summary, "train") for name, entry in TASKS.items()}
    return {**BEFORE_TRAINING, **training, **AFTER_TRAINING}


def divided() -> set[str]:
    """Commands that divide their work among the processes that torchrun starts."""
    return {*TASKS, "evaluate", "ablate", "quickstart"}


MEMORY_FLAGS = {
    "embed": "a smaller --batch, fewer --workers",
    "predict": "fewer --workers",
    "bench": "a smaller --batch",
    "plan": "a smaller --optim.micro-batch",
    **dict.fromkeys(("ablate", "check", "evaluate", "knn"), "fewer --data.workers"),
}
"""What takes memory, by command; `_spared` adds those that train."""
FAILED, USAGE, PIPE_CLOSED = 1, 2, 141
EXIT_CODES = {CheckpointError: 4, DataError: 3, ValueError: USAGE}


SPINS = "1000"
"""How often an idle OpenMP thread looks for work before it sleeps. libgomp's own number is so large that
threads which wait for each other take the cores from every other process, and from the one they wait for
(benchmarks/step.md)."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 1 out of memory or another process failed, 2 usage, 3 data,
    4 checkpoint, 130 or 143 interrupted, 141 if what reads its output is gone.

    Terminals that lack a character get its escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Of folders that it cannot write, and of fonts: it goes on without.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS  # read when torch is imported, which is later
    try:
        code = run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except BrokenPipeError:  # what reads our output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = PIPE_CLOSED
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Runs one command; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if argv else USAGE
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"unmask {version('unmask')}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in (known := commands()):
        likely = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {likely[0]}?" if likely else f"choose one of {', '.join(known)}"
        complain(f"there is no command {name}: {hint}")
        return USAGE
    if (count := process_count()) > 1 and name not in divided():
        complain(f"unmask {name} runs in one process, and torchrun started {count}: leave torchrun out")
        return USAGE
    debug = "--debug" in rest
    try:
        command = _function(name, known[name].place)
        command([word for word in rest if word != "--debug"])
    except Interrupted as stop:
        complain(f"{stop}. Resume with: {shlex.join(['unmask', *argv])}")
        return stop.exit_code
    except KeyboardInterrupt:
        complain("interrupted before there was anything to save")
        return 130
    except PeerError as error:
        if debug:
            raise
        complain(str(error), everywhere=True)
        return FAILED
    except (ImportError, MemoryError, RuntimeError) as error:
        if debug or not _lacks_memory(error):
            raise
        complain(f"unmask {name} needs more memory than there is: {_spared(name)}", everywhere=True)
        return FAILED
    except ValueError as error:
        if debug:
            raise
        notes = getattr(error, "__notes__", [])
        complain("; ".join([str(error), *notes]), everywhere=bool(notes))
        return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    except OSError as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        full = f" ({_too_full(error, argv)})" if error.errno in FULL else ""
        where = error.filename or f"what is written to {_output(argv)}"
        complain(f"{where}: {error.strerror or error}{full}; correct that and try again")
        return 4
    return 0


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, ImportError | MemoryError):  # torch may not fit, or may have failed to load
        return lacks_memory(error)
    from unmask.engine.machine import is_out_of_memory

    return is_out_of_memory(error)


def _spared(name: str) -> str:
    """What a command could do with less memory, in words."""
    training = "a smaller --optim.micro-batch, fewer --data.workers"
    flags = dict.fromkeys(TASKS, training) | MEMORY_FLAGS
    return f"try {flags[name]}, or end other programs" if name in flags else "end other programs"


def _too_full(error: OSError, argv: list[str]) -> str:
    """The disk of what could not be written, and the space that was too little."""
    place = Path(os.fsdecode(error.filename or _output(argv)))
    folder = place if place.is_dir() else place.parent
    free = data_size(free_space(folder))
    return f"the disk of {folder} has {free} free, and more is needed: make room"


def _output(argv: list[str]) -> str:
    """Where a command writes, as far as its words say."""
    values = [word for flag, word in pairwise(argv) if flag == "--out"]
    return values[-1] if values else "runs"


def overview() -> str:
    """The help of `unmask` itself."""
    listed = "\n".join(f"  {name:<12} {does.summary}" for name, does in commands().items())
    return (
        "unmask: pre-train Vision Transformers as masked autoencoders on your own images, and use "
        "them\n\n"
        "usage: unmask COMMAND [DATA] [--recipe NAME] [--out DIR] [--section.field VALUE ...]\n\n"
        f"{listed}\n\nunmask COMMAND --help lists the flags of a command."
    )


def _function(name: str, place: str) -> Callable[[list[str]], None]:
    """Imported now, and no other command's. One function may serve several commands by their names."""
    module, _, function = place.partition(":")
    loaded = importlib.import_module(f"unmask.cli.{module}")
    return getattr(loaded, function) if function else partial(loaded.main, name)


def complain(sentence: str, *, everywhere: bool = False) -> None:
    """To standard error, from the main process only unless told otherwise."""
    if everywhere or is_main_process():
        print(f"unmask: {printable(sentence)}", file=sys.stderr)
