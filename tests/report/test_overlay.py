import base64
import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import DataError
from voxelseg.evaluate.held_out import CaseFiles
from voxelseg.io import read_volume, write_volume
from voxelseg.report.overlay import case_views, compared_case_views, compared_views, label_map_views, outline
from voxelseg.report.run import read_run
from voxelseg.volume import Volume

LABELS = LabelScheme((LabelClass("liver", (1,), 1), LabelClass("spleen", (2,), 2)))
SHAPE = (5, 30, 40)
SPACING_MM = (5.0, 1.0, 0.5)


def views(reference, prediction, labels=LABELS, scan=None):
    scan = np.zeros(SHAPE, np.float32) if scan is None else scan
    found = label_map_views(scan, reference, prediction, labels, spacing_mm=SPACING_MM)
    return {view.name: view for view in found}


def pixels(picture, index):
    """The embedded picture number `index`, RGBA in [0, 255]."""
    data = re.findall(r"base64,([^\"]+)", picture)[index]
    return (imread(io.BytesIO(base64.b64decode(data))) * 255).round().astype(int)


def empty():
    return np.zeros(SHAPE, np.uint8)


def test_outline_follows_the_edges_of_the_voxels():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:4] = True  # two by two voxels: four sides of length two
    assert sorted(re.findall(r"M[^M]+", outline(mask))) == ["M2 1h2", "M2 1v2", "M2 3h2", "M4 1v2"]


def test_outline_is_closed_at_the_edge_of_the_picture():
    assert sorted(re.findall(r"M[^M]+", outline(np.ones((2, 3), bool)))) == ["M0 0h3", "M0 0v2", "M0 2h3", "M3 0v2"]


def test_outline_of_nothing_is_empty():
    assert outline(np.zeros((2, 3), bool)) == ""


def test_each_view_shows_the_slice_with_most_errors():
    reference, prediction = empty(), empty()
    reference[1:4, 10:20, 15:25] = 1
    prediction[:] = reference
    prediction[3, 12, 16:20] = 0
    found = views(reference, prediction)
    assert found["axial"].caption == "slice 4 of 5, 4 wrong voxels"
    assert found["coronal"].caption == "slice 13 of 30, 4 wrong voxels"
    assert found["sagittal"].caption == "slice 17 of 40, 1 wrong voxel"


def test_a_perfect_case_shows_the_slice_with_most_foreground():
    reference = empty()
    reference[1:4, 10:20, 15:25] = 1
    reference[2, 20, 15] = 1
    assert views(reference, reference.copy())["axial"].caption == "slice 3 of 5, 0 wrong voxels"


def test_pictures_are_in_millimetres():
    reference = empty()
    reference[0:5, 0:30, 0:40] = 1
    found = views(reference, reference)
    sizes = {
        name: re.search(r'<image width="([\d.]+)" height="([\d.]+)"', view.contours) for name, view in found.items()
    }
    assert {name: (float(size[1]), float(size[2])) for name, size in sizes.items()} == {
        "axial": (20.0, 30.0),  # W 40 * 0.5 mm, H 30 * 1 mm
        "coronal": (20.0, 25.0),  # W, D 5 * 5 mm
        "sagittal": (30.0, 25.0),  # H, D
    }


def test_pictures_are_turned_to_the_radiological_view():
    scan = np.zeros(SHAPE, np.float32)
    scan[4, 29, 39] = 100.0  # most superior, anterior, left (the end of W is the patient's right in RAS+)
    reference = np.ones(SHAPE, np.uint8)
    reference[4, 29, 39] = 2
    prediction = reference.copy()
    prediction[4, 29, 39] = 1
    for view in views(reference, prediction, scan=scan).values():
        grey = pixels(view.contours, 0)[..., 0]
        assert np.unravel_index(grey.argmax(), grey.shape) == (0, 0)


def test_error_map_tells_missed_invented_and_confused_voxels():
    reference, prediction = empty(), empty()
    reference[2, 10, 10:14] = 1, 1, 2, 0
    prediction[2, 10, 10:14] = 1, 0, 1, 1
    colours = pixels(views(reference, prediction)["axial"].errors, 1).reshape(-1, 4)
    found = {tuple(colour) for colour in colours.tolist() if colour[3] == 255}
    assert found == {(0x56, 0xB4, 0xE9, 255), (0xE6, 0x9F, 0x00, 255), (0xCC, 0x79, 0xA7, 255)}


