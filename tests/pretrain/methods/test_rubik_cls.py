from math import log

import numpy as np
import pytest
import torch
from pretexts import SmoothCrops, drawn, means, prepared, small_pretext, surroundings, trained

from voxelseg.errors import ConfigError
from voxelseg.pretrain.methods import METHODS
from voxelseg.pretrain.methods.rubik_cls import TurnedCubes, cut_cubes, half_turned

SIZE = (18, 20, 22)
SETTINGS = {"gap": 2, "permutations": 4}
IN_ORDER = tuple(range(8))


def test_cubes_are_the_corners_with_a_gap_between_them():
    image = torch.arange(6 * 7 * 8).view(1, 6, 7, 8)
    cubes = cut_cubes(image, (2, 1, 2))
    assert len(cubes) == 8
    assert torch.equal(cubes[0], image[:, :2, :3, :3])
    assert torch.equal(cubes[1], image[:, :2, :3, 5:])  # W first
    assert torch.equal(cubes[2], image[:, :2, 4:, :3])
    assert torch.equal(cubes[7], image[:, 4:, 4:, 5:])


def test_half_turns_mirror_two_axes_each():
    cube = torch.arange(2 * 3 * 4).view(1, 2, 3, 4)
    assert torch.equal(half_turned(cube, np.array([False, False])), cube)
    assert torch.equal(half_turned(cube, np.array([True, False])), cube.flip((1, 2)))  # about W
    assert torch.equal(half_turned(cube, np.array([False, True])), cube.flip((2, 3)))  # about D
    assert torch.equal(half_turned(cube, np.array([True, True])), cube.flip((1, 3)))  # together: about H


def test_places_hold_the_cubes_that_the_permutation_names():
    order = (7, 0, 1, 2, 3, 4, 5, 6)
    sample = TurnedCubes((order,), (2, 2, 2), turn=0.0, mask=0.0)(SmoothCrops(SIZE), np.random.default_rng(0))
    cubes = cut_cubes(torch.from_numpy(SmoothCrops(SIZE).random(np.random.default_rng(0))), (2, 2, 2))
    assert sample["cubes"].shape == (8, 2, 8, 9, 10)
    assert torch.equal(sample["cubes"][0], cubes[7])
    assert torch.equal(sample["cubes"][1], cubes[0])
    assert not sample["turns"].any()
    assert sample["permutation"] == 0


def test_turns_come_with_the_cubes():
    sample = TurnedCubes((IN_ORDER,), (2, 2, 2), turn=0.5, mask=0.0)(SmoothCrops(SIZE), np.random.default_rng(0))
    cubes = cut_cubes(torch.from_numpy(SmoothCrops(SIZE).random(np.random.default_rng(0))), (2, 2, 2))
    assert 0 < sample["turns"].mean() < 1
    for placed, cube, turns in zip(sample["cubes"], cubes, sample["turns"].numpy() > 0, strict=True):
        assert torch.equal(placed, half_turned(cube, turns))


def test_half_of_the_blocks_of_masked_cubes_are_zero_in_all_channels():
    drawer, still = (TurnedCubes((IN_ORDER,), (2, 4, 2), turn=0.0, mask=mask) for mask in (0.5, 0.0))
    crops = SmoothCrops((18, 20, 18))
    masked, whole = (one(crops, np.random.default_rng(1)) for one in (drawer, still))
    assert 0 < masked["masked"].sum() < 8
    for cube, before, hidden in zip(masked["cubes"], whole["cubes"], masked["masked"], strict=True):
        changed = (cube != before).any(0)
        assert changed.float().mean() == 0.5 * hidden  # 2 x 2 x 2 blocks of 4 voxels each
        assert not cube[:, changed].any()


