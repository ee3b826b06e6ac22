from math import comb

import numpy as np
import pytest
from pydantic import ValidationError

from voxelseg.errors import ConfigError
from voxelseg.pretrain.masks import MaskSettings, draw_blocks, draw_mask, usable_sizes

CROP = (12, 16, 24)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def masked_counts(draws: int, **settings: object) -> np.ndarray:
    """Masked slices of 96 in each of so many draws; slices of 2 x 2 voxels, which change nothing about that."""
    draw, chosen = generator(), MaskSettings(**settings)
    return np.array([draw_mask(chosen, (96, 2, 2), 0, draw).slices.sum() for _ in range(draws)])


def test_nine_chains_of_five_mask_37_of_96_slices_on_average():
    # A slice stays visible if none of it and the four after it is among the 9 seeds of 96. The last slices have fewer
    # after them.
    after = [min(5, 96 - position) for position in range(96)]
    mean = sum(1 - comb(96 - size, 9) / comb(96, 9) for size in after)
    assert mean == pytest.approx(37.25, abs=0.01)
    counts = masked_counts(5000)
    assert counts.mean() == pytest.approx(mean, abs=0.2)  # four standard errors
    assert counts.std() == pytest.approx(3.6, abs=0.1)
    assert 20 <= counts.min() <= 25
    assert 43 <= counts.max() <= 45  # 9 chains of 5 that do not meet


def test_bernoulli_seeds_spread_three_times_as_much_and_never_mask_nothing():
    # Slices are no seeds with probability 0.9 each: 1 - 0.9^5 = 0.41 of those with four after them are masked.
    counts = masked_counts(3000, seeds="bernoulli")
    assert counts.mean() == pytest.approx(38.8, abs=0.8)
    assert 9 < counts.std() < 11
    rare = masked_counts(200, seeds="bernoulli", seed_share=0.001)
    assert rare.min() >= 1


def test_a_chain_ends_at_its_seed_and_is_cut_off_where_the_crop_begins():
    settings = MaskSettings(seed_share=0.05, chain_length=3)  # one seed among 12 slices
    seen = set()
    for seed in range(200):
        (masked,) = np.nonzero(draw_mask(settings, CROP, 0, generator(seed)).slices)
        last = masked[-1]
        assert masked.tolist() == list(range(max(0, last - 2), last + 1))
        seen.add(int(last))
    assert seen == set(range(12))


@pytest.mark.parametrize(("share", "slices", "seeds"), [(0.29, 100, 29), (0.1, 96, 9), (0.1, 9, 1), (0.1, 8, 1)])
def test_the_number_of_seeds_is_rounded_down_but_never_0(share, slices, seeds):
    settings = MaskSettings(seed_share=share, chain_length=1)
    assert draw_mask(settings, (slices, 2, 2), 0, generator()).slices.sum() == seeds


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_masked_slices_hide_voxels_whichever_axis_they_follow(axis):
    settings = MaskSettings(chain_length=2, ensure_masked=True)
    for seed in range(20):
        mask = draw_mask(settings, CROP, axis, generator(seed))
        assert mask.hidden.shape == CROP
        assert mask.hidden.flags.c_contiguous
        in_slice = tuple(other for other in range(3) if other != axis)
        assert mask.hidden.any(axis=in_slice).tolist() == mask.slices.tolist()
        assert mask.slices.shape == (CROP[axis],)


def test_seven_in_ten_voxels_of_masked_slices_are_hidden():
    hidden = masked = 0
    for seed in range(300):
        mask = draw_mask(MaskSettings(), (96, 32, 64), 0, generator(seed))
        hidden += int(mask.hidden.sum())
        masked += int(mask.slices.sum()) * 32 * 64
    assert hidden / masked == pytest.approx(0.7, abs=0.01)


