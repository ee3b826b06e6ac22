import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "nets"))
from small import SMALL

from voxelseg.nets import create_model, pretrainable_models
from voxelseg.nets.parts import encoded_channels
from voxelseg.pretrain.methods.encoding import encoded

NETWORKS = [name for name in pretrainable_models() if not name.endswith(("_b", "_m", "_l", "_xl"))]


def small(name):
    torch.manual_seed(0)
    return create_model(name, in_channels=2, num_classes=3, **SMALL[name])


def test_a_crop_becomes_the_average_of_the_deepest_features_of_each_channel():
    network = small("unet_s").eval()
    image = torch.randn(3, 2, 16, 8, 24)
    with torch.no_grad():
        vector, (deepest,) = encoded(network, image), network.encode(image)
    torch.testing.assert_close(vector, deepest.mean((2, 3, 4)))


def test_the_vectors_of_all_encoders_follow_one_another():
    network = small("logonet").eval()
    image = torch.randn(1, 2, *(2 * step for step in network.divisor))
    with torch.no_grad():
        vector, deepest = encoded(network, image), network.encode(image)
    assert len(deepest) == 1 + 4  # the whole, and parts of 1 x 2 x 2
    torch.testing.assert_close(vector, torch.cat([one.mean((2, 3, 4)) for one in deepest], dim=1))


def test_zeros_fill_a_crop_up_to_a_size_that_the_network_takes():
    network = small("unet_s").eval()
    image = torch.randn(1, 2, 5, 7, 6)
    padded = torch.zeros(1, 2, 8, 8, 16)  # a multiple of 8, and more than one voxel at the lowest resolution
    padded[:, :, :5, :7, :6] = image
    with torch.no_grad():
        assert torch.equal(encoded(network, image), encoded(network, padded))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_length_of_the_vector_is_known_before(name):
    network = small(name).eval()
    with torch.no_grad():
        vector = encoded(network, torch.randn(2, 2, *network.divisor))
    assert vector.shape == (2, encoded_channels(network))
    assert vector.dtype == torch.float32
