import dataclasses
from itertools import permutations

import numpy as np
import pytest

from voxelseg.data import read_dataset
from voxelseg.data.labels import parse_labels
from voxelseg.errors import DataError
from voxelseg.geometry import Grid, to_canonical
from voxelseg.io import read_channels, read_label
from voxelseg.plan import Normalization, Plan, compute_fingerprint, make_plan
from voxelseg.preprocess.case import preprocess_image, preprocess_label, to_scan
from voxelseg.preprocess.resample import resample_labels
from voxelseg.volume import Volume

LABELS = parse_labels({"background": 0, "liver": 2, "spleen": 5, "ignore": 9})


def volume(array: np.ndarray, spacing_dhw: tuple[float, float, float]) -> Volume:
    d, h, w = spacing_dhw
    return Volume(array, Grid(shape_ijk=array.shape[:0:-1], affine_ijk=np.diag([w, h, d, 1.0])))


def plan_of(spacing: tuple[float, float, float], *, axes=(0, 1, 2), anisotropic=False, channels=1) -> Plan:
    return Plan(
        channels=("MRI",) * channels,
        axes=axes,
        spacing_mm=spacing,
        anisotropic=anisotropic,
        normalization=(Normalization(kind="none"),) * channels,
        patch_size=(8, 8, 8),
        batch_size=2,
        mirror_axes=(),
        median_shape=(8, 8, 8),
        strides=((1, 1, 1),),
        kernels=((3, 3, 3),),
    )


