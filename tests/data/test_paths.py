"""Many paths in one buffer, and what is told by their names."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unmask.data import paths as module
from unmask.data.images import Images
from unmask.data.paths import PathList

ODD = "a/é\udcff漢\0 "
paths = st.lists(st.text(st.sampled_from(ODD), max_size=6), max_size=12)


@given(paths, st.lists(st.integers(0, 11)))
def test_take(names, chosen):
    chosen = [i for i in chosen if i < len(names)]
    assert list(PathList(names).take(chosen)) == [names[i] for i in chosen]
    assert list(PathList(names).take(range(1, len(names)))) == names[1:]


@given(st.lists(paths, max_size=4))
def test_joined(lists):
    joined = PathList.joined([PathList(names) for names in lists])
    assert list(joined) == [name for names in lists for name in names]
    assert [joined[i] for i in range(len(joined))] == list(joined)


@given(paths, st.text(st.sampled_from(ODD), max_size=9))
def test_shared(names, front):
    names = [front + name for name in names]
    encoded = [name.encode("utf-8", "surrogateescape") for name in names]
    first, last = min(encoded, default=b""), max(encoded, default=b"")
    same = [a == b for a, b in zip(first, last, strict=False)]
    assert PathList(names).shared() == first[: [*same, False].index(False)]


def test_pieces_do_not_part_a_list(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 3)
    names = [f"/a/b{i}/c.png" for i in range(10)]
    assert list(PathList(names)) == names
    assert PathList(names).shared() == b"/a/b"
    assert PathList([*names, "/x"]).shared() == b"/"
    assert [len(piece) for piece in PathList(names).pieces()] == [3, 3, 3, 1]
    assert next(PathList(names).pieces(skip=5))[0] == b"/c.png"


def test_fingerprints_and_splits_of_earlier_runs_hold():
    """Both are stored with runs: for the same names they never change."""
    names = [f"/some/where/{c}/é{i:03d} \udcff.png" for c in ("a", "b-", "b") for i in range(40)]
    images = Images("x", PathList(names))
    assert images.fingerprint() == FINGERPRINT
    training, aside = images.split(5)
    assert list(aside.paths) == [f"/some/where/{name} \udcff.png" for name in HELD_OUT]
    assert list(training.paths) == [name for name in names if name not in set(aside.paths)]
    alone = images.subset(np.array([7]))
    assert list(alone.names()) == ["é007 \udcff.png"]


FINGERPRINT = "120 images, names 25b03fa6"
HELD_OUT = ("a/é009", "a/é027", "b-/é016", "b/é022", "b/é030")


def test_what_a_source_is_called():
    """Two data sets that are each described by a data.yaml are not one."""
    assert module.slug("/data/my images/") == "my-images"
    assert module.slug("/data/cats.csv") == "cats.csv"
    assert module.slug("/data/cats/data.yaml") == "cats-data"
