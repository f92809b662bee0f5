"""Which images are looked at: some of every folder."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unmask.data.images import Images
from unmask.data.paths import PathList
from unmask.data.split import spread


def images(counts: dict[str, int]) -> Images:
    paths = [f"/data/{folder}/{i}.png" for folder, count in counts.items() for i in range(count)]
    return Images("some", PathList(paths))


def folders(found: Images, chosen: np.ndarray) -> list[str]:
    return [found.paths[i].split("/")[2] for i in chosen]


def test_every_folder_in_turn():
    found = images({"a": 100, "b": 3, "c": 1})
    chosen = spread(found, 8)
    assert sorted(folders(found, chosen[:3])) == ["a", "b", "c"]
    assert sorted(folders(found, chosen[:5])) == ["a", "a", "b", "b", "c"]
    assert folders(found, chosen).count("b") == 3, "all of it"
    assert chosen.tolist() != sorted(chosen.tolist())


def test_one_file_is_not_read_from_its_beginning():
    found = Images("digits", PathList(f"digits.csv#{i}" for i in range(5000)))
    chosen = spread(found, 8)
    assert chosen.max() > 2500
    assert len(set(chosen // 500)) >= 5, "of digits sorted by class, several classes"


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1), st.integers(0, 30))
def test_so_many_and_a_beginning_of_more(counts, count):
    found = images(counts)
    chosen = spread(found, count).tolist()
    assert len(set(chosen)) == len(chosen) == min(count, len(found))
    assert spread(found, count + 1).tolist()[: len(chosen)] == chosen
