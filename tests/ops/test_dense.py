import pytest
import torch

from voxelseg.ops.dense import dense_conv, dense_conv_plain
from voxelseg.ops.dispatch import plain_forms


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [((3, 3, 3), 1, 1), ((7, 3, 1), (4, 2, 1), (3, 1, 0))])
@pytest.mark.parametrize("batch", [1, 2])
def test_one_sample_and_several_agree_with_the_plain_twin(batch, kernel, stride, padding, memory_format):
    """Values and gradients of the fast form in float32 against the plain one in float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, 3, 5, 6, 7), (4, 3, *kernel), (4,))
    fast = [torch.randn(shape, generator=generator) for shape in shapes]
    fast[0] = fast[0].contiguous(memory_format=memory_format)
    exact = [tensor.double().requires_grad_() for tensor in fast]
    fast = [tensor.requires_grad_() for tensor in fast]
    y = dense_conv(*fast, stride=stride, padding=padding)
    expected = dense_conv_plain(*exact, stride=stride, padding=padding)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    gradients = torch.autograd.grad(y, fast, grad)
    for a, b in zip(gradients, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_slices_and_other_machines_get_the_plain_form(monkeypatch):
    x, weight = torch.randn(1, 3, 5, 6), torch.randn(2, 3, 3, 3)
    expected = torch.nn.functional.conv2d(x, weight, None, 2, 1)
    torch.testing.assert_close(dense_conv(x, weight, None, stride=2, padding=1), expected)
    x, weight = torch.randn(1, 3, 5, 6, 7), torch.randn(2, 3, 3, 3, 3)
    expected = dense_conv(x, weight, None)
    with plain_forms():
        torch.testing.assert_close(dense_conv(x, weight, None), expected)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    torch.testing.assert_close(dense_conv(x, weight, None), expected)
