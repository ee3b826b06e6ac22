import pytest
import torch
import torch.nn.functional as F

from voxelseg.ops import winograd
from voxelseg.ops.winograd import winograd_conv, winograd_conv_plain

SUMS = [torch.tensor(sums, dtype=torch.float64) for sums in (winograd._INPUT_SUMS, winograd._KERNEL_SUMS)]
OUTPUT_SUMS = torch.tensor(winograd._OUTPUT_SUMS, dtype=torch.float64)


def test_four_outputs_of_three_taps_come_from_six_products():
    values, taps = torch.tensor([1.0, -2.0, 3.0, 5.0, -7.0, 11.0]), torch.tensor([2.0, 3.0, -1.0])
    products = (SUMS[0] @ values.double()) * (SUMS[1] @ taps.double())
    # 2*1 - 3*2 - 3, -2*2 + 3*3 - 5, 2*3 + 3*5 + 7, 2*5 - 3*7 - 11
    assert (OUTPUT_SUMS @ products).tolist() == pytest.approx([-7.0, 0.0, 28.0, -22.0])


@pytest.mark.parametrize("tile_values", [1, 2**22])  # one tile at a time, all at once
@pytest.mark.parametrize("size", [(4, 3, 5), (9, 5, 6), (1, 4, 3), (2, 1, 7)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_fast_form_agrees_with_its_plain_twin(monkeypatch, tile_values, size, memory_format):
    monkeypatch.setattr(winograd, "TILE_VALUES", tile_values)
    monkeypatch.setattr(winograd, "_worthwhile", lambda x, weight: True)
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size).to(memory_format=memory_format).requires_grad_()
    inputs = [x, torch.randn(5, 3, 3, 3, 3, requires_grad=True)]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    y, expected = winograd_conv(*inputs), winograd_conv_plain(*exact)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
    grad = torch.randn(y.shape)
    gradients = torch.autograd.grad(y, inputs, grad)
    for a, b in zip(gradients, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-4)


def test_rounding_errors_stay_within_five_times_those_of_the_direct_sum():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 32, 16, 12, 20), torch.randn(32, 32, 3, 3, 3)
    exact = F.conv3d(x.double(), weight.double(), padding=1)
    errors = [(form(x, weight) - exact).std().item() for form in (winograd_conv, winograd_conv_plain)]
    assert not torch.equal(winograd_conv(x, weight), winograd_conv_plain(x, weight))  # another form did run
    assert errors[0] < 5 * errors[1]


@pytest.mark.parametrize(
    ("shape", "kernel", "faster"),
    [
        ((48, 32, 48, 32), (3, 3, 3), True),
        ((48, 32, 48, 32), (1, 3, 3), False),
        ((48, 32, 48, 32), (5, 5, 5), False),
        ((8, 32, 48, 32), (3, 3, 3), False),  # too few channels to pay for the sums
        ((48, 5, 48, 32), (3, 3, 3), False),  # the second tile would have one plane of four
        ((384, 4, 6, 4), (3, 3, 3), False),  # the kernel is larger than the volume
    ],
)
def test_only_shapes_that_gain_take_the_fast_form(shape, kernel, faster):
    with torch.device("meta"):
        x, weight = torch.empty(1, *shape), torch.empty(shape[0], shape[0], *kernel)
    assert winograd._worthwhile(x, weight) == faster


def test_gradients_that_nobody_wants_are_not_computed():
    x, weight = torch.randn(1, 16, 4, 8, 12), torch.randn(16, 16, 3, 3, 3)
    for wanted in (x, weight):
        wanted.requires_grad_()
        winograd_conv(x, weight).sum().backward()
        assert wanted.grad is not None
        wanted.requires_grad_(False)
    weight.grad = None
    winograd_conv(x.requires_grad_(), weight).sum().backward()
    assert weight.grad is None
