import pytest
import torch

from voxelseg.ops import norm
from voxelseg.ops.norm import (
    global_response_norm,
    instance_norm,
    instance_norm_leaky_relu,
    instance_norm_leaky_relu_plain,
    layer_norm,
)


def test_instance_norm_standardises_each_channel_of_each_sample():
    x = torch.tensor([1.0, 3.0, 10.0, 30.0]).view(1, 2, 2, 1)
    y = instance_norm(x, torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]), eps=0.0)
    assert y.flatten().tolist() == pytest.approx([-1.0, 1.0, 3.0, 7.0])


def test_layer_norm_standardises_each_voxel():
    x = torch.tensor([1.0, 3.0, 10.0, 30.0]).view(1, 2, 2, 1)  # voxel 0 is (1, 10), voxel 1 is (3, 30)
    y = layer_norm(x, torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0]), eps=0.0)
    assert y.flatten().tolist() == pytest.approx([-1.0, -1.0, 7.0, 7.0])


def test_global_response_norm_scales_by_the_relative_strength_of_a_channel():
    # L2 norms over space 5 and 15, their mean 10: channels are scaled by 0.5 and 1.5, then the input is added.
    x = torch.tensor([3.0, 4.0, 9.0, 12.0]).view(1, 2, 2, 1)
    ones, zeros = torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    assert global_response_norm(x, ones, zeros).flatten().tolist() == pytest.approx([4.5, 6.0, 22.5, 30.0])
    assert torch.equal(global_response_norm(x, zeros, zeros), x)


@pytest.mark.parametrize("tile_values", [12, 2**19])  # 4 rows of the 60, all rows
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_norm_with_leaky_relu_agrees_with_its_plain_twin(monkeypatch, tile_values, memory_format):
    monkeypatch.setattr(norm, "TILE_VALUES", tile_values)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 3, 4, 5).mul_(2).add_(1).to(memory_format=memory_format)
    inputs = [x.requires_grad_(), torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    y = instance_norm_leaky_relu(*inputs, eps=1e-5, slope=0.01)
    expected = instance_norm_leaky_relu_plain(*exact, eps=1e-5, slope=0.01)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    gradients = torch.autograd.grad(y, inputs, grad)
    for a, b in zip(gradients, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
