import dataclasses
import json

import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.resenc_unet import ResEncUNet, ResEncUNetConfig, ResidualBlock
from voxelseg.ops.dispatch import plain_forms


def small(**options: object) -> ResEncUNet:
    torch.manual_seed(0)
    settings = {
        "in_channels": 1,
        "num_classes": 2,
        "width": 4,
        "strides": (1, 2, 2),
        "zero_residuals": False,
        **options,
    }
    return ResEncUNet(ResEncUNetConfig(**settings))


@pytest.mark.parametrize("name", ["resenc_unet_m", "resenc_unet_l", "resenc_unet_xl"])
def test_six_levels_have_the_parameters_that_the_authors_print(name):
    with torch.device("meta"):
        plain = create_model(name, in_channels=1, num_classes=14)
        supervised = create_model(name, in_channels=1, num_classes=14, deep_supervision=True)
    assert sum(parameter.numel() for parameter in plain.parameters()) == 102_348_622
    assert sum(parameter.numel() for parameter in supervised.parameters()) == 102_359_430  # 102.4 M in print


def test_parameters_are_those_of_nnunets_network():
    # By hand, width 2, two levels, 1 channel, 3 classes, kernel 3, weights + bias + two norm parameters per channel:
    # stem: (27*1+3)*2 = 60; level 0, one block: 2*(27*2+3)*2 = 228;
    # level 1, three blocks, the first from 2 to 4 channels: (27*2+3)*4 + (27*4+3)*4 + projection 2*4+2*4 = 688,
    # the others 2*(27*4+3)*4 = 888 each; up: 8*4*2+2 = 66; decoder, one convolution: (27*4+3)*2 = 222; head: 2*3+3 = 9.
    model = small(width=2, strides=(1, 2), num_classes=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 60 + 228 + 688 + 2 * 888 + 66 + 222 + 9


def test_blocks_per_level_go_on_with_the_last_number():
    model = small(strides=(1, 2, 2, 2, 2), blocks=(2, 1, 3))
    numbers = [sum(isinstance(layer, ResidualBlock) for layer in stage) for stage in model.encoder]
    assert numbers == [2, 1, 3, 3, 3]
    assert [len(stage) for stage in model.decoder] == [1, 1, 1, 1]


def test_a_block_adds_the_average_of_its_input():
    block = ResidualBlock(3, 3, kernel=(1, 3, 3), stride=(1, 2, 2))
    torch.nn.init.zeros_(block.second.norm.weight)
    x = torch.rand(1, 3, 2, 4, 6) + 0.1  # positive: the leaky ReLU changes nothing
    expected = x.unflatten(3, (2, 2)).unflatten(5, (3, 2)).mean((4, 6))
    torch.testing.assert_close(block(x), expected)


def test_residual_branches_start_at_zero_unless_told_otherwise():
    for zero in (True, False):
        blocks = [module for module in small(zero_residuals=zero).modules() if isinstance(module, ResidualBlock)]
        assert len(blocks) == 1 + 3 + 4
        assert all(bool(block.second.norm.weight.any()) != zero for block in blocks)


def test_outputs_have_the_strides_of_an_anisotropic_plan():
    options = ResEncUNetConfig.plan_options({}, ((1, 1, 1), (1, 2, 2), (2, 2, 3)), ((1, 3, 3), (3, 3, 3), (3, 3, 3)))
    model = small(deep_supervision=True, **options)
    assert model.divisor == (2, 4, 6)
    outputs = model(torch.randn(1, 1, 4, 8, 12))
    assert [tuple(output.shape) for output in outputs] == [(1, 2, 4, 8, 12), (1, 2, 4, 4, 6)]


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_and_fast_forms_give_the_same_values_and_gradients(channels):
    model = small(in_channels=channels, deep_supervision=True)
    x, results = torch.randn(3, channels, 8, 4, 12), []
    for forms in (False, True):
        model.zero_grad()
        if forms:
            with plain_forms():
                outputs = model(x)
        else:
            outputs = model(x)
        sum(output.square().mean() for output in outputs).backward()
        gradients = [p.grad for key, p in model.named_parameters() if not key.endswith("conv.bias")]
        results.append([*outputs, *gradients])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(4, 8, 8\)"):
        small()(torch.zeros(1, 1, 4, 8, 6))


def test_a_network_is_rebuilt_from_its_config_as_json():
    config = small(blocks=(1, 2), deep_supervision=True).config
    assert ResEncUNetConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": ()}, "list of positive integers"),
        ({"blocks": 2}, "list of positive integers"),
        ({"blocks": (1, True)}, "list of positive integers"),
        ({"blocks": (1, 0)}, "list of positive integers"),
        ({"zero_residuals": 1}, "true or false"),
        ({"strides": (2, 2)}, "the first with stride 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)
