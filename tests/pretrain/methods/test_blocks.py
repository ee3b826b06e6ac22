import numpy as np
import pytest
import torch
from pretexts import SmoothCrops

from voxelseg.errors import ConfigError
from voxelseg.pretrain.methods.blocks import MaskedBlocks, as_shape, masked_blocks, usual_blocks


def test_the_share_of_blocks_is_masked_in_all_channels_at_once():
    drawer = MaskedBlocks((4, 4, 4), 0.5)
    sample = drawer(SmoothCrops((8, 12, 8)), np.random.default_rng(0))
    assert sample["image"].shape == (2, 8, 12, 8)
    assert sample["mask"].shape == (1, 8, 12, 8)
    blocks = sample["mask"][0].unfold(0, 4, 4).unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).float().mean(-1)
    assert set(blocks.flatten().tolist()) == {0.0, 1.0}
    assert blocks.sum() == 6  # of 2 x 3 x 2 blocks


def test_a_sample_is_what_its_generator_says():
    drawer, crops = MaskedBlocks((4, 4, 4), 0.5), SmoothCrops()
    first, again, other = (drawer(crops, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mask"], other["mask"])


def test_one_number_stands_for_all_axes():
    assert as_shape(3) == (3, 3, 3)
    assert as_shape((1, 2, 3)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("crop", "blocks"),
    [
        ((96, 96, 96), (16, 16, 16)),
        ((64, 128, 63), (16, 16, 8)),
        ((32, 48, 32), (8, 8, 8)),  # 96 of them; of 16 voxels there would be 12
        ((16, 160, 160), (4, 16, 16)),  # thick slices
        ((8, 7, 3), (2, 1, 1)),
    ],
)
def test_four_blocks_fit_along_each_axis_unless_their_sides_are_said(crop, blocks):
    assert usual_blocks(crop) == blocks
    assert masked_blocks("mae", "block", None, 0.75, crop).block_size == blocks
    assert masked_blocks("mae", "block", (3, 2, 1), 0.5, crop).block_size == (3, 2, 1)


def test_blocks_of_which_none_stays_visible_are_refused_with_what_to_set():
    assert masked_blocks("mae", "block", 16, 0.5, (32, 16, 16)) == MaskedBlocks((16, 16, 16), 0.5)
    with pytest.raises(ConfigError, match=r"mae\.block: .* has 1 block of 16 x 16 x 16.* mae\.block=8"):
        masked_blocks("mae", "block", 16, 0.5, (16, 16, 16))
