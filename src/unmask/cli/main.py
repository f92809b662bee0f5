"""The command `unmask`: finds the subcommand, and turns errors into sentences and exit codes."""

import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from unmask.errors import CheckpointError, DataError, Interrupted

COMMANDS = {
    "quickstart": "pre-train on an embedded example in a few minutes and show what it learned",
    "check": "look at a folder of images: counts, sizes, bad files, what the model will see",
    "pretrain": "masked autoencoding on any folder of images; no labels needed",
    "finetune": "train an encoder and a new head on labels, in whole or in part",
    "probe": "a linear classifier on a frozen encoder",
    "scratch": "the same without pre-training, to compare with",
    "knn": "classify by the nearest features, without training",
    "evaluate": "measure a classifier on labelled images",
    "predict": "classify images, with probabilities and a contact sheet",
    "reconstruct": "show what a model makes of masked images",
    "embed": "features of images, in a file",
    "export": "write a model in another library's layout",
    "plan": "hours, memory and loader cores of a pre-training run elsewhere, by arithmetic",
    "bench": "measured speed: a step, the paper's Table 2, other libraries",
    "list": "the recipes and model sizes",
}

USAGE = 2
EXIT_CODES = {CheckpointError: 4, DataError: 3, ValueError: USAGE}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 2 usage, 3 data, 4 checkpoint, 130 or 143 interrupted."""
    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))


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
    if name not in COMMANDS:
        complain(f"there is no command {name}: choose one of {', '.join(COMMANDS)}")
        return USAGE
    debug = "--debug" in rest
    command: Callable[[list[str]], None] = importlib.import_module(f"unmask.cli.{name}").main
    try:
        command([word for word in rest if word != "--debug"])
    except Interrupted as stop:
        complain(f"{stop}. Resume with: {shlex.join(['unmask', *argv])}")
        return stop.exit_code
    except KeyboardInterrupt:
        complain("interrupted before there was anything to save")
        return 130
    except ValueError as error:
        if debug:
            raise
        complain(str(error))
        return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    except OSError as error:
        if debug:
            raise
        complain(f"{error.filename or 'the disk'}: {error.strerror or error}; mend that and try again")
        return 4
    return 0


def overview() -> str:
    """The help of `unmask` itself."""
    commands = "\n".join(f"  {name:<12} {does}" for name, does in COMMANDS.items())
    return (
        "unmask: masked autoencoders on your own images\n\n"
        "usage: unmask COMMAND [DATA] [--recipe NAME] [--out DIR] [--section.field VALUE ...]\n\n"
        f"{commands}\n\nunmask COMMAND --help explains one of them."
    )


def complain(sentence: str) -> None:
    """To standard error, from the main process only."""
    if os.environ.get("RANK", "0") == "0":
        printable = sentence.encode("utf-8", "backslashreplace").decode()
        print(f"unmask: {printable}", file=sys.stderr)
