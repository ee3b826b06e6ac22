import numpy as np
import pytest
import torch
from augmenting import OFF, PATCH, drawn, ones_like_target, source_for
from scipy import ndimage

from voxelseg.patches.augmentation import AugmentationConfig
from voxelseg.patches.spatial import SpatialChange, apply_spatial


def test_a_draw_depends_on_the_generator_alone():
    config = AugmentationConfig(rotation=1, scaling=1)
    first, second = drawn(config, 3, mirror_axes=(0, 2)), drawn(config, 3, mirror_axes=(0, 2))
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert first.flips == second.flips
    assert (drawn(config, 4).matrix != first.matrix).any()


def test_probabilities_and_ranges_are_kept():
    changes = [drawn(AugmentationConfig(rotation_degrees=20), number, mirror_axes=(1,)) for number in range(2000)]
    moved = [change.matrix for change in changes if change.matrix is not None]
    assert len(moved) / 2000 == pytest.approx(1 - 0.8 * 0.8, abs=0.04)
    scales = np.array([np.cbrt(np.linalg.det(matrix)) for matrix in moved])
    assert 0.7 <= scales.min() < 0.72
    assert 1.38 < scales.max() <= 1.4
    assert np.mean(np.isclose(scales, 1)) == pytest.approx(0.16 / 0.36, abs=0.06)  # rotated only
    assert np.mean([change.flips == (1,) for change in changes]) == pytest.approx(0.5, abs=0.04)


def test_a_rotation_turns_by_its_angle_and_keeps_lengths():
    config = OFF.model_copy(update={"rotation": 1.0})
    for number in range(20):
        matrix = drawn(config, number, anisotropic=True).matrix
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert matrix[0].tolist() == [1, 0, 0]
        np.testing.assert_allclose((turn := drawn(config, number).matrix) @ turn.T, np.eye(3), atol=1e-12)


def test_anisotropic_data_are_turned_to_any_angle_in_plane_and_others_a_little():
    def largest_angle(anisotropic: bool, **settings: float) -> float:
        config = OFF.model_copy(update={"rotation": 1.0, **settings})
        matrices = [drawn(config, number, anisotropic=anisotropic).matrix for number in range(200)]
        # The trace of a rotation is 1 + 2 cos(angle).
        return max(np.degrees(np.arccos((np.trace(matrix) - 1) / 2)) for matrix in matrices)

    assert 170 < largest_angle(True) <= 180
    assert 50 < largest_angle(True, rotation_degrees_in_plane=60.0) <= 60
    assert 30 < largest_angle(False) < 60  # three turns of at most 30 degrees together
    assert largest_angle(False, rotation_degrees_in_plane=0.0) == largest_angle(False)


def test_defaults_draw_what_they_always_drew():
    # Taken from the version before angles and factors could differ between axes.
    config = AugmentationConfig(rotation=1, scaling=1)
    isotropic = [[0.91055176, 0.41213055, -0.0862078], [-0.41761293, 0.85779393, -0.31012402]]
    isotropic.append([-0.05369184, 0.3173734, 0.95014693])
    in_plane = [[1, 0, 0], [0, -0.31763245, -0.95157633], [0, 0.95157633, -0.31763245]]
    for anisotropic, expected in ((False, isotropic), (True, in_plane)):
        change = drawn(config, 3, mirror_axes=(0, 2), anisotropic=anisotropic)
        np.testing.assert_allclose(change.matrix, expected, atol=1e-7)
        assert change.flips == (0, 2)
        assert change.quarter_turns == 0


def test_axes_have_angles_and_factors_of_their_own():
    config = OFF.model_copy(
        update={
            "rotation": 1.0,
            "scaling": 1.0,
            "rotation_degrees": (12.0, 0.0, 0.0),
            "scaling_range": (0.9, 1.1),
            "scaling_per_axis": True,
        }
    )
    matrices = np.array([drawn(config, number).matrix for number in range(500)])
    factors = np.linalg.norm(matrices, axis=1)  # of each column: what one voxel of the result becomes
    assert 0.9 <= factors.min() < 0.905
    assert 1.095 < factors.max() <= 1.1
    assert np.abs(np.corrcoef(factors.T)[np.triu_indices(3, 1)]).max() < 0.15
    np.testing.assert_array_equal(matrices[:, 0, 1:], 0)  # D stays D
    angles = np.degrees(np.arctan2(matrices[:, 2, 1], matrices[:, 1, 1]))
    assert 11.8 < np.abs(angles).max() <= 12


def test_balanced_factors_are_below_1_as_often_as_above():
    def share_below(**settings: bool) -> float:
        config = OFF.model_copy(update={"scaling": 1.0, **settings})
        return float(np.mean([drawn(config, number).matrix[0, 0] < 1 for number in range(2000)]))

    assert share_below() == pytest.approx(0.3 / 0.7, abs=0.03)  # of 0.7 to 1.4
    assert share_below(scaling_balanced=True) == pytest.approx(0.5, abs=0.03)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("outside", ["reflection", "border", "zeros"])
