"""Advice by how fast correlation falls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.config.advice import advised, advised_patch, advised_ratio, advised_side, expected


def test_the_papers_own_point():
    assert advised_patch((224, 224), 19.5, 16) == 16
    assert advised_ratio(16, 19.5) == 0.75


@pytest.mark.parametrize(
    ("half", "patch", "ratio"),
    [(0.5, 6, 0.5), (7, 6, 0.75), (9.5, 8, 0.75), (15, 12, 0.75), (20, 16, 0.75), (35, 16, 0.9)],
)  # fmt: skip
def test_at_96_pixels(half, patch, ratio):
    found = advised(64, (96, 96), half, 8)
    assert (found.patch, found.ratio) == (patch, ratio)


@given(st.integers(2, 60), st.integers(2, 60), st.floats(0, 500))
def test_always_something_that_runs(h, w, half):
    size = (8 * h, 8 * w)
    found = advised(1, size, half, 8)
    assert size[0] % found.patch == size[1] % found.patch == 0
    assert 0.5 <= found.ratio <= 0.9
    assert len(list(found.rows())) == 3


@pytest.mark.parametrize(("half", "patch"), [(7, 6), (8, 8), (12, 8), (12.5, 12)])
def test_a_recipes_own_patch_is_kept_if_it_is_near(half, patch):
    assert advised_patch((96, 96), half, 8) == patch


def test_sizes_that_no_sensible_patch_divides():
    assert advised_patch((472, 480), 60, 16) == 8, "59 patches a side are many, but there are no fewer"
    assert advised_patch((97, 97), 9.5, 8) == 8, "whoever plans the run says that it does not divide"


def test_images_are_not_enlarged():
    assert advised_side(96, (3000, 4000)) == 96
    assert advised_side(96, (75, 300)) == 72
    assert advised_side(224, (28, 28)) == 24
    assert advised_side(96, (5, 9)) == 16
    assert advised_side(96, (100, 100), multiple=14) == 84
    assert advised_side(96, (5, 9), multiple=14) == 28


def test_what_to_expect():
    assert "fine texture" in expected(6, 1.1)
    assert "fine texture" in expected(2, 0.6), "noise, whatever the patch"
    assert "structure" in expected(8, 9.5)
    assert "smooth" in expected(16, 60)
