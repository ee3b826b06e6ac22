import pytest
import torch

from voxelseg.ops import norm
from voxelseg.ops.channelwise import channelwise_scaling, channelwise_scaling_plain


def weights(channels: int, widening: int) -> list[torch.Tensor]:
    shapes = [(widening * channels, 1, 1, 1, 1), (widening * channels,), (channels, widening, 1, 1, 1), (channels,)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def test_each_value_becomes_a_function_of_itself_and_its_channel():
    # gelu(u) is u for large u and 0 for very negative u. Channel 0: expansions 1 * 10 + 2 and -1 * 10 give 12 and 0,
    # their sum 3 * 12 + 5 * 0 + 7 = 43, times 2. Channel 1: 2 * 20 and 4 * 20, 40 + 80 + 0, times 0.5.
    x = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1, 1)
    expand, expand_bias = torch.tensor([1.0, -1.0, 2.0, 4.0]), torch.tensor([2.0, 0.0, 0.0, 0.0])
    compress, compress_bias = torch.tensor([[3.0, 5.0], [1.0, 1.0]]), torch.tensor([7.0, 0.0])
    arguments = (expand.view(4, 1, 1, 1, 1), expand_bias, compress.view(2, 2, 1, 1, 1), compress_bias)
    for form in (channelwise_scaling, channelwise_scaling_plain):
        assert form(x, *arguments, torch.tensor([2.0, 0.5])).flatten().tolist() == pytest.approx([86.0, 60.0])
        assert form(x, *arguments, None).flatten().tolist() == pytest.approx([43.0, 120.0])


@pytest.mark.parametrize("tile_values", [12, 2**19])  # 4 rows of the 60, all rows
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("with_layer_scale", [True, False])
def test_fast_form_agrees_with_its_plain_twin(monkeypatch, tile_values, memory_format, with_layer_scale):
    monkeypatch.setattr(norm, "TILE_VALUES", tile_values)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 3, 4, 5).to(memory_format=memory_format).requires_grad_()
    inputs = [x, *weights(3, 4), *([torch.randn(3, requires_grad=True)] if with_layer_scale else [])]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    end = [] if with_layer_scale else [None]
    y, expected = channelwise_scaling(*inputs, *end), channelwise_scaling_plain(*exact, *end)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    gradients = torch.autograd.grad(y, inputs, grad)
    for a, b in zip(gradients, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


def test_the_expanded_channels_are_never_stored():
    """Of the forward pass only the input is kept for the backward pass, apart from the weights."""
    x = torch.randn(1, 8, 4, 5, 6).to(memory_format=torch.channels_last_3d).requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        channelwise_scaling(x, *weights(8, 4), torch.ones(8))
    assert max(tensor.numel() for tensor in kept) == x.numel()
    assert sum(tensor.numel() == x.numel() for tensor in kept) == 1
