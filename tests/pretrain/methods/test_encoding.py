import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "nets"))
from small import SMALL

from voxelseg.nets import create_model, pretrainable_models
from voxelseg.nets.parts import encoded_channels
from voxelseg.pretrain.methods.encoding import RunningStandardisation, encoded

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


def test_running_statistics_are_means_of_the_first_steps_and_then_follow_the_last():
    standardise = RunningStandardisation(2)
    rows = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    torch.testing.assert_close(standardise(rows), rows, rtol=1e-4, atol=1e-4)  # nothing is known yet
    # Means (2, 5), variances (1, 0)
    wanted = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    torch.testing.assert_close(standardise(rows + 2) * torch.tensor([1.0, 0.00316228]), wanted, rtol=1e-4, atol=1e-4)
    # Means of both steps (3, 6); around them the second step has variances (0 + 4) / 2 and 1, the first had 1 and 0
    torch.testing.assert_close(standardise.mean, torch.tensor([3.0, 6.0]))
    torch.testing.assert_close(standardise.variance, torch.tensor([1.5, 0.5]))
    for _ in range(8):
        standardise(rows + 2)
    assert int(standardise.updates) == 10
    before = standardise.mean.clone()
    standardise(rows + 12)
    torch.testing.assert_close(standardise.mean, before + 0.1 * (torch.tensor([14.0, 17.0]) - before))


def test_running_statistics_stay_as_they_are_outside_of_training():
    standardise = RunningStandardisation(2)
    standardise(torch.tensor([[1.0, 5.0], [3.0, 5.5]]))
    before = {name: values.clone() for name, values in standardise.state_dict().items()}
    standardise.eval()(torch.tensor([[7.0, 1.0], [9.0, 2.0]]))
    for name, values in standardise.state_dict().items():
        assert torch.equal(values, before[name]), name


def test_running_statistics_leave_out_what_overflowed():
    sound, broken = RunningStandardisation(2), RunningStandardisation(2)
    sound(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    broken(torch.full((2, 2), torch.inf))
    assert int(broken.updates) == 0
    broken(torch.tensor([[1.0, 5.0], [torch.nan, 1.0], [3.0, 5.0]]))
    for name, values in sound.state_dict().items():
        torch.testing.assert_close(broken.state_dict()[name], values, msg=name)


def test_crops_that_instance_norm_makes_alike_are_told_apart():
    torch.manual_seed(0)
    network = small("unet_s").eval()
    images = torch.randn(6, 2, 16, 16, 16).cumsum(4)  # smooth along W
    standardise = RunningStandardisation(encoded_channels(network))
    with torch.no_grad():
        vectors = encoded(network, images)
        standardise(vectors)
        standardise.eval()
        cosines = [F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T for rows in (vectors, standardise(vectors))]
    assert cosines[0].min() > 0.95
    assert cosines[1].fill_diagonal_(0).max() < 0.9


def test_compiled_gradients_are_those_of_the_statistics_before_the_update():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(3, 4), RunningStandardisation(4))
    crops = torch.randn(5, 3)
    found = []
    for forward in (plain, torch.compile(copy.deepcopy(plain), backend="aot_eager")):
        for _ in range(2):
            forward.zero_grad()
            forward(crops).square().sum().backward()
            found.append([parameter.grad for parameter in forward.parameters()])
    torch.testing.assert_close(found[2:], found[:2])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "rubik-cls"])
def test_two_processes_have_the_loss_the_gradients_and_the_statistics_of_one_with_the_whole_batch(method, tmp_path):
    script = Path(__file__).with_name("steps_together.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for command in ([sys.executable], torchrun):
        subprocess.run([*command, script, method, tmp_path], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    alone, together = (torch.load(tmp_path / f"{count}.pt") for count in (1, 2))
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6, msg=name)
