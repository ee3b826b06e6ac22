import pytest
import torch

from voxelseg.ops import concat
from voxelseg.ops.concat import conv_of_concat, conv_of_concat_plain
from voxelseg.ops.dispatch import plain_forms


def inputs(batch: int, channels: tuple[int, ...], kernel: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, number, 3, 5, 7) for number in channels] + [(4, sum(channels), *kernel), (4,)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 1, 1), (1, 3, 5)])
@pytest.mark.parametrize("channels", [(3, 2), (1, 4, 2), (5,)])
def test_the_sum_over_the_parts_is_the_convolution_of_all(channels, kernel):
    """Values and gradients of the fast form in float32 against the plain one in float64."""
    padding = tuple(size // 2 for size in kernel)
    fast = [tensor.requires_grad_() for tensor in inputs(2, channels, kernel)]
    exact = [tensor.detach().double().requires_grad_() for tensor in fast]
    y = conv_of_concat(fast[:-2], fast[-2], fast[-1], padding=padding)
    expected = conv_of_concat_plain(exact[:-2], exact[-2], exact[-1], padding=padding)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    gradients = torch.autograd.grad(y, fast, grad)
    for a, b in zip(gradients, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_one_small_sample_is_concatenated_since_the_gradients_of_its_parts_would_take_longer(monkeypatch):
    sizes = []
    monkeypatch.setattr(concat, "dense_conv", lambda x, *others, **options: sizes.append(x.shape[1]) or torch.zeros(()))
    for batch in (1, 2):
        *parts, weight, bias = inputs(batch, (3, 2), (3, 3, 3))  # 3 * 3 * 5 = 45 channels times planes times rows
        conv_of_concat(parts, weight, bias, padding=1)
    assert sizes == [5, 3, 2]


def test_the_bias_may_be_missing_and_slices_are_taken():
    x = [torch.randn(2, 3, 6, 7), torch.randn(2, 1, 6, 7)]
    weight = torch.randn(2, 4, 3, 3)
    expected = torch.nn.functional.conv2d(torch.cat(x, dim=1), weight, padding=1)
    torch.testing.assert_close(conv_of_concat(x, weight, None, padding=1), expected)
    with plain_forms():
        torch.testing.assert_close(conv_of_concat(x, weight, None, padding=1), expected)
