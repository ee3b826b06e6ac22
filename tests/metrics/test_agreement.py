"""Agreement with MONAI and with the package of Nikolov et al. on many masks with unequal spacing, and on real ones."""

import warnings

import numpy as np
import pytest
import surface_distance
import torch
from scipy import ndimage

from voxelseg.io import read_label
from voxelseg.metrics import METRICS, MaskPair

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's own
    import monai.metrics

NUMBERS = [range(40), pytest.param(range(40, 560), marks=pytest.mark.slow)]
"""Of the random pairs."""
MM = {"hd95_mm", "hd_mm", "assd_mm"}


def blob(generator, shape):
    field = ndimage.gaussian_filter(generator.normal(size=shape), generator.uniform(0.5, 2.5))
    return field / field.std() > generator.uniform(-1, 2)


def random_pair(number):
    """Reference, prediction and spacing: another blob, noise, the blob moved, or the blob with wrong voxels."""
    generator = np.random.default_rng(number)
    shape = tuple(generator.integers(3, 15, 3))
    reference = blob(generator, shape)
    prediction = (
        lambda: blob(generator, shape),
        lambda: generator.random(shape) < generator.uniform(0.02, 1),
        lambda: ndimage.shift(reference.astype(np.uint8), generator.integers(-2, 3, 3), order=0) > 0,
        lambda: reference ^ (generator.random(shape) < 0.05),
    )[number % 4]()
    reference[tuple(generator.integers(0, shape))] = prediction[tuple(generator.integers(0, shape))] = True
    spacing_mm = tuple(generator.uniform(0.3, 5, 3).round(3).tolist())
    return MaskPair(reference, prediction, spacing_mm), float(generator.uniform(0.2, 6))


def assert_agrees_with_monai(pair, tolerance_mm):
    """All of MONAI's metrics that are ours, and its one-sided distances, which come from the prediction's surface."""
    batch = [torch.from_numpy(mask)[None, None] for mask in (pair.prediction, pair.reference)]
    options = {"include_background": True, "spacing": pair.spacing_mm}
    to_reference = pair.surface_distances_mm[1]
    found = {key: METRICS[key](pair, tolerance_mm=tolerance_mm) for key in ("dice", "iou", "surface_dice", *MM)}
    found |= {"one-sided hd": to_reference.max(), "one-sided hd95": np.percentile(to_reference, 95)}
    found |= {"one-sided mean": to_reference.mean()}
    hausdorff, average = monai.metrics.compute_hausdorff_distance, monai.metrics.compute_average_surface_distance
    expected = {
        "dice": monai.metrics.compute_dice(*(mask.float() for mask in batch)),
        "iou": monai.metrics.compute_iou(*(mask.float() for mask in batch)),
        "surface_dice": monai.metrics.compute_surface_dice(*batch, class_thresholds=[tolerance_mm], **options),
        "hd95_mm": hausdorff(*batch, percentile=95, **options),
        "hd_mm": hausdorff(*batch, **options),
        "assd_mm": average(*batch, symmetric=True, **options),
        "one-sided hd": hausdorff(*batch, directed=True, **options),
        "one-sided hd95": hausdorff(*batch, directed=True, percentile=95, **options),
        "one-sided mean": average(*batch, **options),
    }
    assert {key: float(value) for key, value in found.items()} == pytest.approx(
        {key: float(value) for key, value in expected.items()}, rel=1e-5, abs=1e-6
    )


def assert_agrees_with_surface_distance(pair, tolerance_mm):
    """Metrics by area."""
    surfaces = surface_distance.compute_surface_distances(pair.reference, pair.prediction, pair.spacing_mm)
    expected = {
        "dice": surface_distance.compute_dice_coefficient(pair.reference, pair.prediction),
        "area_surface_dice": surface_distance.compute_surface_dice_at_tolerance(surfaces, tolerance_mm),
        "area_hd95_mm": surface_distance.compute_robust_hausdorff(surfaces, 95),
        "area_masd_mm": np.mean(surface_distance.compute_average_surface_distance(surfaces)),
    }
    found = {key: METRICS[key](pair, tolerance_mm=tolerance_mm) for key in expected}
    assert found == pytest.approx({key: float(value) for key, value in expected.items()}, rel=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("numbers", NUMBERS)
def test_scores_of_random_masks_are_those_of_monai(numbers):
    for number in numbers:
        assert_agrees_with_monai(*random_pair(number))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("numbers", NUMBERS)
def test_scores_of_random_masks_by_area_are_those_of_the_package_of_nikolov_and_others(numbers):
    for number in numbers:
        assert_agrees_with_surface_distance(*random_pair(number))


@pytest.mark.filterwarnings("ignore")
def test_one_empty_mask_has_the_surface_dice_of_monai():
    reference = np.zeros((3, 4, 5), bool)
    reference[1, 2, 3] = True
    for masks in ((reference, np.zeros_like(reference)), (np.zeros_like(reference), reference)):
        batch = [torch.from_numpy(mask)[None, None] for mask in masks]
        expected = monai.metrics.compute_surface_dice(*batch, class_thresholds=[1.0], include_background=True)
        assert METRICS["surface_dice"](MaskPair(*masks, (3.0, 1.0, 0.5)), tolerance_mm=1.0) == float(expected) == 0.0


REAL = [
    pytest.param("msd_hippocampus/labelsTr/hippocampus_*.nii.gz", id="hippocampus"),
    pytest.param("Dataset027_ACDC/labelsTr/*.nii.gz", id="heart"),
    pytest.param("totalseg/example_seg.nii.gz", id="abdominal organs"),
    pytest.param("Dataset015_BraTS/labelsTr/*.nii.gz", id="brain tumour", marks=pytest.mark.slow),
    pytest.param("la_mri/labelsTr/*.nii.gz", id="left atrium", marks=pytest.mark.slow),
    pytest.param("chaos_ct_dicom/liver_gt.nii.gz", id="liver", marks=pytest.mark.slow),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pattern", REAL)
def test_scores_of_real_label_maps_are_those_of_both(shared_data, pattern):
    files = sorted(shared_data.glob(pattern))[:3]
    assert files, f"no label map matches {pattern}"
    for number, file in enumerate(files):
        volume = read_label(file)
        label_map = volume.array[0]
        value = np.unique(label_map)[-1 - number % 2]
        box = ndimage.find_objects((label_map == value).astype(np.uint8))[0]
        reference = np.pad((label_map == value)[box], 4)
        for prediction in (
            ndimage.shift(reference.astype(np.uint8), (1, -2, 1), order=0) > 0,
            ndimage.binary_dilation(reference),
            ndimage.binary_erosion(reference),
        ):
            pair = MaskPair(reference, prediction, volume.spacing_mm)
            if not pair.num_prediction:
                continue  # eroded away
            assert_agrees_with_monai(pair, 1.2345)
            assert_agrees_with_surface_distance(pair, 1.2345)