def framed(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Noise from 1 to 2 with a frame of zeros: 1 before, 2 after along each axis."""
    array = np.zeros((1, *shape), np.float32)
    inner = array[:, 1:-2, 1:-2, 1:-2]
    inner[:] = np.random.default_rng(seed).uniform(1, 2, inner.shape)
    return array


def test_without_resampling_the_way_there_and_back_is_exact():
    scan = volume(framed((9, 11, 7)), (3.0, 1.0, 2.0))
    image, placement = preprocess_image(scan, plan_of((3.0, 1.0, 2.0)))
    assert image.shape == (1, 6, 8, 4)
    assert placement.box == (slice(1, 7), slice(1, 9), slice(1, 5))
    np.testing.assert_array_equal(to_scan(image, placement, outside=np.zeros(1, np.float32)), scan.array)


def test_the_plans_axes_are_undone():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 5.0))
    image, placement = preprocess_image(scan, plan_of((5.0, 1.0, 1.0), axes=(2, 0, 1), anisotropic=True))
    assert image.shape == (1, 4, 6, 8)
    np.testing.assert_array_equal(image[0], scan.array[0, 1:7, 1:9, 1:5].transpose(2, 0, 1))
    np.testing.assert_array_equal(to_scan(image, placement, outside=np.zeros(1, np.float32)), scan.array)


def test_a_smooth_volume_survives_resampling_there_and_back():
    d, h, w = np.meshgrid(*(np.linspace(0, 2, size) for size in (16, 20, 24)), indexing="ij")
    scan = volume((2 + np.sin(d + h) * np.cos(w))[None].astype(np.float32), (2.0, 1.5, 1.0))
    image, placement = preprocess_image(scan, plan_of((1.0, 1.0, 1.0), axes=(1, 2, 0)))
    assert image.shape == (1, 30, 24, 32)
    back = to_scan(image, placement, outside=np.zeros(1, np.float32))
    assert back.shape == scan.array.shape
    assert np.abs(back - scan.array).max() < 0.03


def test_outside_the_crop_each_output_has_its_own_value():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 1.0))
    _, placement = preprocess_image(scan, plan_of((2.0, 2.0, 2.0)))
    outputs = np.full((2, *placement.shape), 0.5, np.float32)
    back = to_scan(outputs, placement, outside=np.array([1.0, 0.0], np.float32))
    assert back.shape == (2, 9, 11, 7)
    assert back[:, 0, 0, 0].tolist() == [1, 0]
    assert back[:, 3, 4, 3].tolist() == pytest.approx([0.5, 0.5])
    assert (back[0] == 1).sum() == 9 * 11 * 7 - 6 * 8 * 4


def test_outputs_are_not_copied_when_nothing_was_changed():
    scan = volume(np.ones((1, 3, 4, 5), np.float32), (1.0, 1.0, 1.0))
    image, placement = preprocess_image(scan, plan_of((1.0, 1.0, 1.0)))
    assert np.shares_memory(to_scan(image, placement, outside=np.zeros(1, np.float32)), image)


def test_sizes_are_rounded_and_never_0():
    scan = volume(np.ones((1, 5, 4, 1), np.float32), (1.0, 1.3, 0.2))
    image, _ = preprocess_image(scan, plan_of((2.0, 1.0, 1.0)))
    assert image.shape[1:] == (2, 5, 1)  # 2.5 to the even 2, 5.2, 0.2


def test_a_scan_that_is_coarse_itself_is_not_interpolated_between_its_slices():
    array = np.zeros((1, 4, 6, 6), np.float32)
    array[0, 1:3], array[0, 0], array[0, 3] = 8, 1, 3
    image, placement = preprocess_image(volume(array, (4.0, 1.0, 1.0)), plan_of((1.0, 1.0, 1.0)))
    assert placement.coarse_axis == 0
    assert set(np.unique(image)) == {1, 3, 8}
    # the same along W, whatever the plan's D is
    turned = volume(array.transpose(0, 2, 3, 1), (1.0, 1.0, 4.0))
    image, placement = preprocess_image(turned, plan_of((1.0, 1.0, 1.0)))
    assert placement.coarse_axis == 2
    assert set(np.unique(image)) == {1, 3, 8}


def test_slices_are_interpolated_if_the_plan_says_so():
    array = np.zeros((1, 4, 6, 6), np.float32)
    array[0, 1:3], array[0, 0], array[0, 3] = 8, 1, 3
    plan = plan_of((1.0, 1.0, 1.0)).changed(nearest_along_coarse=False)
    image, placement = preprocess_image(volume(array, (4.0, 1.0, 1.0)), plan)
    assert placement.coarse_axis is None
    assert len(np.unique(image[0, :, 0, 0].round(3))) > 8


def test_a_fine_scan_follows_the_anisotropic_plan():
    scan = volume(np.random.default_rng(0).uniform(1, 2, (1, 12, 4, 4)).astype(np.float32), (1.0, 1.0, 1.0))
    image, placement = preprocess_image(scan, plan_of((4.0, 1.0, 1.0), anisotropic=True))
    assert placement.coarse_axis == 0
    np.testing.assert_array_equal(image[0], scan.array[0, [2, 6, 10]])  # centres at 1.5, 5.5, 9.5: the upper neighbour


def test_normalisation_sees_the_cropped_scan_before_resampling():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 1.0))
    plan = plan_of((1.0, 1.0, 1.0)).changed(normalization=[{"kind": "zscore"}])
    image, _ = preprocess_image(scan, plan)
    assert image.mean() == pytest.approx(0, abs=1e-5)
    assert image.std() == pytest.approx(1, abs=1e-5)


def test_labels_follow_the_image_and_become_positions():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 2.0))
    array = np.zeros((1, 9, 11, 7), np.uint8)
    array[0, 2:6, 2:5, 2:4], array[0, 2:6, 5:8, 2:4], array[0, 2, 2, 2] = 2, 5, 9
    plan = plan_of((2.0, 1.0, 1.0), axes=(2, 0, 1))
    image, placement = preprocess_image(scan, plan)
    target = preprocess_label(volume(array, (1.0, 1.0, 2.0)), placement, LABELS)
    assert target.shape == image.shape[1:] == (4, 6, 8)
    np.testing.assert_array_equal(
        target[1], [[0] * 8] + [[0, -1, 1, 1, 2, 2, 2, 0]] + [[0, 1, 1, 1, 2, 2, 2, 0]] * 3 + [[0] * 8]
    )


def test_an_empty_scan_is_kept_whole():
    image, placement = preprocess_image(volume(np.zeros((1, 3, 4, 5), np.int16), (1.0, 1.0, 1.0)), plan_of((1.0,) * 3))
    assert image.shape == (1, 3, 4, 5)
    assert not image.any()
    assert placement.cropped_shape == (3, 4, 5)


def test_wrong_channels_and_voxels_that_are_no_numbers_are_errors():
    scan = volume(np.ones((2, 3, 4, 5), np.float32), (1.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"2 channel\(s\), the plan expects 1: MRI"):
        preprocess_image(scan, plan_of((1.0,) * 3))
    scan.array[1, 2, 3, 4] = np.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        preprocess_image(scan, plan_of((1.0,) * 3, channels=2))


# Pipelines as MONAI's and nnU-Net v1's

MONAI_LIKE = {
    "crop": "positive",
    "normalize_first": False,
    "image_order": 1,
    "label_order": 0,
    "nearest_along_coarse": False,
    "normalization": [{"kind": "window", "window": [-175, 250]}],
}


def filed(axes: tuple[int, int, int], signs: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Scan and label map as a file has them: tilted, its axes near `axes` of right, anterior, superior by `signs`."""
    generator = np.random.default_rng(0)
    spacing = [0.83, 2.7, 1.21]
    directions = np.zeros((3, 3))
    directions[list(axes), range(3)] = np.multiply(signs, spacing)
    tilt, turn = (np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in (0.15, -0.1))
    directions[:2] = tilt @ directions[:2]
    directions[1:] = turn @ directions[1:]
    affine = np.eye(4)
    affine[:3, :3] = directions
    affine[:3, 3] = 10, -20, 30
    image = generator.normal(0, 200, (21, 17, 26)).astype(np.float32)
    image[:5], image[:, -4:], image[:, :, -3:] = -1000, -800, -300
    label = 2 * generator.integers(0, 2, image.shape).astype(np.uint8)
    return image, label, Grid(shape_ijk=image.shape, affine_ijk=affine)


def canonical(array: np.ndarray, grid: Grid) -> np.ndarray:
    return np.ascontiguousarray(to_canonical(array, grid.orientation))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("axes", permutations(range(3)))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("resampling", ["centres", "file_centres"])
def test_a_monai_pipeline_gives_the_same_there_and_back(axes, signs, resampling):
    monai = pytest.importorskip("monai.transforms")
    tensor = pytest.importorskip("monai.data").MetaTensor
    image, label, grid = filed(axes, signs)
    spacing_ras = (1.5, 1.4, 2.0)
    orient = monai.Orientationd(["image", "label"], axcodes="RAS")
    of_file = spacing_ras if resampling == "centres" else tuple(spacing_ras[axis] for axis in axes)
    space = monai.Spacingd(["image", "label"], pixdim=of_file, mode=("bilinear", "nearest"))
    pipeline = monai.Compose(
        [
            *((orient, space) if resampling == "centres" else (space, orient)),
            monai.ScaleIntensityRanged("image", -175, 250, 0.0, 1.0, clip=True),
            monai.CropForegroundd(["image", "label"], source_key="image", allow_smaller=True),
        ]
    )
    affine = grid.affine_ijk
    theirs = pipeline({"image": tensor(image[None], affine=affine), "label": tensor(label[None], affine=affine)})

    plan = plan_of((2.0, 1.4, 1.5)).changed(resampling=resampling, **MONAI_LIKE)
    ours, placement = preprocess_image(Volume(canonical(image[None], grid), grid), plan)
    target = preprocess_label(
        Volume(canonical(label[None], grid), grid),
        placement,
        parse_labels({"background": 0, "liver": 1, "spleen": 2}),
        order=plan.label_order,
    )
    np.testing.assert_allclose(ours[0], theirs["image"].numpy()[0].transpose(2, 1, 0), atol=1e-5)
    np.testing.assert_array_equal(target, theirs["label"].numpy()[0].transpose(2, 1, 0))

    # Back, as their inverse brings probabilities: what was cropped away has none and becomes background.
    outputs = np.random.default_rng(1).random((3, *placement.shape)).astype(np.float32)
    done = theirs["image"].applied_operations
    found = tensor(outputs.transpose(0, 3, 2, 1).copy(), meta=theirs["image"].meta, applied_operations=done)
    undo = monai.Invertd("found", pipeline, orig_keys="image", nearest_interp=False)
    expected = canonical(np.asarray(undo({**theirs, "found": found})["found"]), grid)
    restored = to_scan(outputs, placement, outside=np.array([1, 0, 0], np.float32))
    assert restored.shape == expected.shape
    np.testing.assert_array_equal(restored.argmax(0), expected.argmax(0))
    inside = expected.sum(0) > 0
    np.testing.assert_allclose(restored[:, ~inside], np.broadcast_to([[1], [0], [0]], (3, (~inside).sum())))


@pytest.mark.parametrize("axes", permutations(range(3)))
@pytest.mark.parametrize("resampling", ["edges", "centres", "file_centres", "none"])
@pytest.mark.parametrize("crop", ["nonzero", "positive", "none"])
def test_a_label_survives_the_way_to_a_finer_grid_and_back(axes, resampling, crop):
    _, _, grid = filed((2, 0, 1), (-1, 1, -1))
    spacing = np.array(grid.spacing_mm)
    d, h, w = np.indices(grid.shape_dhw)
    shape = np.array(grid.shape_dhw).reshape(3, 1, 1, 1)
    distance = (np.abs(np.stack([d, h, w]) - shape * [[[[0.4]]], [[[0.6]]], [[[0.55]]]]) / shape).max(axis=0)
    label = np.where(distance < 0.15, 2, np.where(distance < 0.25, 5, 0)).astype(np.uint8)
    image = np.where(distance < 0.3, 100.0, 0.0).astype(np.float32)
    plan = plan_of(tuple(spacing[list(axes)] / (1.7, 2.3, 3.1)), axes=axes).changed(
        resampling=resampling, crop=crop, image_order=1, nearest_along_coarse=False
    )
    seen, placement = preprocess_image(Volume(image[None], grid), plan)
    target = preprocess_label(Volume(label[None], grid), placement, LABELS)
    assert seen.shape[1:] == target.shape == placement.shape
    assert set(np.unique(target)) == {0, 1, 2}
    assert (seen[0][target > 0] > 50).all()  # labels lie where the image is bright
    one_hot = np.stack([target == value for value in range(3)])
    restored = LABELS.decode(to_scan(one_hot, placement, outside=np.array([1, 0, 0], np.float32)))
    np.testing.assert_array_equal(restored, label)


def test_scans_keep_their_voxels_if_the_plan_says_so_and_come_back_exactly():
    scan = volume(framed((9, 11, 7)), (3.0, 1.0, 2.0))
    scan.array[scan.array == 0] = -5
    plan = plan_of((1.0, 1.0, 1.0), axes=(1, 2, 0)).changed(resampling="none", crop="positive")
    image, placement = preprocess_image(scan, plan)
    assert image.shape == (1, 8, 4, 6)
    np.testing.assert_array_equal(image[0], scan.array[0, 1:7, 1:9, 1:5].transpose(1, 2, 0))
    np.testing.assert_array_equal(to_scan(image, placement, outside=np.full(1, -5.0, np.float32)), scan.array)
    label = volume((scan.array > 1.5).astype(np.uint8) * 2, (3.0, 1.0, 2.0))
    target = preprocess_label(label, placement, LABELS)
    np.testing.assert_array_equal(target, image[0] > 1.5)


def test_nothing_is_cropped_if_the_plan_says_so():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 1.0))
    image, _ = preprocess_image(scan, plan_of((1.0, 1.0, 1.0)).changed(crop="none"))
    np.testing.assert_array_equal(image, scan.array)


