"""Images that are moved and mirrored at random: by as much as asked for, each on its own, and as they are seeded."""

import pytest
import torch

from tightlip.data.augmentation import augmentation, random_flip, random_shift


def test_random_shift_moves_each_image_by_at_most_so_many_pixels():
    x = torch.zeros(200, 1, 5, 5)
    x[:, :, 2, 2] = 1.0
    moved = random_shift(x, torch.Generator().manual_seed(0), pixels=1)
    places = {tuple(place) for place in moved.nonzero()[:, 2:].tolist()}
    assert places == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(200))
    assert torch.equal(random_shift(x, torch.Generator(), pixels=0), x)


def test_random_shift_lets_zeros_in_and_keeps_channels_together():
    x = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).float() + 1
    moved = random_shift(x.repeat(50, 1, 1, 1), torch.Generator().manual_seed(0), pixels=2)
    gap = moved[:, 1:] - moved[:, :1]
    assert set(gap.unique().tolist()) == {0.0, 16.0, 32.0} and (moved == 0).any()


def test_random_flip_mirrors_about_half_of_the_images_left_to_right_and_leaves_the_others():
    x = torch.rand(400, 3, 4, 5)
    flipped = random_flip(x, torch.Generator().manual_seed(0))
    same, mirrored = ((flipped == y).flatten(1).all(1) for y in (x, x.flip(3)))
    assert (same ^ mirrored).all() and 150 < int(mirrored.sum()) < 250
    assert torch.equal(random_flip(x, torch.Generator().manual_seed(0)), flipped)


@pytest.mark.parametrize(("pixels", "flip", "places"), [(0, True, 2), (1, False, 9), (2, True, 30)])
def test_an_augmentation_moves_and_mirrors_as_it_is_asked_to(pixels, flip, places):
    """One bright pixel beside the middle: it lands in the square around it, and in that of its mirror image."""
    x = torch.zeros(2000, 1, 7, 8)
    x[:, :, 3, 3] = 1.0
    moved = augmentation(pixels, flip)(x, torch.Generator().manual_seed(0))
    assert len({tuple(place) for place in moved.nonzero()[:, 2:].tolist()}) == places
    assert augmentation(0, False) is None
