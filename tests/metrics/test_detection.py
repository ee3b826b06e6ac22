import numpy as np
import pytest
from scipy import ndimage

from voxelseg.metrics.detection import lesion_f1
from voxelseg.metrics.pair import MaskPair


def masks(reference_voxels, prediction_voxels):
    reference, prediction = np.zeros((2, 5, 7, 9), bool)
    for voxel in reference_voxels:
        reference[voxel] = True
    for voxel in prediction_voxels:
        prediction[voxel] = True
    return MaskPair(reference, prediction, (3.0, 1.0, 0.5))


def by_labelling(reference, prediction):
    """Slow obvious version."""
    (lesions, count), (predicted, num_predicted) = (
        ndimage.label(mask, np.ones((3, 3, 3))) for mask in (reference, prediction)
    )
    found = sum((prediction & (lesions == number)).any() for number in range(1, count + 1))
    invented = sum(not (reference & (predicted == number)).any() for number in range(1, num_predicted + 1))
    return 2 * found / (2 * found + (count - found) + invented)


def test_one_of_two_lesions_found_and_one_invented():
    # Lesions at (0, 0, 0) and (4, 6, 8); found is the first, (2, 3, 4) is invented: 2 / (2 + 1 + 1).
    assert lesion_f1(masks([(0, 0, 0), (4, 6, 8)], [(0, 0, 0), (2, 3, 4)])) == 0.5


def test_one_common_voxel_finds_a_lesion_whatever_its_size():
    assert lesion_f1(masks([(1, 1, w) for w in range(9)], [(1, 1, 8), (2, 1, 8)])) == 1.0


def test_one_predicted_lesion_may_find_several():
    assert lesion_f1(masks([(1, 1, 0), (1, 1, 4)], [(1, 1, w) for w in range(5)])) == 1.0


def test_voxels_that_share_a_corner_are_one_lesion():
    # (0, 0, 0) and (1, 1, 1) touch at a corner: one lesion, found. (4, 6, 8) is missed: 2 / (2 + 1).
    assert lesion_f1(masks([(0, 0, 0), (1, 1, 1), (4, 6, 8)], [(1, 1, 1)])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_labelling_every_voxel(seed, share):
    generator = np.random.default_rng(seed)
    reference, prediction = generator.random((2, 6, 7, 11)) < share
    reference[0, 0, 0] = prediction[-1, -1, -1] = True
    assert lesion_f1(MaskPair(reference, prediction, (1.0, 1.0, 1.0))) == by_labelling(reference, prediction)
    blobs = [
        ndimage.binary_dilation(mask, iterations=seed % 3) if seed % 3 else mask for mask in (reference, prediction)
    ]
    assert lesion_f1(MaskPair(*blobs, (1.0, 1.0, 1.0))) == by_labelling(*blobs)
