import itertools

import numpy as np
import pytest
import torch

from voxelseg.predict.sliding_window import gaussian_weights, predict_volume, window_starts, window_weights

IMAGE = torch.arange(2 * 7 * 9 * 11, dtype=torch.float32).reshape(2, 7, 9, 11)


def voxelwise(batch):
    """A network without context: two outputs, each a function of the voxel itself."""
    return torch.stack([batch.sum(dim=1), batch[:, 0] - 1], dim=1)


@pytest.mark.parametrize(
    ("size", "window", "overlap", "expected"),
    [
        (10, 16, 0.5, [0]),
        (16, 16, 0.5, [0]),
        (17, 16, 0.5, [0, 1]),
        (32, 16, 0.5, [0, 8, 16]),
        (30, 16, 0.5, [0, 7, 14]),
        (32, 16, 0.0, [0, 16]),
        (33, 16, 0.0, [0, 8, 17]),  # evenly spread: 17 / 2 = 8.5
        (5, 1, 0.5, [0, 1, 2, 3, 4]),
    ],
)
def test_windows_are_spread_evenly_from_the_first_voxel_to_the_last(size, window, overlap, expected):
    assert window_starts(size, window, overlap) == expected


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75, 0.9])
def test_windows_cover_every_voxel_and_overlap_as_much_as_asked(overlap):
    for size, window in itertools.product(range(1, 60, 3), (1, 5, 16)):
        starts = window_starts(size, window, overlap)
        covered = {voxel for start in starts for voxel in range(start, start + window)}
        assert set(range(size)) <= covered
        assert size <= window or max(covered) == size - 1
        # Starts are whole voxels, so that a window may reach half a voxel further on either side.
        assert all(
            later - earlier <= max(1, window * (1 - overlap)) + 1 for earlier, later in itertools.pairwise(starts)
        )


@pytest.mark.parametrize(
    ("size", "window", "overlap", "expected"),
    [
        (10, 16, 0.5, [0]),
        (32, 16, 0.5, [0, 8, 16]),
        (30, 16, 0.5, [0, 8, 14]),  # the last ends with the axis
        (33, 16, 0.25, [0, 12, 17]),
        (40, 9, 0.7, [*range(0, 31, 2), 31]),  # steps of 2.7 become 2
        (5, 1, 0.9, [0, 1, 2, 3, 4]),
    ],
)
def test_stepped_windows_lie_a_step_apart_and_the_last_ends_with_the_axis(size, window, overlap, expected):
    assert window_starts(size, window, overlap, "stepped") == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
@pytest.mark.parametrize("weighting", ["constant", "gaussian"])
def test_stepped_windows_give_what_monai_gives(overlap, weighting):
    inferers = pytest.importorskip("monai.inferers")
    torch.manual_seed(0)
    network = torch.nn.Conv3d(2, 3, 3, padding=1)  # a network with context: it matters where windows lie
    # Odd windows have a voxel at their centre; of even ones MONAI's Gaussian stays below 1, but not its lowest weight.
    windows = [(3, 5, 7), (7, 3, 11), (5, 9, 17)]
    for window in windows if weighting == "gaussian" else [*windows, (4, 6, 2), (8, 4, 16)]:
        with torch.no_grad():
            ours = predict_volume(
                network, IMAGE / 100, window=window, overlap=overlap, placement="stepped", weighting=weighting
            )
            (theirs,) = inferers.sliding_window_inference(
                IMAGE[None] / 100, window, 2, network, overlap=overlap, mode=weighting
            )
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_even_and_stepped_windows_differ_where_steps_do_not_fill_an_axis():
    # Windows of 4 at 0, 2, 4 and 6 of 9: even ones end at 0, 1.67, 3.33, 5, so that the gaps are equal.
    assert window_starts(9, 4, 0.5) == [0, 2, 3, 5]
    assert window_starts(9, 4, 0.5, "stepped") == [0, 2, 4, 5]


