import numpy as np
import pytest

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate.case import LabelPair, class_boxes, labels_of_values, score_files, score_label_maps
from voxelseg.geometry import Grid
from voxelseg.io import write_volume
from voxelseg.metrics import MaskPair, columns
from voxelseg.volume import Volume

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
# File axes i, j, k run right, anterior, superior with 0.5, 1 and 3 mm: spacing (3, 1, 0.5) along D, H, W.
AFFINE = np.diag([0.5, 1.0, 3.0, 1.0])


def save(path, array_dhw, affine=AFFINE):
    array = np.asarray(array_dhw)
    d, h, w = array.shape
    shape = (w, h, d) if affine[0, 0] else (h, w, d)
    write_volume(path, Volume(array[None], Grid(shape_ijk=shape, affine_ijk=affine)))
    return path


def label_map(**voxels_of_value):
    label = np.zeros((3, 4, 5), np.uint8)
    for value, voxels in voxels_of_value.items():
        label.flat[list(voxels)] = int(value.removeprefix("v"))
    return label


def scores(reference, prediction, labels=LABELS):
    found = score_label_maps(
        reference, prediction, labels, case="a", spacing_mm=(3.0, 1.0, 0.5), voxel_mm3=1.5, tolerance_mm=1.0
    )
    return {score.name: score for score in found}


def test_each_class_is_scored_and_its_volumes_are_in_mm3():
    found = scores(label_map(v1=[0, 1, 2], v2=[40]), label_map(v1=[1, 2], v2=[40, 41]))
    assert found["liver"].metrics["dice"] == pytest.approx(4 / 5)
    assert (found["liver"].volume_reference_mm3, found["liver"].volume_prediction_mm3) == (4.5, 3.0)
    assert found["spleen"].metrics["dice"] == pytest.approx(2 / 3)


def test_voxels_with_the_ignore_label_are_neither_hit_nor_miss():
    labels = LabelScheme(LABELS.classes, ignore=9)
    found = scores(label_map(v1=[0, 1], v9=[2, 3, 4]), label_map(v1=[0, 1, 2, 3], v2=[4]), labels)
    assert found["liver"].metrics["dice"] == 1.0
    assert np.isnan(found["spleen"].metrics["dice"])


def test_regions_join_label_values_and_may_overlap():
    labels = LabelScheme((LabelClass("whole", (1, 2), 1), LabelClass("core", (2,), 2)))
    found = scores(label_map(v1=[0, 1], v2=[2]), label_map(v1=[0], v2=[1, 2]), labels)
    assert found["whole"].metrics["dice"] == 1.0
    assert found["core"].metrics["dice"] == pytest.approx(2 / 3)


def test_scores_hold_every_metric_at_each_tolerance():
    found = score_label_maps(
        label_map(v1=[0]),
        label_map(v1=[2]),  # 1 mm further along W
        LABELS,
        case="a",
        spacing_mm=(3.0, 1.0, 0.5),
        voxel_mm3=1.5,
        tolerance_mm=(0.5, 1.0),
    )
    assert found[0].metrics.keys() == {column.key for column in columns((0.5, 1.0))}
    assert (found[0].metrics["surface_dice"], found[0].metrics["surface_dice_1mm"]) == (0.0, 1.0)


def test_the_volume_error_is_of_the_volumes_beside_it():
    """Of a sheared grid a voxel is smaller than the product of its sides."""
    found = scores(label_map(v1=[0, 1, 2]), label_map(v1=[1]))["liver"]
    assert found.metrics["volume_error_ml"] == pytest.approx(
        (found.volume_reference_mm3 - found.volume_prediction_mm3) / 1000
    )


def test_without_description_each_value_in_either_map_is_a_class():
    labels = labels_of_values(label_map(v1=[0], v7=[3]), label_map(v2=[0]))
    assert labels is not None
    assert labels.names == ("1", "2", "7")
    assert labels_of_values(label_map(), label_map()) is None


REGIONS = LabelScheme((LabelClass("whole", (1, 3), 1), LabelClass("core", (3,), 3), LabelClass("other", (2,), 2)))


