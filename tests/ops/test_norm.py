import pytest
import torch

from voxelseg.ops import norm
from voxelseg.ops.norm import (
    global_response_norm,
    instance_norm,
    instance_norm_add_leaky_relu,
    instance_norm_add_leaky_relu_plain,
    instance_norm_leaky_relu,
    instance_norm_leaky_relu_plain,
    layer_norm,
)


@pytest.fixture
def fast(monkeypatch):
    """The fast forms, however small the input."""
    monkeypatch.setattr(norm, "FEW_VALUES", 0)


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
@pytest.mark.parametrize("affine", [True, False])
def test_norm_with_leaky_relu_agrees_with_its_plain_twin(fast, monkeypatch, tile_values, memory_format, affine):
    monkeypatch.setattr(norm, "TILE_VALUES", tile_values)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 3, 4, 5).mul_(2).add_(1).to(memory_format=memory_format)
    inputs = [x.requires_grad_(), *(torch.randn(3, requires_grad=True) for _ in range(2 * affine))]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    weights = [] if affine else [None, None]
    y = instance_norm_leaky_relu(*inputs, *weights, eps=1e-5, slope=0.01)
    expected = instance_norm_leaky_relu_plain(*exact, *weights, eps=1e-5, slope=0.01)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    gradients = torch.autograd.grad(y, inputs, grad)
    for a, b in zip(gradients, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


def test_sums_are_of_the_normalised_input_and_the_residual():
    # The input's channel is 1, 3: normalised -1, 1. With residual 0, -2 the sum is -1, -1; with the residual normalised
    # to 1, -1 it is 0, 0. The slope is 0.1.
    x, residual = torch.tensor([1.0, 3.0]).view(1, 1, 1, 1, 2), torch.tensor([0.0, -2.0]).view(1, 1, 1, 1, 2)
    for form in (instance_norm_add_leaky_relu, instance_norm_add_leaky_relu_plain):
        plain, normalised = (form(x, residual, norm_residual=norm, eps=0.0, slope=0.1) for norm in (False, True))
        assert plain.flatten().tolist() == pytest.approx([-0.1, -0.1])
        assert normalised.flatten().tolist() == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize("tile_values", [12, 2**19])  # 4 rows of the 60, all rows
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("norm_residual", [True, False])
def test_norm_with_residual_agrees_with_its_plain_twin(fast, monkeypatch, tile_values, memory_format, norm_residual):
    monkeypatch.setattr(norm, "TILE_VALUES", tile_values)
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 3, 4, 5).add_(1).to(memory_format=memory_format).requires_grad_() for _ in range(2)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    options = {"norm_residual": norm_residual, "eps": 1e-5, "slope": 0.01}
    y, expected = (
        instance_norm_add_leaky_relu(*inputs, **options),
        instance_norm_add_leaky_relu_plain(*exact, **options),
    )
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    gradients = torch.autograd.grad(y, inputs, grad)
    for a, b in zip(gradients, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)


def test_few_nearly_equal_voxels_are_normalised_accurately():
    # Mean 30, variance 0.0025: the sum of squares, 1800, would carry it to a tenth in single precision.
    x = torch.tensor([30.0, 30.1]).expand(1, 3, 2, 2, 2).to(memory_format=torch.channels_last_3d)
    y = instance_norm_leaky_relu(x, torch.ones(3), torch.zeros(3), eps=1e-5, slope=0.01)
    expected = instance_norm_leaky_relu_plain(x.double(), None, None, eps=1e-5, slope=0.01)
    torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mean", [30.0, 1000.0])
def test_channels_far_from_zero_keep_their_variance(fast, monkeypatch, mean):
    monkeypatch.setattr(norm, "TILE_VALUES", 4000)  # several tiles
    x = torch.randn(2, 3, 20, 30, 24, generator=torch.Generator().manual_seed(0)) + mean
    x[:, :, 0] *= 0.3  # the first voxels are no guide to the rest
    expected = instance_norm_leaky_relu_plain(x.double(), None, None, eps=1e-5, slope=0.01)
    y = instance_norm_leaky_relu(x, None, None, eps=1e-5, slope=0.01)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-6 * mean)
