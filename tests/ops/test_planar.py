import pytest
import torch

from voxelseg.ops.planar import planar_conv, planar_conv_plain


@pytest.mark.parametrize("kernel", [(1, 3, 3), (1, 1, 5), (3, 1, 3), (3, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 3)])
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_planes_as_samples_give_the_same_convolution(kernel, stride, channels, layout):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 5, 9, 7).contiguous(memory_format=layout).requires_grad_()
    weight, bias = torch.randn(4, channels, *kernel, requires_grad=True), torch.randn(4, requires_grad=True)
    out = planar_conv(x, weight, bias, stride=stride)
    expected = planar_conv_plain(x, weight, bias, stride=stride)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    grad, inputs = torch.randn_like(expected), (x, weight, bias)
    for one, other in zip(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_few_voxels_and_no_bias_are_taken_too():
    x, weight = torch.randn(1, 3, 2, 4, 3), torch.randn(2, 3, 1, 3, 3)
    torch.testing.assert_close(planar_conv(x, weight, None), planar_conv_plain(x, weight, None))