def test_a_scan_without_a_positive_voxel_is_kept_whole():
    scan = volume(np.full((1, 3, 4, 5), -7, np.int16), (1.0, 1.0, 1.0))
    image, placement = preprocess_image(scan, plan_of((1.0, 1.0, 1.0)).changed(**MONAI_LIKE | {"crop": "positive"}))
    assert image.shape == (1, 3, 4, 5)
    low = volume(np.full((1, 3, 4, 5), -700, np.int16), (1.0, 1.0, 1.0))
    image, placement = preprocess_image(low, plan_of((1.0, 1.0, 1.0)).changed(**MONAI_LIKE))
    assert not image.any()
    assert placement.shape == (3, 4, 5)


def test_a_voxel_between_crop_and_edge_belongs_to_the_nearer_class():
    # Eight voxels of 1 mm become four of 2 mm, with centres at 0.5, 2.5, 4.5 and 6.5; the last two are positive.
    array = np.array([-1, -1, -1, -1, 1, 1, 1, 1], np.float32).reshape(1, 1, 1, 8)
    plan = plan_of((1.0, 1.0, 2.0)).changed(crop="positive", image_order=1)
    image, placement = preprocess_image(volume(array, (1.0, 1.0, 1.0)), plan)
    assert image.ravel().tolist() == [1, 1]
    assert placement.last_box[2] == slice(2, 4)
    back = to_scan(
        np.array([0.25, 0.75], np.float32).reshape(2, 1, 1, 1).repeat(2, axis=3),
        placement,
        outside=np.array([1, 0], np.float32),
    )
    # voxels 3 to 7 lie less than 2 mm from 4.5; 0 to 2 know nothing of it
    assert back[1].ravel().tolist() == pytest.approx([0, 0, 0, 0.75, 0.75, 0.75, 0.75, 0.75])
    assert back.sum(0).ravel().tolist() == pytest.approx([1] * 8)