def test_rotation_and_scaling_agree_with_monais_affine(outside):
    transforms = pytest.importorskip("monai.transforms")
    factors, angle = (1.05, 0.93, 1.1), 0.2  # along and about right, anterior, superior; about superior alone
    affine = transforms.Affine(
        rotate_params=[0, 0, angle], scale_params=list(factors), padding_mode=outside, image_only=True
    )
    turn = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
    change = SpatialChange(turn * factors[::-1], ())
    config = AugmentationConfig(outside=outside, label_order=0)
    image, target = torch.randn(2, *PATCH), torch.randint(0, 4, PATCH).short()
    result, moved = apply_spatial(change, image, target, PATCH, config=config)
    ras = (0, 3, 2, 1)
    np.testing.assert_allclose(result, affine(image.permute(ras), mode="bilinear").permute(ras), atol=1e-5)
    expected = affine(target[None].float().permute(ras), mode="nearest").permute(ras)[0]
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.filterwarnings("ignore")
def test_rotation_and_scaling_are_drawn_from_the_ranges_of_monais_random_affine():
    transforms = pytest.importorskip("monai.transforms")
    theirs = transforms.RandAffineGrid(rotate_range=(0, 0, np.pi / 15), scale_range=(0.1, 0.1, 0.1)).set_random_state(0)
    grids = []
    for _ in range(1000):
        theirs.randomize()
        grids.append([theirs.rotate_params[2], *theirs.scale_params])
    config = OFF.model_copy(
        update={
            "rotation": 1.0,
            "scaling": 1.0,
            "rotation_degrees": (12.0, 0.0, 0.0),
            "scaling_range": (0.9, 1.1),
            "scaling_per_axis": True,
        }
    )
    matrices = np.array([drawn(config, number).matrix for number in range(1000)])
    ours = np.stack([np.arctan2(matrices[:, 2, 1], matrices[:, 1, 1]), *np.linalg.norm(matrices, axis=1).T], axis=1)
    for quantile in (0.01, 0.25, 0.5, 0.75, 0.99):
        np.testing.assert_allclose(np.quantile(ours, quantile, axis=0), np.quantile(grids, quantile, axis=0), atol=0.02)


def test_cubic_sampling_agrees_with_nnunet_v1():
    interpolate = pytest.importorskip("batchgenerators.augmentations.utils").interpolate_img
    change = drawn(AugmentationConfig(rotation=1, scaling=1), 1)
    image = source_for(change)
    result, _ = apply_spatial(change, image, ones_like_target(image), PATCH, config=AugmentationConfig(image_order=3))
    lines = [np.arange(size) - (size - 1) / 2 for size in PATCH]
    offsets = np.stack(np.meshgrid(*lines, indexing="ij"))
    centre = (np.array(image.shape[1:]) - 1) / 2
    places = np.einsum("ij,j...->i...", change.matrix, offsets) + centre[:, None, None, None]
    expected = interpolate(image[0].numpy(), places, order=3, mode="constant", cval=0.0)
    np.testing.assert_allclose(result[0], expected, atol=1e-3)