@pytest.mark.parametrize(
    "labels",
    [LABELS, LabelScheme(LABELS.classes, ignore=9), REGIONS, LabelScheme(REGIONS.classes, ignore=9)],
    ids=["classes", "ignore", "regions", "regions and ignore"],
)
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_bit_for_bit_those_of_masks_of_the_whole_image(labels, seed):
    rng = np.random.default_rng(seed)
    maps = [np.zeros((9, 13, 17), np.uint8) for _ in range(2)]
    for value in (1, 2, 3, 9):
        for label in maps if seed != 3 else maps[:1]:  # at last the prediction is empty
            d, h, w = rng.integers(0, (5, 7, 9))
            box = (slice(d, d + 4), slice(h, h + 5), slice(w, w + 6))
            label[box][rng.random(label[box].shape) < 0.7] = value
    reference, prediction = maps
    for name, found in scores(reference, prediction, labels).items():
        judged = reference != 9 if labels.ignore else np.ones_like(reference, bool)
        whole = MaskPair(labels.mask(reference, name) & judged, labels.mask(prediction, name) & judged, (3.0, 1.0, 0.5))
        expected = {column.key: column.score(whole) for column in columns(1.0)}
        np.testing.assert_equal(dict(found.metrics), expected)
        assert found.volume_reference_mm3 == whole.num_reference * 1.5
        assert found.volume_prediction_mm3 == whole.num_prediction * 1.5


def test_a_class_is_looked_at_in_the_box_that_holds_it_in_both_maps():
    reference, prediction = np.zeros((9, 13, 17), np.int16), np.zeros((9, 13, 17), np.int16)
    reference[2, 3, 4], prediction[5, 1, 6], prediction[0, 0, 0] = 1, 1, -4
    assert class_boxes(LABELS, reference, prediction) == {
        "liver": (slice(2, 6), slice(1, 4), slice(4, 7)),
        "spleen": (slice(0, 0), slice(0, 0), slice(0, 0)),
    }


def test_files_stored_along_other_axes_are_compared_in_space(tmp_path):
    label = label_map(v1=[0, 1, 2], v2=[40])
    turned = np.array([[0.0, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    pair = LabelPair("a", save(tmp_path / "p.nii.gz", label, turned), save(tmp_path / "r.nrrd", label))
    assert [score.metrics["dice"] for score in score_files(pair, LABELS, tolerance_mm=1.0).scores] == [1.0, 1.0]


def test_spacing_of_the_file_reaches_the_distances(tmp_path):
    reference, prediction = label_map(v1=[0]), label_map(v1=[20])  # neighbours along D, 3 mm apart
    pair = LabelPair("a", save(tmp_path / "p.nii.gz", prediction), save(tmp_path / "r.nii.gz", reference))
    found = score_files(pair, LABELS, tolerance_mm=1.0).scores[0]
    assert found.metrics["hd95_mm"] == pytest.approx(3.0)
    assert found.volume_reference_mm3 == pytest.approx(1.5)


def test_files_on_different_grids_are_refused(tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] = 4.0
    label = label_map(v1=[0])
    pair = LabelPair("a", save(tmp_path / "p.nii.gz", label, shifted), save(tmp_path / "r.nii.gz", label))
    with pytest.raises(DataError, match=r"p\.nii\.gz: not on the grid of .*r\.nii\.gz: origin"):
        score_files(pair, LABELS, tolerance_mm=1.0)


def test_values_that_the_description_does_not_know_are_refused(tmp_path):
    pair = LabelPair(
        "a", save(tmp_path / "p.nii.gz", label_map(v5=[0])), save(tmp_path / "r.nii.gz", label_map(v1=[0]))
    )
    with pytest.raises(DataError, match=r"p\.nii\.gz: label values \[5\] are not in the data set's description"):
        score_files(pair, LABELS, tolerance_mm=1.0)


@pytest.mark.parametrize(("value", "found"), [(70000, "from 0 to 70000"), (-1, "from -1 to 0")])
def test_values_that_cannot_be_classes_are_refused_with_the_file_that_has_them(tmp_path, value, found):
    array = np.zeros((3, 4, 5), np.int32)
    reference = save(tmp_path / "r.nii.gz", array)
    array[0, 0, 0] = value
    pair = LabelPair("a", save(tmp_path / "p.nii.gz", array), reference)
    with pytest.raises(DataError, match=rf"p\.nii\.gz: label values {found}, expected 0 to 65535"):
        score_files(pair, None, tolerance_mm=1.0)


@pytest.mark.parametrize(("shift_mm", "off_grid"), [(0.0, False), (0.005, False), (0.05, True), (0.24, True)])
def test_grids_apart_by_more_than_rounding_are_marked(tmp_path, shift_mm, off_grid):
    shifted = AFFINE.copy()
    shifted[0, 3] = shift_mm  # of voxels of 0.5 mm
    label = label_map(v1=[0])
    pair = LabelPair("a", save(tmp_path / "p.nii.gz", label, shifted), save(tmp_path / "r.nii.gz", label))
    assert score_files(pair, LABELS, tolerance_mm=1.0).off_grid is off_grid
