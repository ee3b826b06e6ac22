import numpy as np
import pytest
import torch
from pretexts import SIZE, SmoothCrops, drawn, means, prepared, small_pretext, trained

from voxelseg.errors import ConfigError
from voxelseg.pretrain.methods.rubik import DisarrangedCrops, Move, draw_moves, moved, possible_turns

COUNTED = torch.arange(4 * 4 * 4).view(1, 4, 4, 4)


def test_a_move_turns_one_slab_and_leaves_the_others():
    turned = moved(COUNTED, Move(axis=0, slab=1, quarter_turns=1), (2, 2, 2))
    assert torch.equal(turned[:, :2], COUNTED[:, :2])
    assert torch.equal(turned[:, 2:], COUNTED[:, 2:].rot90(1, (2, 3)))
    assert torch.equal(COUNTED, torch.arange(64).view(1, 4, 4, 4))


def test_content_moves_with_its_cube():
    # Cubes of 2 x 2 x 2. About D by 90 degrees, the cube at (H, W) = (0, 1) goes to (0, 0), turned itself.
    turned = moved(COUNTED, Move(axis=0, slab=0, quarter_turns=1), (2, 2, 2))
    cube = COUNTED[:, :2, :2, 2:]
    assert torch.equal(turned[:, :2, :2, :2], cube.rot90(1, (2, 3)))


def test_a_half_turn_mirrors_both_axes_though_their_sides_differ():
    volume = torch.arange(2 * 4 * 6).view(1, 2, 4, 6)
    turned = moved(volume, Move(axis=1, slab=0, quarter_turns=2), (1, 2, 3))
    assert torch.equal(turned[:, :, :2], volume[:, :, :2].flip((1, 3)))
    assert torch.equal(turned[:, :, 2:], volume[:, :, 2:])


@pytest.mark.parametrize(
    ("size", "cubes", "turns"),
    [
        ((8, 8, 8), (2, 2, 2), [(1, 2, 3)] * 3),
        ((4, 8, 8), (2, 2, 2), [(1, 2, 3), (2,), (2,)]),  # only H and W are equal: quarter-turns about D
        ((8, 8, 8), (2, 4, 4), [(1, 2, 3), (2,), (2,)]),  # equal sides, but other numbers of cubes
        ((8, 8, 8), (1, 2, 2), [(), (2,), (2,)]),  # a single slab along D
    ],
)
def test_quarter_turns_need_equal_sides_and_numbers(size, cubes, turns):
    assert [possible_turns(size, cubes, axis) for axis in range(3)] == turns


def test_moves_are_drawn_of_all_axes_slabs_and_turns_that_are_possible():
    moves = draw_moves((8, 8, 8), (2, 2, 2), 500, np.random.default_rng(0))
    assert len(moves) == 500
    assert len(set(moves)) == 3 * 2 * 3
    flat = draw_moves((4, 8, 8), (1, 2, 2), 200, np.random.default_rng(0))
    assert {(move.axis, move.quarter_turns) for move in flat} == {(1, 2), (2, 2)}


def test_no_voxel_is_lost_and_moves_in_reverse_restore_the_crop():
    crops, generator = SmoothCrops(), np.random.default_rng(0)
    sample = DisarrangedCrops((2, 2, 2), 5)(crops, np.random.default_rng(0))
    assert not torch.equal(sample["image"], sample["mixed"])
    assert torch.equal(sample["image"].flatten().sort().values, sample["mixed"].flatten().sort().values)
    crops.random(generator)
    restored = sample["mixed"]
    for move in reversed(draw_moves(SIZE, (2, 2, 2), 5, generator)):
        restored = moved(restored, Move(move.axis, move.slab, 4 - move.quarter_turns), (2, 2, 2))
    assert torch.equal(restored, sample["image"])


@pytest.mark.parametrize(("loss", "power"), [("l1", 1), ("l2", 2)])
def test_the_loss_is_over_all_voxels(loss, power):
    pretext, method = small_pretext("rubik", cubes=2, loss=loss), prepared("rubik", cubes=2, loss=loss)
    batch = drawn(method, 2)
    with torch.no_grad():
        pretext.eval()
        wanted = float((pretext.restored(batch) - batch["image"]).abs().pow(power).mean())
        assert pretext(batch) == pytest.approx(wanted, rel=1e-5)


def test_it_learns_to_restore_better_than_guesses_do():
    pretext, batch = small_pretext("rubik", cubes=2), drawn(prepared("rubik", cubes=2), 2)
    losses = trained(pretext, lambda _: batch, 80)
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        scores = means(pretext.eval().scores(batch))
    assert scores["error"] < min(scores["error of the mean"], scores["error of the disarranged crop"])


def test_pictures_show_the_crop_before_and_after_and_restored():
    pretext, batch = small_pretext("rubik", cubes=2).eval(), drawn(prepared("rubik", cubes=2), 2)
    with torch.no_grad():
        pictures = pretext.pictures(batch)
    assert {name: picture.shape for name, picture in pictures.items()} == {
        "Scan": SIZE,
        "Disarranged": SIZE,
        "Restored": SIZE,
    }
    assert torch.equal(pictures["Disarranged"], batch["mixed"][0, 0])


def test_cubes_that_do_not_divide_the_crop_are_refused_with_those_that_do():
    with pytest.raises(ConfigError, match=r"rubik\.cubes=\[5, 5, 5\].* 1, 2, 4, 8; 1, 2, 3, 4, 6; 1, 2, 4, 8"):
        prepared("rubik", SIZE, cubes=5)


def test_a_single_cube_is_refused():
    with pytest.raises(ConfigError, match="no slabs"):
        prepared("rubik", SIZE, cubes=1)
    with pytest.raises(ConfigError, match="no slabs"):
        prepared("rubik", (7, 5, 11))


def test_crops_are_cut_into_four_along_each_axis_or_into_fewer_where_that_does_not_divide_them():
    assert prepared("rubik", (96, 96, 96)).drawer.cubes == (4, 4, 4)
    assert prepared("rubik", (14, 45, 13)).drawer.cubes == (2, 3, 1)
