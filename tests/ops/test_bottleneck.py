import pytest
import torch
from torch import Tensor

from voxelseg.ops import norm
from voxelseg.ops.bottleneck import inverted_bottleneck, inverted_bottleneck_plain


def arguments(*, out_channels: int = 4, residual: bool = True, offset: float = 0.0) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 3, 5, 6), (4,), (4,), (12, 4, 1, 1, 1), (12,), (out_channels, 12, 1, 1, 1), (out_channels,)]
    tensors: list[Tensor | None] = [torch.randn(shape, generator=generator) for shape in shapes]
    assert tensors[0] is not None
    tensors[0] = tensors[0] + offset
    return [*tensors, torch.randn(2, out_channels, 3, 5, 6, generator=generator) if residual else None]


def value_and_gradients(function, inputs: list[Tensor | None], dtype: torch.dtype) -> list[Tensor]:
    leaves = [None if x is None else x.detach().to(dtype).requires_grad_() for x in inputs]
    value = function(*leaves, eps=1e-5)
    grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [value.detach(), *torch.autograd.grad(value, [x for x in leaves if x is not None], grad)]


def assert_same(inputs: list[Tensor | None], tolerance: float = 1e-5) -> None:
    fast = value_and_gradients(inverted_bottleneck, inputs, torch.float32)
    plain = value_and_gradients(inverted_bottleneck_plain, inputs, torch.float64)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize("tile_values", [60, 12 * 17, 2**19])  # 5 rows, 17 rows (not a divisor of 90), all rows
@pytest.mark.parametrize("out_channels", [4, 7])
@pytest.mark.parametrize("residual", [True, False])
def test_fast_form_agrees_with_its_plain_twin_for_any_tile(monkeypatch, tile_values, out_channels, residual):
    monkeypatch.setattr(norm, "TILE_VALUES", tile_values)
    assert_same(arguments(out_channels=out_channels, residual=residual))


def test_a_mean_far_above_the_spread_costs_little_precision():
    # sums of squares lose up to (mean / spread)^2 * 2^-24 of the variance: 5e-5 at a mean of 30 spreads
    assert_same(arguments(offset=30.0), tolerance=2e-4)


def test_a_constant_channel_gives_the_bias_and_finite_gradients():
    inputs = arguments(residual=False)
    assert inputs[0] is not None
    inputs[0][:, 1] = 3.0
    assert_same(inputs, tolerance=1e-3)


def test_a_norm_weight_of_zero_still_learns():
    inputs = arguments()
    assert inputs[1] is not None
    inputs[1][:] = 0.0
    assert_same(inputs)


def test_inputs_in_any_layout_give_the_same():
    inputs = arguments()
    assert inputs[0] is not None
    y = inverted_bottleneck(*inputs, eps=1e-5)
    inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(inverted_bottleneck(*inputs, eps=1e-5), y)