def test_cubic_sampling_leaves_the_background_of_masked_channels_at_0():
    change = drawn(AugmentationConfig(rotation=1, scaling=1), 1)
    image = source_for(change).expand(2, -1, -1, -1) + 5
    image[:, : image.shape[1] // 2] = 0
    cubic = AugmentationConfig(image_order=3)
    result, _ = apply_spatial(change, image, ones_like_target(image), PATCH, config=cubic, masked_channels=(1,))
    free, _ = apply_spatial(change, image, ones_like_target(image), PATCH, config=cubic)
    linear, _ = apply_spatial(change, image, ones_like_target(image), PATCH)
    background = linear[1] == 0  # all eight neighbours are
    assert 0.2 < background.float().mean() < 0.8
    assert not result[1][background].any()
    assert torch.equal(result[0], free[0])
    assert (free[1][background] != 0).any()  # it rings
    kept = result[1] != 0
    assert torch.equal(result[1][kept], free[1][kept])
    assert 0.2 < kept.float().mean() < 0.8


def test_nearest_labels_are_values_of_the_source():
    change = drawn(AugmentationConfig(rotation=1, scaling=1), 1)
    image = source_for(change)
    target = torch.from_numpy(np.random.default_rng(0).choice([-1, 0, 7, 9], size=tuple(image.shape[1:]))).short()
    _, moved = apply_spatial(change, image, target, PATCH, config=AugmentationConfig(label_order=0))
    assert set(moved.unique().tolist()) == {-1, 0, 7, 9}
    assert moved.dtype == torch.int16


def test_quarter_turns_are_drawn_and_applied():
    config = OFF.model_copy(update={"rotation90": 0.25, "rotation90_axes": (2, 0)})
    turns = [drawn(config, number).quarter_turns for number in range(3000)]
    assert set(turns) == {0, 1, 2, 3}
    assert np.mean(np.array(turns) > 0) == pytest.approx(0.25, abs=0.03)
    assert turns.count(1) == pytest.approx(turns.count(3), rel=0.25)
    image = torch.arange(2 * 3 * 4 * 3.0).reshape(2, 3, 4, 3)
    result, target = apply_spatial(
        SpatialChange(None, (1,), quarter_turns=1), image, image[0].short(), (3, 4, 3), config=config
    )
    expected = image.flip(2).rot90(1, (3, 1))  # mirrored first
    assert torch.equal(result, expected)
    assert torch.equal(target, expected[0].short())


@pytest.mark.filterwarnings("ignore")
def test_quarter_turns_agree_with_monai():
    transforms = pytest.importorskip("monai.transforms")
    image = torch.randn(1, 4, 6, 6)
    ras = (0, 3, 2, 1)
    for turns in (1, 2, 3):
        theirs = transforms.Rotate90(k=turns, spatial_axes=(0, 1))(image.permute(ras)).permute(ras)
        change = SpatialChange(None, (), quarter_turns=4 - turns)  # about the same axis, counted the other way
        ours, _ = apply_spatial(change, image, image[0].short(), (4, 6, 6))
        np.testing.assert_array_equal(ours, theirs)


def test_mirroring_has_its_probability():
    config = OFF.model_copy(update={"mirror": True, "mirror_probability": 0.2})
    flips = [drawn(config, number, mirror_axes=(0, 1, 2)).flips for number in range(3000)]
    for axis in range(3):
        assert np.mean([axis in one for one in flips]) == pytest.approx(0.2, abs=0.03)


def test_mirroring_is_along_mirror_axes_alone():
    flips = {drawn(AugmentationConfig(), number, mirror_axes=(0, 2)).flips for number in range(50)}
    assert flips == {(), (0,), (2,), (0, 2)}
    assert drawn(AugmentationConfig(mirror=False), mirror_axes=(0, 1, 2)).flips == ()


def test_flips_are_exact():
    image = source_for(SpatialChange(None, ()))
    target = torch.arange(image.numel(), dtype=torch.int16).reshape(image.shape[1:])
    result, moved = apply_spatial(SpatialChange(None, (0, 2)), image, target, PATCH)
    assert torch.equal(result, image.flip(1, 3))
    assert torch.equal(moved, target.flip(0, 2))


def test_the_identity_as_a_matrix_gives_the_source_back():
    change = SpatialChange(np.eye(3), ())
    image = source_for(change)
    target = torch.randint(-1, 3, PATCH).short()
    result, moved = apply_spatial(change, image, target, PATCH)
    torch.testing.assert_close(result, image, atol=1e-4, rtol=0)
    assert torch.equal(moved, target)


def test_sampling_agrees_with_scipy():
    change = drawn(AugmentationConfig(rotation=1, scaling=1), 1)
    image = source_for(change)
    result, _ = apply_spatial(change, image, ones_like_target(image), PATCH)
    lines = [np.arange(size) - (size - 1) / 2 for size in PATCH]
    offsets = np.stack(np.meshgrid(*lines, indexing="ij"))
    centre = (np.array(image.shape[1:]) - 1) / 2
    places = np.einsum("ij,j...->i...", change.matrix, offsets) + centre[:, None, None, None]
    expected = ndimage.map_coordinates(image[0].numpy(), places, order=1)
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("anisotropic", [False, True])
def test_the_margin_is_enough_and_no_corner_is_filled_with_zeros(anisotropic):
    for number in range(20):
        change = drawn(AugmentationConfig(rotation=1, scaling=1), number, anisotropic=anisotropic)
        image = torch.ones_like(source_for(change))
        result, target = apply_spatial(change, image, ones_like_target(image), PATCH)
        assert result.shape[1:] == target.shape == PATCH
        assert (result > 0.999).all()
        assert (target == 1).all()


def test_an_image_that_equals_its_label_stays_aligned():
    for number in range(10):
        change = drawn(AugmentationConfig(rotation=1, scaling=1), number, mirror_axes=(0, 1, 2))
        image = (source_for(change) > 0).float()
        result, target = apply_spatial(change, image, image[0].short(), PATCH)
        assert torch.equal((result[0] > 0.5).short(), target)


def test_in_plane_changes_keep_slices_apart():
    change = drawn(AugmentationConfig(rotation=1, scaling=1), 2, anisotropic=True)
    image = source_for(change)
    image[:] = torch.arange(image.shape[1])[None, :, None, None]
    result, target = apply_spatial(change, image, image[0].short(), PATCH)
    assert change.margin(PATCH)[0] == 0
    expected = torch.arange(PATCH[0]).float()[:, None, None].expand(PATCH)
    torch.testing.assert_close(result[0], expected, atol=1e-4, rtol=0)
    assert torch.equal(target, expected.short())


def test_what_lies_outside_the_scan_is_background():
    change = SpatialChange(np.eye(3) * 2, ())  # shows twice the patch, of which only the patch is given
    image = torch.ones(1, *PATCH)
    _, target = apply_spatial(change, image, torch.full(PATCH, -1, dtype=torch.int16), PATCH)
    inside = torch.zeros(PATCH, dtype=torch.bool)
    inside[2:6, 3:9, 3:7] = True  # W 2 is taken at -0.5, half outside: a tie, which the background wins
    assert torch.equal(target == -1, inside)
    assert (target[~inside] == 0).all()
