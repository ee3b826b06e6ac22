import pytest
import torch
from torch import Tensor

from voxelseg.ops import dilated
from voxelseg.ops.dilated import dilated_depthwise_conv, dilated_depthwise_conv_plain


def inputs(size: tuple[int, ...], kernel: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((2, 5, *size), (5, 1, *kernel), (5,))]


@pytest.mark.parametrize("smallest_sample", [0, 10**9], ids=["as samples", "as channels"])
@pytest.mark.parametrize("kernel", [(7, 7, 7), (1, 7, 7), (3, 5, 1), (1, 1, 1)])
@pytest.mark.parametrize("size", [(4, 9, 11), (1, 3, 20), (2, 2, 3)])
def test_phases_give_what_the_dilated_convolution_gives(monkeypatch, size, kernel, smallest_sample):
    """Values and gradients of the fast form in float32 against the plain one in float64."""
    monkeypatch.setattr(dilated, "_MIN_VOXELS_PER_SAMPLE", smallest_sample)
    fast = [tensor.requires_grad_() for tensor in inputs(size, kernel)]
    exact = [tensor.detach().double().requires_grad_() for tensor in fast]
    y = dilated_depthwise_conv(*fast, dilation=3)
    expected = dilated_depthwise_conv_plain(*exact, dilation=3)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    gradients = torch.autograd.grad(y, fast, grad)
    for a, b in zip(gradients, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_taps_read_voxels_a_dilation_apart():
    x = torch.zeros(1, 1, 1, 1, 9)
    x[..., 4] = 1
    weight = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 1, 3)
    y = dilated_depthwise_conv(x, weight, torch.zeros(1), dilation=3)
    assert y.flatten().tolist() == [0, 3, 0, 0, 2, 0, 0, 1, 0]  # voxel 1 reads voxel 4 with the last tap


def test_taps_that_can_only_read_padding_are_left_out():
    weight = torch.randn(5, 1, 7, 7, 7)
    # Taps 3, 6, 9 voxels from the middle: none within 3 voxels, 3 within 6, 3 and 6 within 7, all within 10.
    assert dilated._live_taps(weight, torch.Size((3, 6, 7)), 3).shape == (5, 1, 1, 3, 5)
    assert dilated._live_taps(weight, torch.Size((10, 40, 2)), 3).shape == (5, 1, 7, 7, 1)
    x, bias = torch.randn(2, 5, 3, 2, 3), torch.randn(5)
    scaled = x * weight[:, :, 3, 3, 3].view(-1, 1, 1, 1) + bias.view(-1, 1, 1, 1)
    torch.testing.assert_close(dilated_depthwise_conv(x, weight, bias, dilation=3), scaled)