def test_voxels_with_the_ignore_label_are_no_errors():
    reference, prediction = empty(), empty()
    reference[2, 10:14, 10:14] = 9
    reference[2, 15, 15] = prediction[2, 15, 15] = 1
    prediction[2, 10:14, 10:14] = 1
    found = views(reference, prediction, LabelScheme(LABELS.classes, ignore=9))
    assert found["axial"].caption.endswith("0 wrong voxels")


def test_empty_label_maps_and_odd_intensities_can_be_shown():
    scan = np.full(SHAPE, np.nan, np.float32)
    scan[0, 0, 0] = np.inf
    assert len(views(empty(), empty(), scan=scan)) == 3


def test_files_of_a_run_are_shown(run_folder):
    files = read_run(run_folder).folds[0].files
    assert [view.name for view in case_views(files["case_02"], LABELS, channel="MR")] == [
        "axial",
        "coronal",
        "sagittal",
    ]


def test_scans_that_are_gone_are_named(run_folder):
    files = read_run(run_folder).folds[0].files["case_02"]
    files.images[0].unlink()
    with pytest.raises(DataError, match=r"case_02\.nii\.gz: file not found"):
        case_views(files, LABELS, channel="MR")


REGIONS = LabelScheme(
    (LabelClass("whole", (1, 2, 3, 4), 2), LabelClass("core", (1, 3, 4), 1), LabelClass("enhancing", (4,), 4))
)


def test_values_of_the_same_regions_are_equally_right():
    reference = empty()
    reference[1:4, 10:20, 15:25] = 2
    reference[2, 12:14, 17:20] = 3  # whole and core, as value 1, which a prediction is painted with
    prediction = np.where(reference == 3, 1, reference)
    prediction[3, 15, 20] = 1  # core where only whole is right
    found = views(reference, prediction, REGIONS)
    assert found["axial"].caption == "slice 4 of 5, 1 wrong voxel"
    assert found["coronal"].caption == "slice 16 of 30, 1 wrong voxel"
    colours = pixels(found["axial"].errors, 1).reshape(-1, 4)
    assert (colours == (0xCC, 0x79, 0xA7, 255)).all(axis=1).sum() == 1


def test_contours_of_regions_follow_their_union():
    reference = empty()
    reference[2, 10:12, 10] = 3  # two voxels of whole and core, one below the other
    prediction = empty()
    prediction[2, 10, 10], prediction[2, 11, 10] = 1, 3
    picture = views(reference, prediction, REGIONS)["axial"].contours
    lines = dict(re.findall(r'<path class="(\w+)" d="([^"]*)"', picture))
    assert lines["reference"] == lines["prediction"] != ""


def test_the_ignore_value_in_a_prediction_of_regions_is_background():
    reference, prediction = empty(), empty()
    reference[2, 10:14, 10:14] = prediction[2, 10:14, 10:14] = 2
    prediction[2, 20, 20] = 5
    found = views(reference, prediction, LabelScheme(REGIONS.classes, ignore=5))
    assert found["axial"].caption.endswith("0 wrong voxels")


@pytest.mark.parametrize(("channel", "darkest"), [("CT", 209), (" ct ", 209), ("MR", 0)])
def test_ct_is_shown_in_a_window_of_soft_tissue_however_the_channel_is_spelled(run_folder, channel, darkest):
    files = read_run(run_folder).folds[0].files["case_00"]
    scan = read_volume(files.images[0])
    write_volume(files.images[0], Volume(np.where(scan.array > 20, 240.0, 239.0).astype(np.float32), scan.grid))
    shown = case_views(files, LABELS, channel=channel)[0].contours
    assert pixels(shown, 0)[..., 0].min() == darkest  # 239 HU in a window to 240 HU, or the least intensity of all


def test_several_predictions_are_shown_on_the_slice_with_most_errors_of_all_together():
    reference = empty()
    reference[1:4, 10:20, 15:25] = 1
    few, many = reference.copy(), reference.copy()
    few[1, 10:12, 15:25] = 0  # 20 wrong voxels in slice 1 (counted from 0)
    many[3, 10:14, 15:25] = 0  # 40 in slice 3
    found = compared_views(
        np.zeros(SHAPE, np.float32), reference, {"few": few, "many": many}, LABELS, spacing_mm=SPACING_MM
    )
    assert {name: views[0].caption for name, views in found.items()} == {
        "few": "slice 4 of 5, 0 wrong voxels",
        "many": "slice 4 of 5, 40 wrong voxels",
    }


def test_without_a_scan_contours_lie_on_black(run_folder):
    files = read_run(run_folder).folds[0].files["case_02"]
    found = compared_case_views({"a": CaseFiles((), files.label, files.prediction)}, LABELS, channel="CT")
    assert pixels(found["a"][0].contours, 0)[..., :3].max() == 0
