import numpy as np
import pytest

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.predict.postprocess import Postprocessing, outside_largest

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
REGIONS = LabelScheme((LabelClass("whole", (1, 2), 1), LabelClass("core", (2,), 2)))
SHAPE = (5, 7, 9)


def label_map(**boxes):
    """Label map with `value` in each box: liver=((d, h, w), (size d, h, w)) in the order given."""
    made = np.zeros(SHAPE, np.uint8)
    for name, places in boxes.items():
        for start, size in places:
            part = tuple(slice(at, at + length) for at, length in zip(start, size, strict=True))
            made[part] = {"liver": 1, "spleen": 2}[name]
    return made


def slow_outside_largest(mask):
    """Flood fill, voxel by voxel."""
    components = []
    left = {tuple(int(i) for i in place) for place in np.argwhere(mask)}
    while left:
        seed = min(left)
        component, front = {seed}, [seed]
        left.remove(seed)
        while front:
            place = front.pop()
            near = {
                (place[0] + d, place[1] + h, place[2] + w) for d in (-1, 0, 1) for h in (-1, 0, 1) for w in (-1, 0, 1)
            }
            found = near & left
            left -= found
            component |= found
            front += found
        components.append(component)  # in the order of their first voxels
    outside = mask.copy()
    if components:
        for place in max(components, key=len):
            outside[place] = False
    return outside


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.6])
def test_the_largest_component_is_that_of_a_flood_fill(share):
    rng = np.random.default_rng(int(100 * share))
    for _ in range(10):
        mask = rng.random((6, 9, 13)) < share
        np.testing.assert_array_equal(outside_largest(mask), slow_outside_largest(mask))


def test_voxels_that_share_only_a_corner_are_connected():
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[4, 6, 7:9] = True
    assert outside_largest(mask).sum() == 2  # the diagonal of three voxels is kept


def test_of_equally_large_components_the_first_is_kept():
    mask = np.zeros(SHAPE, bool)
    mask[1, 5, 3] = mask[3, 0, 8] = True
    np.testing.assert_array_equal(np.argwhere(outside_largest(mask)), [[3, 0, 8]])


@pytest.mark.parametrize("mask", [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)], ids=["empty", "full"])
def test_nothing_is_removed_from_an_empty_mask_and_from_one_piece(mask):
    assert not outside_largest(mask).any()


def test_each_class_keeps_its_largest_component_only_if_it_is_named():
    before = label_map(
        liver=[((0, 0, 0), (2, 3, 3)), ((4, 6, 0), (1, 1, 2))], spleen=[((0, 5, 5), (2, 2, 2)), ((4, 0, 8), (1, 1, 1))]
    )
    after = Postprocessing(classes=("spleen",)).apply(before, LABELS)
    assert (np.count_nonzero(after == 1), np.count_nonzero(after == 2)) == (18 + 2, 8)
    after = Postprocessing(classes=("liver", "spleen")).apply(before, LABELS)
    assert (np.count_nonzero(after == 1), np.count_nonzero(after == 2)) == (18, 8)


def test_the_foreground_s_largest_component_may_be_of_several_classes():
    before = label_map(  # spleen touches liver; together 12 + 2 voxels, while 13 lie in a liver of their own
        liver=[((0, 0, 0), (2, 2, 3)), ((4, 0, 0), (1, 1, 9)), ((4, 1, 0), (1, 1, 4))], spleen=[((0, 0, 3), (2, 1, 1))]
    )
    after = Postprocessing(foreground=True).apply(before, LABELS)
    assert (np.count_nonzero(after == 1), np.count_nonzero(after == 2)) == (12, 2)
    np.testing.assert_array_equal(after[4], 0)


def test_the_foreground_comes_before_the_classes():
    before = label_map(  # a large lone spleen, and a small one at the liver, which is what remains
        liver=[((0, 0, 0), (3, 3, 3))], spleen=[((0, 0, 3), (1, 1, 1)), ((2, 2, 3), (1, 1, 2)), ((0, 6, 0), (1, 1, 9))]
    )
    both = Postprocessing(foreground=True, classes=("spleen",)).apply(before, LABELS)
    np.testing.assert_array_equal(np.argwhere(both == 2), [[2, 2, 3], [2, 2, 4]])
    alone = Postprocessing(classes=("spleen",)).apply(before, LABELS)
    assert np.count_nonzero(alone == 2) == 9


def test_the_label_map_itself_comes_back_unchanged_if_nothing_is_removed():
    before = label_map(liver=[((0, 0, 0), (2, 2, 2))])
    everything = Postprocessing(foreground=True, classes=("liver", "spleen"))
    assert everything.apply(before, LABELS) is before
    assert Postprocessing().apply(before, LABELS) is before
    empty = np.zeros(SHAPE, np.uint16)
    assert everything.apply(empty, LABELS) is empty


def test_the_label_map_that_is_given_is_not_changed():
    before = label_map(liver=[((0, 0, 0), (2, 2, 2)), ((4, 6, 8), (1, 1, 1))])
    copy = before.copy()
    after = Postprocessing(classes=("liver",)).apply(before, LABELS)
    np.testing.assert_array_equal(before, copy)
    assert after.dtype == before.dtype
    assert np.count_nonzero(after) == 8


def test_regions_keep_the_largest_component_of_all_together():
    before = label_map(liver=[((0, 0, 0), (2, 2, 2))], spleen=[((0, 0, 2), (1, 1, 1)), ((4, 6, 8), (1, 1, 1))])
    after = Postprocessing(foreground=True).apply(before, REGIONS)
    assert np.count_nonzero(after == 2) == 1
    assert after[4, 6, 8] == 0


def test_a_postprocessing_goes_through_json():
    made = Postprocessing(foreground=True, classes=("spleen",))
    assert Postprocessing.from_dict(made.to_dict(), LABELS) == made
    assert made
    assert not Postprocessing()


@pytest.mark.parametrize(
    "change",
    [{"classes": ["kidney"]}, {"neighbours": 6}, {"least_ml": 3}],
    ids=["unknown class", "other neighbours", "unknown key"],
)
def test_a_postprocessing_that_is_not_known_is_refused(change):
    with pytest.raises(ValueError, match=r"kidney|not known"):
        Postprocessing.from_dict({**Postprocessing().to_dict(), **change}, LABELS)


def test_single_regions_cannot_be_postprocessed():
    with pytest.raises(ValueError, match="core cannot be postprocessed"):
        Postprocessing.from_dict(Postprocessing(classes=("core",)).to_dict(), REGIONS)
