import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import create_model
from voxelseg.nets.baselines.deeplabv3 import DeepLabV3
from voxelseg.nets.complexity import count

TINY = {"width": 4, "blocks": (1, 2, 1, 1), "aspp_width": 8, "rates": (1, 2)}


def tiny(**options: object) -> DeepLabV3:
    torch.manual_seed(0)
    return create_model("deeplabv3", **{"in_channels": 1, "num_classes": 2, **TINY, **options})


def test_the_default_has_the_printed_size():
    with torch.device("meta"):
        model = create_model("deeplabv3", in_channels=1, num_classes=16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 74_683_472  # 74.68 M in print


@pytest.mark.parametrize(
    ("blocks", "bottleneck", "millions"),
    [((2, 2, 2, 2), False, 44.4), ((3, 4, 6, 3), True, 90.0), ((3, 4, 23, 3), True, 129.1)],
)
def test_no_other_depth_of_the_residual_network_has_the_printed_size(blocks, bottleneck, millions):
    with torch.device("meta"):
        model = create_model("deeplabv3", in_channels=1, num_classes=16, blocks=blocks, bottleneck=bottleneck)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(("steps", "operations"), [(3, 659.9), (4, 154.5), (5, 109.5)])
def test_no_output_stride_has_the_printed_cost(steps, operations):
    with torch.device("meta"):
        model = create_model("deeplabv3", in_channels=1, num_classes=16, strides=(2,) * steps)
    assert round(2 * count(model, (128, 128, 128)).macs / 1e9, 1) == operations


def test_strides_that_are_left_out_become_dilation():
    for strides, dilations in (((2,) * 3, [1, 1, 2, 4]), ((2,) * 4, [1, 1, 1, 2]), ((2,) * 5, [1, 1, 1, 1])):
        model = tiny(strides=strides)
        assert model.divisor == (2 ** len(strides),) * 3
        assert [stage[-1].layers[-1].conv.dilation[0] for stage in model.backbone.stages] == dilations
        assert model.backbone(torch.zeros(1, 1, 32, 32, 64)).shape[2:] == tuple(
            n // 2 ** len(strides) for n in (32, 32, 64)
        )


def test_bottlenecks_have_four_times_as_many_channels_outside():
    model = tiny(bottleneck=True)
    assert [stage[0].layers[-1].conv.out_channels for stage in model.backbone.stages] == [16, 32, 64, 128]
    assert model(torch.randn(1, 1, 8, 16, 8)).shape == (1, 2, 8, 16, 8)


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_the_shape_of_the_input_and_gradients_reach_every_parameter(channels):
    model = tiny(in_channels=channels).train()
    out = model(torch.randn(3, channels, 16, 24, 32))
    assert out.shape == (3, 2, 16, 24, 32)
    (out * torch.linspace(0, 1, out.numel()).view_as(out)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_the_image_level_branch_normalises_a_single_patch_by_its_running_statistics():
    pyramid = tiny().pyramid.train()
    mean = torch.randn(1, 32, 1, 1, 1)
    alone = pyramid.image_level(mean)
    torch.testing.assert_close(alone, pyramid.eval().image_level(mean))
    pyramid.train().image_level(mean.expand(2, -1, -1, -1, -1) * torch.tensor([1.0, 2.0]).view(2, 1, 1, 1, 1))
    assert pyramid.image.norm.running_mean.any()  # batches of more than one update them


def test_thick_slices_are_strided_as_planned():
    full, flat = (2, 2, 2), (1, 2, 2)
    plan_options = tiny().config.plan_options
    assert plan_options({}, ((1, 1, 1), full, full, full), ())["strides"] == (full, full, full)
    options = plan_options({}, ((1, 1, 1), flat, flat, full), ())
    assert options["strides"] == (flat, flat, full)
    assert tiny(**options)(torch.randn(1, 1, 2, 16, 8)).shape == (1, 2, 2, 16, 8)


def test_fused_it_says_the_same():
    model = tiny()
    with torch.no_grad():
        model.train()(torch.randn(4, 1, 8, 16, 24))  # running statistics other than 0 and 1
    model.eval()
    x = torch.randn(1, 1, 8, 16, 24)
    expected = model(x)
    model.fuse()
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_sizes_that_do_not_fit_say_what_to_pad_to():
    with pytest.raises(DataError, match=r"Pad the input to \(8, 16, 8\)"):
        tiny()(torch.zeros(1, 1, 8, 12, 8))


def test_encoder_parameters_are_those_of_the_residual_network():
    model = tiny()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    assert {names[id(parameter)].split(".")[0] for parameter in model.encoder_parameters()} == {"backbone"}
    assert next(model.encoder_parameters()).shape[1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (2,)}, "two to 5 steps"),
        ({"strides": 2}, "one entry per level"),
        ({"blocks": (1, 1, 1)}, "4 integers"),
        ({"blocks": (1, 1, 1, 0)}, "integers of at least 1"),
        ({"rates": ()}, "integers of at least 1"),
        ({"bottleneck": 1}, "true or false"),
        ({"aspp_width": 0}, "positive integer"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)