def test_a_slice_has_patches_of_one_size_and_each_size_occurs():
    # Patches of 8 are constant in blocks of 4, too, but those of 4 not in blocks of 8.
    settings = MaskSettings(patch_sizes=(4, 8), chain_length=1, seed_share=0.9)
    mask = draw_mask(settings, (100, 16, 24), 0, generator())
    chosen = mask.hidden[mask.slices]

    def in_blocks(size: int) -> np.ndarray:
        blocks = chosen.reshape(len(chosen), 16 // size, size, 24 // size, size)
        return (blocks.all(axis=(2, 4)) | ~blocks.any(axis=(2, 4))).all(axis=(1, 2))

    assert in_blocks(4).all()
    assert 0.3 < in_blocks(8).mean() < 0.7


def test_a_whole_slice_stays_visible_three_times_in_ten_unless_it_is_to_be_masked():
    share = {}
    for ensure in (False, True):
        settings = MaskSettings(patch_sizes=(96,), ensure_masked=ensure, seed_share=0.99, chain_length=1)
        mask = draw_mask(settings, (2000, 2, 4), 0, generator())
        whole = mask.hidden[mask.slices].reshape(-1, 8)
        assert (whole.all(axis=1) | ~whole.any(axis=1)).all()
        share[ensure] = whole.all(axis=1).mean()
    assert share == {False: pytest.approx(0.7, abs=0.05), True: 1}


PAPER = (1, 2, 4, 8, 16, 32, 96)


@pytest.mark.parametrize(
    ("slice_size", "usable"),
    [
        ((96, 96), PAPER),
        ((48, 32), (1, 2, 4, 8, 16, 96)),  # 96 is the whole slice
        ((40, 56), (1, 2, 4, 8, 96)),
        ((160, 192), (1, 2, 4, 8, 16, 32)),
        ((35, 53), PAPER),  # odd: patches at the ends are cut off
        ((34, 50), (1, 2, 96)),
    ],
)
def test_sizes_divide_the_slice_or_hold_it_whole(slice_size, usable):
    assert usable_sizes(PAPER, slice_size) == usable


def test_odd_slices_are_masked_in_patches_that_are_cut_off():
    settings = MaskSettings(patch_sizes=(4,), chain_length=1)
    mask = draw_mask(settings, (10, 5, 7), 0, generator())
    (chosen,) = mask.hidden[mask.slices]  # patches of 4 x 4, 4 x 3, 1 x 4, 1 x 3
    assert all(len(np.unique(part)) == 1 for part in (chosen[:4, :4], chosen[:4, 4:], chosen[4:, :4], chosen[4:, 4:]))


def test_the_same_generator_draws_the_same_mask():
    for settings in (MaskSettings(), MaskSettings(kind="blocks", block_size=(4, 4, 4))):
        first, again, other = (draw_mask(settings, CROP, 1, generator(seed)) for seed in (1, 1, 2))
        assert (first.hidden == again.hidden).all()
        assert (first.hidden != other.hidden).any()


def test_blocks_hide_an_exact_share_in_boxes():
    hidden = draw_blocks((8, 12, 10), (4, 4, 5), 0.6, generator())
    # 2 x 3 x 2 blocks: 0.6 of 12 is 7.2, so 7 are hidden, of 80 voxels each
    assert hidden.sum() == 7 * 80
    blocks = hidden.reshape(2, 4, 3, 4, 2, 5)
    assert (blocks.all(axis=(1, 3, 5)) | ~blocks.any(axis=(1, 3, 5))).all()


def test_blocks_are_cut_off_at_the_far_ends_and_mark_the_slices_they_touch():
    settings = MaskSettings(kind="blocks", block_size=(4, 4, 4), hidden_share=0.05)
    mask = draw_mask(settings, (6, 7, 9), 2, generator(3))  # 2 x 2 x 3 blocks, one of them hidden
    (planes,) = np.nonzero(mask.slices)
    assert planes.tolist() in ([0, 1, 2, 3], [4, 5, 6, 7], [8])
    assert mask.hidden.any(axis=(0, 1)).tolist() == mask.slices.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "blocks", "chain_length": 3},
        {"kind": "blocks", "seeds": "bernoulli"},
        {"block_size": (8, 8, 8)},
        {"seed_share": 0.0},
        {"hidden_share": 1.0},
        {"patch_sizes": ()},
        {"patch_sizes": (4, 4)},
        {"patch_sizes": (0,)},
        {"chain": 3},
    ],
)
def test_impossible_and_idle_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        MaskSettings(**wrong)


def test_masks_that_can_hide_all_of_a_crop_are_refused():
    settings = MaskSettings()
    settings.check((6, 2, 2), 0)
    with pytest.raises(
        ConfigError, match=r"chain of 5 masked slices can hide all 5 slices of a crop along H.*slice_axis"
    ):
        settings.check((9, 5, 9), 1)
    blocks = MaskSettings(kind="blocks")
    blocks.check((16, 32, 32), 0)
    with pytest.raises(ConfigError, match=r"1 block\(s\) of 16 x 16 x 16 voxels make a crop of 12 x 16 x 8.*smaller"):
        blocks.check((12, 16, 8), 0)
