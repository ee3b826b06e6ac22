import copy

import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets.resenc_unet import ResEncUNet, ResEncUNetConfig
from voxelseg.nets.unet import UNet, UNetConfig
from voxelseg.ops import winograd

WHOLE = winograd._convolve
CONFIG_OF_16 = ResEncUNetConfig(
    in_channels=1, num_classes=2, width=16, strides=(1, 2), blocks=(1,), zero_residuals=False
)


def small(**options: object) -> UNet:
    torch.manual_seed(0)
    settings = {"in_channels": 1, "num_classes": 2, "width": 4, "strides": (1, 2, 2), **options}
    return UNet(UNetConfig(**settings))


def test_outputs_have_the_strides_of_an_anisotropic_plan():
    model = small(strides=((1, 1, 1), (1, 2, 2), (2, 2, 3)), kernels=((1, 3, 3), 3, 5), deep_supervision=True)
    assert model.divisor == (2, 4, 6)
    assert model.output_strides == [(1, 1, 1), (1, 2, 2)]
    outputs = model(torch.randn(1, 1, 4, 8, 12))
    assert [tuple(output.shape) for output in outputs] == [(1, 2, 4, 8, 12), (1, 2, 4, 4, 6)]
    model.deep_supervision = False
    torch.testing.assert_close(model(torch.zeros(1, 1, 4, 8, 12)).shape, torch.Size((1, 2, 4, 8, 12)))


def test_widths_double_up_to_the_maximum():
    model = small(width=4, max_width=6, strides=(1, 2, 2, 2))
    assert [stage[0].conv.out_channels for stage in model.encoder] == [4, 6, 6, 6]


def test_parameters_are_those_of_nnunets_plain_network():
    # By hand, width 2, two levels, 1 channel, 3 classes, kernel 3, weights + bias + two norm parameters per channel:
    # encoder 0: (27*1+3)*2 + (27*2+3)*2 = 174; encoder 1: (27*2+3)*4 + (27*4+3)*4 = 672; up: 8*4*2 + 2 = 66;
    # decoder 0: (27*4+3)*2 + (27*2+3)*2 = 336; head: 2*3 + 3 = 9.
    model = small(width=2, strides=(1, 2), num_classes=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 174 + 672 + 66 + 336 + 9


def test_initial_weights_are_he_normal_and_biases_zero():
    model = small(width=32, strides=(1, 2))
    conv = model.encoder[0][1].conv
    assert conv.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (27 * 32)) ** 0.5, rel=0.02)
    assert not conv.bias.any()
    assert not model.up[0].bias.any()


def test_a_plain_forward_gives_the_same_values_and_gradients_in_any_memory_format():
    model = small(deep_supervision=True)
    exact = small(deep_supervision=True).double()
    x = torch.randn(2, 1, 4, 8, 12)
    outputs, expected = model(x), exact(x.double())
    sum(output.square().mean() for output in outputs).backward()
    sum(output.square().mean() for output in expected).backward()
    for a, b in zip(outputs, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    for (key, a), b in zip(model.named_parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("model", [small(width=16, strides=(1, 2)), ResEncUNet(CONFIG_OF_16)], ids=["unet", "resenc"])
def test_wide_stages_run_in_their_fast_form_without_the_biases_that_norms_remove(model, monkeypatch):
    shapes: list[tuple[int, ...]] = []
    monkeypatch.setattr(winograd, "_convolve", lambda x, weight: shapes.append(weight.shape) or WHOLE(x, weight))
    exact = copy.deepcopy(model).double()
    x = torch.randn(1, 1, 8, 12, 10)
    y, expected = model(x), exact(x.double())
    assert shapes.count((16, 16, 3, 3, 3)) >= 2
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
    y.square().mean().backward()
    expected.square().mean().backward()
    for (key, a), b in zip(model.named_parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-4, msg=key)
    assert not model.decoder[0][0].conv.bias.grad.any()


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(4, 8, 8\)"):
        small()(torch.zeros(1, 1, 4, 8, 6))


def test_encoder_parameters_are_those_of_the_encoder():
    model = small()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    assert {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()} == {"encoder"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (2, 2)}, "the first with stride 1"),
        ({"strides": (1,)}, "at least two levels"),
        ({"strides": 2}, "one entry per level"),
        ({"strides": (1, (2, 2))}, "three of them"),
        ({"strides": (1, 0)}, "positive integer"),
        ({"kernels": 2}, "odd"),
        ({"kernels": (3, 3)}, r"one per level \(3\)"),
        ({"width": 0}, "positive integer"),
        ({"convs_per_stage": 0}, "positive integer"),
        ({"deep_supervision": "no"}, "true or false"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)
