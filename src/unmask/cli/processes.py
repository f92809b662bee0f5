"""The processes that torchrun started, as its environment names them; without torch."""

import os


def is_main_process() -> bool:
    """Whether this is the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))
