import pytest
import torch
from torch import Tensor

from voxelseg.ops import depthwise
from voxelseg.ops.depthwise import (
    depthwise_conv,
    depthwise_conv_plain,
    depthwise_conv_transpose,
    depthwise_conv_transpose_plain,
)
from voxelseg.ops.dispatch import plain_forms

SIZES = [(4, 6, 8), (10, 12, 14), (2, 2, 2)]


def value_and_gradients(function, *inputs: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    value = function(*leaves)
    grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)).to(value.dtype)
    return [value.detach(), *torch.autograd.grad(value, leaves, grad)]


def assert_same(fast, plain, *inputs: Tensor) -> None:
    """The fast form in float32 against the plain one in float64, which never takes the fast path."""
    expected = value_and_gradients(plain, *(tensor.double() for tensor in inputs))
    for a, b in zip(value_and_gradients(fast, *inputs), expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def arguments(kernel_size: int | tuple[int, ...], size: tuple[int, ...]) -> list[Tensor]:
    kernel = (kernel_size,) * len(size) if isinstance(kernel_size, int) else kernel_size
    generator = torch.Generator().manual_seed(sum(kernel))
    shapes = ((2, 5, *size), (5, 1, *kernel), (5,))
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.fixture(autouse=True, params=[0, 10**9], ids=["planes", "whole"])
def both_forms_of_the_weight_gradient(request, monkeypatch):
    monkeypatch.setattr(depthwise, "_MIN_VOXELS_FOR_PLANES", request.param)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_convolution_agrees_with_its_plain_twin(kernel_size, stride, size):
    assert_same(
        lambda x, w, b: depthwise_conv(x, w, b, stride=stride),
        lambda x, w, b: depthwise_conv_plain(x, w, b, stride=stride),
        *arguments(kernel_size, size),
    )


@pytest.mark.parametrize("size", [*SIZES, (1, 2, 3)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_transposed_convolution_agrees_with_its_plain_twin(kernel_size, size):
    assert_same(depthwise_conv_transpose, depthwise_conv_transpose_plain, *arguments(kernel_size, size))


@pytest.mark.parametrize("size", [(5, 7, 9), (11, 13, 9), (1, 1, 3)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_odd_sizes_are_strided_too(kernel_size, size):
    assert_same(
        lambda x, w, b: depthwise_conv(x, w, b, stride=2),
        lambda x, w, b: depthwise_conv_plain(x, w, b, stride=2),
        *arguments(kernel_size, size),
    )


THICK = [(1, 3, 3), (1, 5, 5), (3, 5, 7), (5, 3, 3), (3, 1, 5)]
STEPS = [(1, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 2)]


@pytest.mark.parametrize("size", [(3, 11, 9), (1, 10, 12), (2, 4, 6)])
@pytest.mark.parametrize("stride", STEPS)
@pytest.mark.parametrize("kernel", THICK)
def test_kernels_and_strides_may_differ_between_axes(kernel, stride, size):
    assert_same(
        lambda x, w, b: depthwise_conv(x, w, b, stride=stride),
        lambda x, w, b: depthwise_conv_plain(x, w, b, stride=stride),
        *arguments(kernel, size),
    )


@pytest.mark.parametrize("size", [(3, 5, 4), (1, 2, 7)])
@pytest.mark.parametrize("stride", STEPS)
@pytest.mark.parametrize("kernel", THICK)
def test_transposed_kernels_and_strides_may_differ_between_axes(kernel, stride, size):
    inputs = arguments(kernel, size)
    assert_same(
        lambda x, w, b: depthwise_conv_transpose(x, w, b, stride=stride),
        lambda x, w, b: depthwise_conv_transpose_plain(x, w, b, stride=stride),
        *inputs,
    )
    expected = [2 * n - 1 if step == 2 else n for n, step in zip(size, stride, strict=True)]
    assert list(depthwise_conv_transpose(*inputs, stride=stride).shape[2:]) == expected


@pytest.mark.parametrize("function", [depthwise_conv, depthwise_conv_transpose])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bias_that_does_not_count_is_left_out_and_has_a_gradient_of_zero(function, dtype):
    x, weight, bias = (tensor.to(dtype).requires_grad_() for tensor in arguments(3, (4, 6, 8)))
    y = function(x, weight, bias, stride=2, bias_counts=False)
    torch.testing.assert_close(y, function(x, weight, None, stride=2))
    y.square().sum().backward()
    assert torch.equal(bias.grad, torch.zeros_like(bias))
    assert x.grad.any()
    assert weight.grad.any()
    with plain_forms():
        torch.testing.assert_close(
            function(x, weight, bias, stride=2, bias_counts=False), y + bias.view(-1, 1, 1, 1), rtol=1e-5, atol=1e-5
        )


def test_a_known_kernel_shifts_the_image():
    x = torch.zeros(1, 1, 3, 4, 5)
    x[0, 0, 1, 2, 3] = 1.0
    weight = torch.zeros(1, 1, 3, 3, 3)
    weight[0, 0, 0, 1, 2] = 2.0  # output (d, h, w) reads input (d - 1, h, w + 1)
    y = depthwise_conv(x, weight, None)
    assert y[0, 0, 2, 2, 2] == 2.0
    assert y.abs().sum() == 2.0


def test_gradients_that_nobody_needs_are_not_computed():
    x, weight, bias = arguments(3, (4, 6, 8))
    depthwise_conv(x, weight.requires_grad_(), bias).sum().backward()
    assert weight.grad is not None
    assert x.grad is None
    assert bias.grad is None


def test_inputs_in_any_layout_give_the_same():
    x, weight, bias = arguments(3, (4, 6, 8))
    y = depthwise_conv(x, weight, bias)
    torch.testing.assert_close(depthwise_conv(x.to(memory_format=torch.channels_last_3d), weight, bias), y)
    torch.testing.assert_close(depthwise_conv(x.transpose(2, 4), weight.transpose(2, 4), bias).transpose(2, 4), y)


@pytest.mark.parametrize("stride", [1, 2])
def test_two_dimensional_convolutions_use_the_plain_form(stride):
    x, weight, bias = arguments(3, (6, 8))
    y = depthwise_conv(x, weight, bias, stride=stride)
    assert torch.equal(y, depthwise_conv_plain(x, weight, bias, stride=stride))
    assert depthwise_conv_transpose(x, weight, bias).shape == (2, 5, 11, 15)
