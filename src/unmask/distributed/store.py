"""The store by which the processes of a run find each other, and tell each other who failed first."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from unmask.errors import Interrupted, PeerError
from unmask.units import duration

ARRIVAL = timedelta(minutes=10)
"""How long a process waits for the others to start."""
NEWS = timedelta(seconds=1)
"""How long a process that fails waits for the main one to fail alike."""
FIRST, MAIN = "first failure", "failure of the main process"
"""Keys of messages."""
LOST = (
    "the connection to another process broke, which was killed, perhaps for too little memory: the same "
    "command goes on from the newest checkpoint"
)


def fresh_store() -> tuple[dist.Store, int, int]:
    """A store that no earlier attempt has written to, the rank of this process, and their number.

    torchrun keeps one store for all attempts of `--max-restarts`, and in it the addresses of processes
    that are gone. So the main process draws a name, and each of the others learns it by an answer to a
    name of its own. Raises ValueError if they do not all arrive.
    """
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=ARRIVAL))
        store.set_timeout(ARRIVAL)
        mine = uuid.uuid4().hex
        if rank == 0:
            _answer(store, mine, size)
            return dist.PrefixStore(mine, store), rank, size
        store.set(f"asks {rank}", mine)
        name = store.get(f"answer to {mine}").decode()
        store.set(f"{name} has {rank}", "")
    except dist.DistError as error:
        raise ValueError(
            f"not all processes have started within {duration(ARRIVAL.seconds)} ({error}): look for "
            f"the error of the one that is missing, and start them again"
        ) from error
    return dist.PrefixStore(name, store), rank, size


def _answer(store: dist.Store, name: str, size: int) -> None:
    """Tells all others the name; a question of an earlier attempt is answered too, and nobody hears."""
    missing, ends = set(range(1, size)), time.monotonic() + ARRIVAL.total_seconds()
    while missing:
        for rank in missing:
            store.set(f"answer to {store.get(f'asks {rank}').decode()}", name)
        missing = {rank for rank in missing if not store.check([f"{name} has {rank}"])}
        if missing and time.monotonic() > ends:
            raise dist.DistStoreError(f"no word of processes {sorted(missing)}")
        time.sleep(0.01)


@contextmanager
def first_failure_named(store: dist.Store, rank: int) -> Iterator[None]:
    """Every process that fails inside names the error of the first of them.

    In that process its own error goes on, with a note unless the main process has the same. The others
    mostly notice that their connection broke: they raise PeerError.
    """
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        lost = _is_lost_connection(error)
        first = _first_failure(store, rank, "" if lost else str(error) or type(error).__name__)
        if lost:
            raise PeerError(f"process {first[0]} failed first: {first[1]}" if first else LOST) from error
        if first and first[0] == rank != 0:
            error.add_note(f"process {rank} failed first")
        raise


def _first_failure(store: dist.Store, rank: int, sentence: str) -> tuple[int, str] | None:
    """Rank and sentence of what failed first, perhaps this process with this sentence, unless empty.

    None if nobody is known to have failed, or the main process has failed with the same sentence.
    """
    try:
        store.set_timeout(NEWS)
        if sentence and rank == 0:
            store.set(MAIN, sentence)
        if sentence:
            store.compare_set(FIRST, "", f"{rank} {sentence}")
        if not store.check([FIRST]):
            return None
        where, _, first = store.get(FIRST).decode().partition(" ")
        if sentence and where == str(rank) != "0":
            with suppress(dist.DistStoreError):
                if store.get(MAIN).decode() == sentence:
                    return None
        return int(where), first
    except dist.DistError:  # the process that holds the store is gone
        return None


def _is_lost_connection(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )
