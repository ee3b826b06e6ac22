import pytest
import torch
from pretexts import means

from voxelseg.pretrain.methods.reconstruction import (
    VoxelHead,
    explained,
    filled_from_nearest,
    mean_error,
    sample_errors,
    visible_guesses,
)


def line(*values):
    """An image (1, 1, 1, 1, W)."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, 1, -1)


MASK = line(0, 1, 1, 0).bool()


def test_only_masked_voxels_count_and_their_number_divides():
    image, prediction = line(0, 1, 2, 9), line(5, 3, 3, 5)
    assert mean_error(prediction, image, "l1", MASK) == pytest.approx(1.5)  # (2 + 1) / 2
    assert mean_error(prediction, image, "l2", MASK) == pytest.approx(2.5)  # (4 + 1) / 2


def test_without_a_mask_all_voxels_count():
    image, prediction = line(0, 1, 2, 9), line(5, 3, 3, 5)
    assert mean_error(prediction, image, "l1") == 3  # (5 + 2 + 1 + 4) / 4
    assert sample_errors(prediction, image, "l2").tolist() == [11.5]  # (25 + 4 + 1 + 16) / 4


def test_channels_are_averaged():
    image = torch.cat((line(0, 1, 2, 9), line(0, 0, 0, 0)), dim=1)
    assert mean_error(torch.zeros_like(image), image, "l1", MASK) == pytest.approx(0.75)  # (1 + 2) / (2 voxels x 2)
    assert sample_errors(torch.zeros_like(image), image, "l1", MASK).tolist() == pytest.approx([0.75])


def test_guesses_are_the_mean_and_the_nearest_of_the_visible_voxels():
    guesses = visible_guesses(line(1, 50, 60, 70, 5), line(0, 1, 1, 1, 0).bool())
    assert guesses["the visible mean"].flatten().tolist() == [3]  # (1 + 5) / 2
    nearest = guesses["the nearest visible voxel"].flatten().tolist()
    assert nearest[:2] == [1, 1]
    assert nearest[3:] == [5, 5]


def test_where_nothing_is_visible_zeros_are_filled_in():
    images = torch.cat((line(1, 2, 3, 4), line(1, 2, 3, 4)))
    hidden = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0]]).bool().view(2, 1, 1, 4)
    filled = filled_from_nearest(images, hidden).view(2, 4)
    assert filled[0].tolist() == [0, 0, 0, 0]
    assert filled[1, 2] in (2, 4)


def test_guesses_never_see_masked_voxels():
    image, other = line(1, 2, 3, 4), line(1, 9, 9, 4)
    for one, two in zip(visible_guesses(image, MASK).values(), visible_guesses(other, MASK).values(), strict=True):
        assert torch.equal(one, two)


def scores(prediction, image, guesses, mask):
    own = sample_errors(prediction, image, "l1", mask)
    return explained(own, {name: sample_errors(guess, image, "l1", mask) for name, guess in guesses.items()})


def test_the_score_is_0_for_the_best_guess_and_1_without_error():
    image = line(0, 1, 4, 6)
    guesses = visible_guesses(image, MASK)  # mean 3: errors 2 and 1; nearest 0 and 6: errors 1 and 2; both 1.5
    best = means(scores(guesses["the visible mean"].expand_as(image), image, guesses, MASK))
    assert best["score"] == 0
    assert best["error"] == best["error of the visible mean"] == best["error of the nearest visible voxel"] == 1.5
    assert means(scores(image, image, guesses, MASK))["score"] == 1
    half = (image + guesses["the visible mean"]) / 2
    assert means(scores(half, image, guesses, MASK))["score"] == pytest.approx(0.5)


def test_each_sample_is_compared_with_its_own_best_guess():
    image = torch.cat((line(0, 0, 8, 8), line(0, 4, 4, 8)))
    mask = torch.cat((MASK, MASK))
    found = scores(torch.zeros_like(image), image, visible_guesses(image, mask), mask)
    # nearest is right in the first (error 0), the mean 4 in the second (error 0)
    assert found["score"][1] == 0
    assert found["error"] == (8.0, 2.0)  # 4 in each


def test_the_head_maps_features_of_each_voxel_to_channels():
    head = VoxelHead(3, 2)
    features = torch.randn(1, 3, 2, 3, 4)
    wanted = torch.einsum("oc,bcdhw->bodhw", head.conv.weight.flatten(1), features) + head.conv.bias.view(-1, 1, 1, 1)
    torch.testing.assert_close(head(features), wanted)
