"""Fault 27: a later attempt reads nothing of an earlier one, and the first failure is named."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from unmask.distributed import store as stores
from unmask.distributed.store import LOST, first_failure_named, fresh_store
from unmask.errors import DataError, PeerError


def attempt(monkeypatch, shared: dist.Store, size: int = 3) -> list[dist.Store]:
    """The stores that so many processes get, here in threads."""
    ranks = iter(range(size))
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: iter([(shared, next(ranks), size)]))
    with ThreadPoolExecutor(size) as pool:
        found = [future.result() for future in [pool.submit(fresh_store) for _ in range(size)]]
    return [store for store, _, _ in sorted(found, key=lambda one: one[1])]


def test_27_attempts_share_nothing(monkeypatch):
    shared = dist.HashStore()
    first = attempt(monkeypatch, shared)
    first[0].set("address", "of the first attempt")
    assert all(store.get("address") == b"of the first attempt" for store in first)
    second = attempt(monkeypatch, shared)
    assert not any(store.check(["address"]) for store in second)
    second[2].set("address", "of the second")
    assert second[0].get("address") == second[1].get("address") == b"of the second"


def test_27_a_process_that_does_not_arrive(monkeypatch):
    monkeypatch.setattr(stores, "ARRIVAL", stores.NEWS)
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: iter([(dist.HashStore(), 0, 2)]))
    with pytest.raises(ValueError, match="not all processes have started"):
        fresh_store()


def failing(store: dist.Store, rank: int, error: Exception) -> Exception:
    """What a process raises in place of an error."""
    with pytest.raises(Exception) as found, first_failure_named(store, rank):  # noqa: PT011
        raise error
    return found.value


def test_27_the_first_failure_is_named():
    store, lost = dist.HashStore(), RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed")
    assert str(failing(store, 0, lost)) == LOST
    error = failing(store, 2, DataError("no images"))
    assert isinstance(error, DataError)
    assert error.__notes__ == ["process 2 failed first"]
    for rank in (0, 1):
        error = failing(store, rank, lost)
        assert isinstance(error, PeerError)
        assert str(error) == "process 2 failed first: no images"


def test_a_mistake_of_all_processes_is_the_main_ones():
    store = dist.HashStore()
    with ThreadPoolExecutor(2) as pool:
        other, main = (pool.submit(failing, store, rank, ValueError("a flag")) for rank in (1, 0))
    assert str(other.result()) == str(main.result()) == "a flag"
    assert not hasattr(other.result(), "__notes__")