def test_constant_weights_are_all_one():
    assert torch.equal(window_weights((2, 3, 4), "constant"), torch.ones(2, 3, 4))
    assert torch.equal(window_weights((2, 3, 4), "gaussian"), gaussian_weights((2, 3, 4)))


def test_weights_are_one_in_the_middle_symmetric_and_never_zero():
    weights = gaussian_weights((5, 9, 33))
    assert weights[2, 4, 16] == 1.0
    assert weights.min() >= 1e-3
    assert torch.equal(weights, weights.flip(0, 1, 2))
    # One standard deviation, 33 / 8 voxels, from the centre the weight is exp(-1/2).
    assert float(weights[2, 4, 20]) == pytest.approx(np.exp(-0.5 * (4 / (33 / 8)) ** 2))


def test_one_window_that_fits_is_the_network_itself():
    result = predict_volume(voxelwise, IMAGE, window=(7, 9, 11), overlap=0.5)
    torch.testing.assert_close(result, voxelwise(IMAGE[None])[0])


@pytest.mark.parametrize("window", [(4, 4, 4), (3, 9, 5), (8, 4, 16), (16, 16, 16), (1, 1, 1)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_network_without_context_gives_the_same_whatever_the_windows(window, batch_size):
    result = predict_volume(voxelwise, IMAGE, window=window, overlap=0.5, batch_size=batch_size)
    torch.testing.assert_close(result, voxelwise(IMAGE[None])[0])


def test_a_constant_network_gives_a_constant():
    def constant(batch):
        return torch.tensor([0.25, 0.75]).reshape(1, 2, 1, 1, 1).expand(batch.shape[0], 2, *batch.shape[2:])

    result = predict_volume(constant, IMAGE, window=(4, 4, 4), overlap=0.3)
    torch.testing.assert_close(result, torch.tensor([0.25, 0.75]).reshape(2, 1, 1, 1).expand(2, 7, 9, 11))


def test_a_small_volume_is_padded_by_zeros_on_both_sides_and_cropped_back():
    seen = []

    def watching(batch):
        seen.append(batch.clone())
        return voxelwise(batch)

    image = torch.ones(1, 2, 3, 4)
    result = predict_volume(watching, image, window=(4, 4, 7), overlap=0.5)
    (batch,) = seen
    assert batch.shape == (1, 1, 4, 4, 7)
    inside = batch[0, 0, 1:3, 0:3, 1:5]  # 2 missing: 1 before; 1 missing: 0 before; 3 missing: 1 before
    assert inside.eq(1).all()
    assert batch.sum() == inside.sum()
    assert result.shape == (2, 2, 3, 4)


@pytest.mark.parametrize("axes", [(), (0,), (2,), (0, 2), (0, 1, 2)])
def test_mirroring_averages_over_all_combinations_of_its_axes_and_no_others(axes):
    def ramps(batch):
        """Outputs that grow along D, H and W, so that mirroring an axis makes them symmetric there."""
        grids = torch.meshgrid(*(torch.arange(float(size)) for size in batch.shape[2:]), indexing="ij")
        return torch.stack(grids)[None].expand(batch.shape[0], -1, -1, -1, -1)

    result = predict_volume(ramps, IMAGE, window=(7, 9, 11), overlap=0.5, mirror_axes=axes)
    for axis in range(3):
        symmetric = torch.equal(result[axis], result[axis].flip(axis))
        assert symmetric == (axis in axes)


def test_each_window_is_run_once_for_every_mirrored_version():
    calls = []

    def counting(batch):
        calls.append(batch.shape[0])
        return voxelwise(batch)

    predict_volume(counting, IMAGE, window=(7, 9, 6), overlap=0.5, mirror_axes=(0, 1))
    assert len(calls) == 3 * 4  # starts 0, 2.5, 5 along W; 4 combinations of two axes


def test_progress_ends_at_one():
    shares = []
    predict_volume(voxelwise, IMAGE, window=(4, 9, 11), overlap=0.5, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