def test_masks_are_asked_for_if_there_are_any():
    settings = {**SETTINGS, "mask": 0.25}
    pretext, batch = (
        small_pretext("rubik-cls", SIZE, **settings),
        drawn(prepared("rubik-cls", SIZE, **settings), 2, SIZE),
    )
    loss = pretext(batch)
    assert set(pretext.parts) == {"permutation", "turns", "masked"}
    assert float(loss.detach()) == pytest.approx(float(sum(pretext.parts.values())), rel=1e-5)
    with torch.no_grad():
        scores = means(pretext.scores(batch))
    assert scores["masked accuracy by chance"] == 0.75


def test_without_turns_the_permutation_alone_is_asked_for():
    settings = {**SETTINGS, "turn": 0.0}
    pretext = small_pretext("rubik-cls", SIZE, **settings)
    pretext(drawn(prepared("rubik-cls", SIZE, **settings), 2, SIZE))
    assert set(pretext.parts) == {"permutation"}


def test_it_learns_places_and_turns():
    pretext, method = small_pretext("rubik-cls", SIZE, **SETTINGS), prepared("rubik-cls", SIZE, **SETTINGS)
    batch = drawn(method, 2, SIZE)
    losses = trained(pretext, lambda _: batch, 30, rate=3e-3)
    assert losses[0] == pytest.approx(log(4) + log(2), rel=0.3)  # of guessing
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        scores = means(pretext.eval().scores(batch))
    assert scores["permutation accuracy"] == 1
    assert scores["permutation accuracy by chance"] == 1 / 4
    assert scores["turns accuracy"] > 0.8
    assert scores["turns accuracy by chance"] == 1 / 2
    assert not any("masked" in name for name in scores)
    assert scores["score"] > 0.4


def test_a_head_that_says_all_is_equally_likely_scores_nothing():
    pretext = small_pretext("rubik-cls", SIZE, **SETTINGS).eval()
    for layer in (pretext.permutation, pretext.answers["turns"]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        batch = drawn(prepared("rubik-cls", SIZE, **SETTINGS), 3, SIZE)
        assert float(pretext(batch)) == pytest.approx(log(4) + log(2))
        assert means(pretext.scores(batch))["score"] == pytest.approx(0, abs=1e-6)


def test_decoders_are_not_trained():
    pretext = small_pretext("rubik-cls", SIZE, **SETTINGS)
    frozen = [name for name, parameter in pretext.named_parameters() if not parameter.requires_grad]
    assert all(name.startswith(("backbone.up", "backbone.decoder", "backbone.heads")) for name in frozen)
    pretext(drawn(prepared("rubik-cls", SIZE, **SETTINGS), 2, SIZE)).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in pretext.parameters())


def test_the_seed_chooses_the_permutations():
    orders = prepared("rubik-cls", SIZE, **SETTINGS).drawer.orders
    assert orders == prepared("rubik-cls", SIZE, **SETTINGS).drawer.orders
    method = METHODS["rubik-cls"]
    assert orders != method.prepare(method.settings(**SETTINGS), surroundings(SIZE, seed=1)).drawer.orders
    assert len(set(orders)) == 4


def test_the_papers_hundred_permutations_differ_in_six_places_or_more():
    orders = np.array(prepared("rubik-cls", SIZE, gap=2).drawer.orders)
    distances = (orders[:, None] != orders).sum(-1)
    assert distances[~np.eye(100, dtype=bool)].min() == 6


def test_more_permutations_than_differ_in_six_places_are_refused():
    with pytest.raises(ValueError, match="less than or equal to 336"):
        prepared("rubik-cls", SIZE, permutations=337)


def test_the_gap_is_ten_voxels_or_a_quarter_of_a_short_axis():
    assert prepared("rubik-cls", (96, 40, 16), permutations=2).drawer.gap == (10, 10, 4)


def test_a_gap_that_leaves_too_little_is_refused_with_the_cubes_that_it_leaves():
    with pytest.raises(ConfigError, match=r"rubik_cls\.gap=\[16, 16, 16\].*1 x 2 x 3"):
        prepared("rubik-cls", SIZE, gap=16)
