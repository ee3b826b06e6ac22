import pytest
import torch

from voxelseg.ops.block_upsample import block_upsample, block_upsample_plain


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 3), (1, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_a_matrix_product_gives_the_transposed_convolution(stride, layout):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 2, 4).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(5, 3, *stride, requires_grad=True)
    out, expected = block_upsample(x, weight), block_upsample_plain(x, weight)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(expected)
    for one, other in zip(
        torch.autograd.grad(out, (x, weight), grad), torch.autograd.grad(expected, (x, weight), grad), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("out_channels", [3, 40])
def test_the_form_without_gradients_gives_the_same(out_channels):
    torch.manual_seed(0)
    x, weight = torch.randn(1, 5, 3, 2, 4), torch.randn(5, out_channels, 1, 2, 2)
    with torch.no_grad():
        out = block_upsample(x, weight)
    torch.testing.assert_close(out, block_upsample(x, weight), rtol=1e-5, atol=1e-5)
