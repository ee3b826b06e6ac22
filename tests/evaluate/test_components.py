import math

import numpy as np
import pytest

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate.case import LabelPair
from voxelseg.evaluate.components import CaseDice, choose, choose_postprocessing, component_dice
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.predict.postprocess import Postprocessing
from voxelseg.volume import Volume

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
REGIONS = LabelScheme((LabelClass("whole", (1, 2), 1), LabelClass("core", (2,), 2)))
ONE = LabelScheme((LabelClass("liver", (1,), 1),))
NAN = math.nan


def case(as_it_is, foreground=None, classes=None, both=None):
    """Dice of liver and spleen after each way; None: as it is."""

    def by_name(values):
        return dict(zip(("liver", "spleen"), values or as_it_is, strict=True))

    return CaseDice(by_name(as_it_is), by_name(foreground), by_name(classes), by_name(both), True)


def chosen(*cases, labels=LABELS):
    return choose(cases, labels)[0]


def test_a_class_is_chosen_if_its_mean_dice_rises():
    cases = [case((0.8, 0.7), classes=(0.9, 0.6)), case((0.8, 0.7), classes=(0.75, 0.7))]
    # liver 0.8 to 0.825 on average, though one case falls; spleen 0.7 to 0.65
    assert chosen(*cases) == Postprocessing(classes=("liver",))
    liver = choose(cases, LABELS)[1][1]
    assert (liver.keep_largest_of, liver.improved, liver.worsened) == ("liver", 1, 1)
    assert (liver.before, liver.after) == (pytest.approx(0.8), pytest.approx(0.825))


def test_an_unchanged_mean_chooses_nothing():
    assert chosen(case((0.8, 0.7)), case((NAN, 0.1))) == Postprocessing()


def test_the_foreground_is_chosen_if_the_mean_rises_and_no_class_falls():
    assert chosen(case((0.8, 0.7), foreground=(0.9, 0.7), both=(0.9, 0.7))).foreground
    assert not chosen(case((0.8, 0.7), foreground=(0.95, 0.69))).foreground


def test_classes_are_compared_on_top_of_the_foreground_if_that_was_chosen():
    on_top = case((0.5, 0.5), foreground=(0.6, 0.6), classes=(0.7, 0.5), both=(0.6, 0.65))
    assert chosen(on_top) == Postprocessing(foreground=True, classes=("spleen",))
    alone = case((0.5, 0.5), foreground=(0.4, 0.6), classes=(0.7, 0.5), both=(0.6, 0.65))
    assert chosen(alone) == Postprocessing(classes=("liver",))


def test_a_false_positive_that_vanishes_is_an_improvement():
    # the spleen is not there: 0 becomes undefined, and the mean over the classes 0.9 instead of 0.45
    found, candidates = choose([case((0.9, 0.0), foreground=(0.9, NAN), both=(0.9, NAN))], LABELS)
    assert found.foreground
    assert (candidates[0].improved, candidates[0].worsened) == (1, 0)


def test_of_regions_only_all_together_are_looked_at_and_of_one_class_too():
    better = case((0.5, 0.5), foreground=(0.6, 0.6), classes=(0.9, 0.9), both=(0.9, 0.9))
    names = CaseDice(*({"whole": way["liver"], "core": way["spleen"]} for way in ways(better)), True)
    found, candidates = choose([names], REGIONS)
    assert found == Postprocessing(foreground=True)
    assert len(candidates) == 1
    only = CaseDice(*({"liver": way["liver"]} for way in ways(better)), True)
    assert choose([only], ONE)[0] == Postprocessing(foreground=True)


def ways(one):
    return one.as_it_is, one.foreground, one.classes, one.both


def save(path, label_map):
    d, h, w = label_map.shape
    grid = Grid(shape_ijk=(w, h, d), affine_ijk=np.diag([0.5, 1.0, 3.0, 1.0]))
    write_volume(path, Volume(label_map[None], grid))
    return path


def pair(folder, name, *, fragment=True, labels=LABELS, ignored=False):
    """Liver of 8 voxels, found but for 2, and a liver fragment of 4 voxels elsewhere; spleen of 2 found."""
    reference = np.zeros((4, 6, 9), np.uint8)
    reference[0:2, 0:2, 0:2] = 1
    reference[0, 0, 2] = reference[0, 0, 3] = 2
    prediction = reference.copy()
    prediction[0, 0:2, 0] = 0
    if fragment:
        prediction[3, 5, 5:9] = 1
    if ignored:
        reference[3, 5, 5:9] = labels.ignore
    return LabelPair(
        name,
        save(folder / "predictions" / f"{name}.nii.gz", prediction),
        save(folder / "references" / f"{name}.nii.gz", reference),
    )


def test_dice_of_a_case_after_each_way(tmp_path):
    found = component_dice(pair(tmp_path, "a"), labels=LABELS)
    # liver: 2 * 6 / (8 + 10) as it is, 2 * 6 / (8 + 6) without the fragment
    assert found.as_it_is == {"liver": pytest.approx(12 / 18), "spleen": 1.0}
    for way in (found.foreground, found.classes, found.both):
        assert way == {"liver": pytest.approx(12 / 14), "spleen": 1.0}
    assert found.changed
    assert not component_dice(pair(tmp_path, "b", fragment=False), labels=LABELS).changed


def test_fragments_where_the_reference_ignores_count_for_nothing(tmp_path):
    labels = LabelScheme(LABELS.classes, ignore=3)
    found = component_dice(pair(tmp_path, "a", labels=labels, ignored=True), labels=labels)
    assert found.as_it_is == found.classes


@pytest.mark.parametrize("workers", [1, 2])
def test_the_choice_is_the_same_with_one_process_or_several(tmp_path, workers):
    pairs = [pair(tmp_path, "b"), pair(tmp_path, "a", fragment=False), pair(tmp_path, "c")]
    done = []
    found = choose_postprocessing(pairs, LABELS, workers=workers, progress=lambda *numbers: done.append(numbers))
    assert found.postprocessing == Postprocessing(foreground=True)
    assert found.changed == ("b", "c")
    assert done == [(1, 3), (2, 3), (3, 3)]
    together = found.candidates[0]
    # liver (12/18 + 12/14 + 12/18) / 3 becomes 12/14; spleen is 1
    assert together.before == pytest.approx(((24 / 18 + 12 / 14) / 3 + 1) / 2)
    assert together.after == pytest.approx((12 / 14 + 1) / 2)


def test_all_files_that_cannot_be_compared_are_named(tmp_path):
    pairs = [pair(tmp_path, name) for name in "abc"]
    pairs[0].prediction.unlink()
    pairs[2].reference.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"(?s)2 of 3 cases could not be compared.*a\.nii\.gz.*c\.nii\.gz"):
        choose_postprocessing(pairs, LABELS)
