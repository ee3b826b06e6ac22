import torch

from voxelseg.ops.dead_bias import with_zero_gradient


def test_the_value_stays_and_the_bias_gets_a_gradient_of_zero():
    x, bias = torch.randn(2, 3, 4, requires_grad=True), torch.randn(3, requires_grad=True)
    y = with_zero_gradient(2 * x, bias)
    assert torch.equal(y, 2 * x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2.0))
    assert torch.equal(bias.grad, torch.zeros(3))


def test_nothing_is_recorded_for_a_bias_without_gradient():
    x = torch.randn(2, 3, 4)
    assert with_zero_gradient(x, torch.randn(3)) is x
    with torch.no_grad():
        assert with_zero_gradient(x, torch.randn(3, requires_grad=True)) is x
