import pytest
import torch

from voxelseg.ops.pointwise import pointwise_conv, pointwise_conv_plain, pointwise_head


@pytest.mark.parametrize("function", [pointwise_conv, pointwise_head])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_fast_forms_agree_with_their_plain_twin(function, memory_format):
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 5, 3, 4, 6).to(memory_format=memory_format).requires_grad_(),
        torch.randn(7, 5, 1, 1, 1).requires_grad_(),
        torch.randn(7).requires_grad_(),
    ]
    y, expected = function(*inputs), pointwise_conv_plain(*inputs)
    torch.testing.assert_close(y, expected)
    grad = torch.randn_like(expected)
    for a, b in zip(torch.autograd.grad(y, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_head_returns_channels_first_memory_and_a_convolution_channels_last():
    x = torch.randn(2, 5, 3, 4, 6).to(memory_format=torch.channels_last_3d)
    weight = torch.randn(7, 5, 1, 1, 1)
    assert pointwise_head(x, weight, torch.zeros(7)).is_contiguous()
    assert pointwise_conv(x, weight, None).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("function", [pointwise_conv, pointwise_head])
def test_the_bias_may_be_left_out(function):
    x, weight = torch.randn(2, 5, 3, 4, 6), torch.randn(7, 5, 1, 1, 1)
    torch.testing.assert_close(function(x, weight, None), pointwise_conv_plain(x, weight, None))


def test_slices_use_the_plain_form():
    x, weight = torch.randn(2, 5, 4, 6), torch.randn(7, 5, 1, 1)
    assert torch.equal(pointwise_conv(x, weight, None), pointwise_conv_plain(x, weight, None))
