"""Advice by how fast correlation falls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.config.advice import advised, advised_patch, advised_ratio, advised_side, expected


def test_the_papers_own_point():
    assert advised_patch((224, 224), 6.6, 16) == 16
    assert advised_ratio(16, 6.6) == 0.75


@pytest.mark.parametrize(
    ("half", "patch", "ratio"),
    [(0.5, 6, 0.5), (2.5, 6, 0.75), (3.3, 8, 0.75), (5.2, 12, 0.75), (7, 16, 0.75), (12, 16, 0.9)],
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


@pytest.mark.parametrize(("half", "patch"), [(2.5, 6), (2.7, 8), (4.1, 8), (4.5, 12)])
def test_a_recipes_own_patch_is_kept_if_it_is_near(half, patch):
    assert advised_patch((96, 96), half, 8) == patch


def test_images_are_not_enlarged():
    assert advised_side(96, (3000, 4000)) == 96
    assert advised_side(96, (75, 300)) == 72
    assert advised_side(224, (28, 28)) == 24
    assert advised_side(96, (5, 9)) == 16


def test_what_to_expect():
    assert "fine texture" in expected(6, 1.1)
    assert "fine texture" in expected(2, 0.6), "noise, whatever the patch"
    assert "structure" in expected(8, 3.3)
    assert "smooth" in expected(16, 30)