def test_normalisation_sees_the_resampled_scan_if_it_comes_after():
    scan = volume(framed((9, 11, 7)), (1.0, 1.0, 1.0))
    plan = plan_of((2.0, 0.5, 0.7)).changed(normalization=[{"kind": "zscore"}])
    before, _ = preprocess_image(scan, plan)
    after, _ = preprocess_image(scan, plan.changed(normalize_first=False))
    assert after.mean() == pytest.approx(0, abs=1e-5)
    assert after.std() == pytest.approx(1, abs=1e-5)
    assert abs(before.std() - 1) > 0.05
    # a rule that is linear in the scan's voxels commutes with resampling
    rule = [{"kind": "ct", "window": [0, 9], "mean": 1, "std": 2}]
    first, _ = preprocess_image(scan, plan.changed(normalization=rule))
    last, _ = preprocess_image(scan, plan.changed(normalization=rule, normalize_first=False, crop="nonzero"))
    np.testing.assert_allclose(first, last, atol=1e-5)


@pytest.mark.parametrize("coarse", [False, True])
def test_cubic_splines_are_kept_in_range_as_in_nnunet(coarse):
    resize = pytest.importorskip("skimage.transform").resize
    array = np.random.default_rng(0).choice([1.0, 9.0], size=(1, 6, 9, 8)).astype(np.float32)
    array[0, 2], array[0, 3] = 5, np.random.default_rng(1).choice([3.0, 4.0], size=(9, 8))
    plan = plan_of((1.0, 1.0, 1.0)).changed(clip_overshoot=True)
    spacing = (5.0, 1.2, 1.4) if coarse else (1.1, 1.2, 1.4)
    image, placement = preprocess_image(volume(array, spacing), plan)
    d, h, w = placement.shape
    if coarse:  # slice by slice, then the nearest slice
        slices = [resize(one.astype(float), (h, w), order=3, mode="edge", anti_aliasing=False) for one in array[0]]
        assert d == 30
        expected = np.repeat(slices, 5, axis=0)
    else:
        expected = resize(array[0].astype(float), (d, h, w), order=3, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(image[0], expected, atol=1e-4)
    free, _ = preprocess_image(volume(array, spacing), plan.changed(clip_overshoot=False))
    assert free.max() > 9.1


@pytest.mark.parametrize("kind", ["zscore_nonzero", "zscore_mask"])
def test_a_mask_is_resampled_like_a_label_where_normalisation_comes_after(kind):
    array = np.random.default_rng(0).uniform(3, 5, (2, 8, 9, 10)).astype(np.float32)
    array[:, :4, :4] = 0  # a corner that the crop keeps
    plan = plan_of((0.5, 1.0, 0.7), channels=2).changed(normalization=[{"kind": kind}] * 2, normalize_first=False)
    image, placement = preprocess_image(volume(array, (1.0, 1.0, 1.0)), plan)
    inside = resample_labels((array[0] != 0).astype(np.int16), placement.lines, coarse_axis=None) == 1
    assert 0.7 < inside.mean() < 0.85
    for channel in image:
        assert not channel[~inside].any()
        assert channel[inside].mean() == pytest.approx(0, abs=1e-5)
        assert channel[inside].std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalize_first": False, "clip_overshoot": True},
        {"crop": "positive", "resampling": "file_centres", "image_order": 1, "normalize_first": False},
    ],
)
@pytest.mark.parametrize(("name", "num_cases"), [("Dataset027_ACDC", 2), ("Dataset015_BraTS", 1)])
def test_real_scans_come_back_onto_their_grid(shared_data, name, num_cases, changes):
    dataset = read_dataset(shared_data / name)
    dataset = dataclasses.replace(dataset, cases=dataset.cases[:num_cases])
    plan = make_plan(compute_fingerprint(dataset), None, changes)
    if plan.crop == "positive":
        rule = {"kind": "percentiles", "percentiles": [1, 99]}
        plan = plan.changed(normalization=[rule] * len(plan.channels))
    for case in dataset.cases:
        scan, label = read_channels(case.images), read_label(case.label)
        image, placement = preprocess_image(scan, plan)
        target = preprocess_label(label, placement, dataset.labels)
        assert image.shape == (len(dataset.channels), *target.shape)
        assert set(np.unique(target)) == set(np.unique(dataset.labels.encode(label.array)))
        one_hot = np.stack([target == value for value in range(dataset.labels.num_outputs)])
        outside = np.eye(dataset.labels.num_outputs, dtype=np.float32)[0]
        restored = dataset.labels.decode(to_scan(one_hot, placement, outside=outside))
        assert restored.shape == scan.shape_dhw
        assert np.mean(restored == label.array[0]) > 0.999
