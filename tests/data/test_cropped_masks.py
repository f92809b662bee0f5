"""Masks cut to their objects are the same masks."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data.cropped_masks import CroppedMasks, cropped


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(0, 6), st.integers(1, 12), st.integers(1, 12), st.integers(0, 9)
)
def test_any_of_any_masks_are_found_again(seed, count, height, width, asked):
    """Empty ones, whole ones and what touches an edge; in any order, twice, or none."""
    rng = torch.Generator().manual_seed(seed)
    share = torch.rand(count, 1, 1, generator=rng) ** 3
    masks = torch.rand(count, height, width, generator=rng) < share
    ours = CroppedMasks.of([cropped(mask) for mask in masks], (height, width))
    index = torch.randint(max(1, count), (asked if count else 0,), generator=rng)
    assert len(ours) == count
    assert ours[index].equal(masks[index])
    assert ours.to("cpu", non_blocking=True)[index].equal(masks[index])


def test_they_take_the_room_of_their_objects():
    masks = torch.zeros(3, 100, 200, dtype=torch.bool)
    masks[0, 10:14, 20:25] = masks[2, 99, 199] = True
    ours = CroppedMasks.of([cropped(mask) for mask in masks], (100, 200))
    assert ours.windows.tolist() == [[10, 20, 4, 5], [0, 0, 0, 0], [99, 199, 1, 1]]
    assert ours.pixels.untyped_storage().nbytes() == 4 * 5 + 1
    assert cropped(masks[0]).pixels.untyped_storage().nbytes() == 4 * 5
