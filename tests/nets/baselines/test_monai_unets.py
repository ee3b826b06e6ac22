import pytest
import torch

from voxelseg import optimize_for_inference
from voxelseg.errors import ConfigError
from voxelseg.nets import Network, create_model
from voxelseg.nets.baselines.monai_unets import AttentionUNetConfig, ResidualUNet3DConfig

TINY = {
    "unet3d": {"features": (4, 4, 6, 8, 8, 4)},
    "unet3d_residual": {"channels": (4, 6, 8), "strides": (2, 2), "residual_units": 1},
    "attention_unet": {"channels": (4, 6, 8), "strides": (2, 2)},
    "unetpp": {"features": (4, 4, 6, 6, 8, 4)},
    "vnet": {"width": 2},
}
ISOTROPIC = ((1, 1, 1),) + ((2, 2, 2),) * 4
THICK = ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))


def tiny(name: str, **options: object) -> Network:
    torch.manual_seed(0)
    return create_model(name, **{"in_channels": 1, "num_classes": 2, **TINY[name], **options})


@pytest.mark.parametrize(
    ("name", "num_classes", "parameters"),
    [
        ("unet3d", 5, 5_749_509),
        ("unet3d_residual", 5, 4_809_646),  # 4.81 M in print
        ("attention_unet", 14, 64_121_626),  # 64.1 M in print
        ("unetpp", 14, 26_382_254),
        ("vnet", 16, 45_654_192),  # 45.65 M in print
    ],
)
def test_published_sizes_have_their_number_of_parameters(name, num_classes, parameters):
    with torch.device("meta"):
        model = create_model(name, in_channels=1, num_classes=num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", TINY)
def test_three_channels_and_unequal_sides_give_logits_of_the_input_size(name):
    model = tiny(name, in_channels=3).train()
    size = tuple(factor * step for factor, step in zip((3, 1, 2), model.divisor, strict=True))
    logits = model(torch.randn(3, 3, *size))
    assert logits.shape == (3, 2, *size)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", TINY)
def test_the_encoder_is_the_way_down(name):
    model = tiny(name)
    encoding = {id(parameter) for parameter in model.encoder_parameters()}
    names = {key.removeprefix("network.") for key, parameter in model.named_parameters() if id(parameter) in encoding}
    parts = (
        {
            "unet3d": r"conv_0|down_",
            "unet3d_residual": "model.0 model.1.submodule.0 model.1.submodule.1.submodule",
            "attention_unet": "model.0 model.1.submodule.0 model.1.submodule.1.submodule",
            "unetpp": "conv_0_0 conv_1_0 conv_2_0 conv_3_0 conv_4_0",
            "vnet": "in_tr down_tr32 down_tr64 down_tr128 down_tr256",
        }[name]
        .replace("|", " ")
        .split()
    )
    every = [key.removeprefix("network.") for key, _ in model.named_parameters()]
    assert names == {key for key in every if key.startswith(tuple(parts))}
    assert all(any(key.startswith(part) for key in names) for part in parts)


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in TINY), ("unet3d_residual", {"residual_units": 0})]
)
def test_run_part_by_part_they_are_monais_networks(name, options):
    model = tiny(name, **options).eval()
    x = torch.randn(2, 1, *(factor * step for factor, step in zip((3, 1, 2), model.divisor, strict=True)))
    with torch.no_grad():
        theirs = model.network(x)
        assert torch.equal(model(x), theirs[-1] if isinstance(theirs, list) else theirs)
        features = model.features(x)
        assert torch.equal(model.classify(features), model(x))
    assert features.shape == (2, model.feature_channels, *x.shape[2:])


def test_a_network_of_residual_units_has_as_many_features_as_classes():
    for units in (0, 1):
        model = tiny("unet3d_residual", residual_units=units, num_classes=5)
        features = model.features(torch.randn(1, 1, 12, 4, 8))
        assert features.shape == (1, 5, 12, 4, 8)
        assert torch.equal(model.classify(features), features) == (units == 0)  # nothing comes after them


def test_nested_unets_have_heads_only_with_deep_supervision_and_the_deepest_comes_first():
    supervised, plain = tiny("unetpp", deep_supervision=True).eval(), tiny("unetpp").eval()
    x = torch.randn(1, 1, 48, 16, 32)
    with torch.no_grad():
        outputs = supervised(x)
        assert supervised.output_strides == [(1, 1, 1)] * 4
        assert [output.shape for output in outputs] == [(1, 2, 48, 16, 32)] * 4
        shared = {key: value for key, value in supervised.state_dict().items() if key in plain.state_dict()}
        plain.load_state_dict(shared)
        torch.testing.assert_close(plain(x), outputs[0])
        shallow = supervised.network.final_conv_0_1
        assert len(shared) == len(supervised.state_dict()) - 6  # weight and bias of three heads
        shallow.bias += 1
        after = supervised(x)
    torch.testing.assert_close(after[3], outputs[3] + 1)  # the shallowest, last
    torch.testing.assert_close(after[:3], outputs[:3])


def test_a_nested_unet_for_inference_has_one_head():
    supervised = tiny("unetpp", deep_supervision=True)
    heads = [key for key in optimize_for_inference(supervised).state_dict() if "final_conv" in key]
    assert heads == ["network.final_conv_0_4.weight", "network.final_conv_0_4.bias"]
    assert len(supervised(torch.randn(1, 1, 48, 16, 32))) == 4  # the network itself keeps them


def test_a_vnet_of_width_16_is_monais():
    from monai.networks.nets import VNet

    torch.manual_seed(0)
    theirs = VNet(in_channels=2, out_channels=3).eval()
    ours = create_model("vnet", in_channels=2, num_classes=3).eval()
    ours.network.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 2, 16, 16, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_the_first_stage_of_a_vnet_adds_the_channels_of_the_input_in_turn():
    stage = tiny("vnet", in_channels=3, width=4).eval().network.in_tr
    torch.nn.init.zeros_(stage.conv_block.conv.weight)
    stage.act_function = torch.nn.Identity()
    x = torch.randn(1, 3, 4, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(stage(x), x[:, [0, 1, 2, 0]])


def test_a_vnet_without_dropout_says_the_same_in_training_and_a_prelu_has_a_slope_per_channel():
    x = torch.randn(2, 1, 48, 16, 32)
    for dropout, same in ((0.0, True), (0.5, False)):
        model = tiny("vnet", dropout=dropout, activation="prelu").train()
        assert torch.equal(model(x), model(x)) == same
    assert model.network.down_tr256.act_function1.weight.shape == (32,)  # 16 * width


@pytest.mark.parametrize("config", [ResidualUNet3DConfig, AttentionUNetConfig])
def test_strides_follow_plans_with_thick_slices_only_and_only_where_the_user_has_none(config):
    kernels = ((3, 3, 3),) * 5
    assert config.plan_options({}, ISOTROPIC, kernels) == {}
    number = len(config.channels) - 1
    assert config.plan_options({}, THICK, kernels) == {"strides": THICK[1 : number + 1]}
    assert config.plan_options({"strides": (2,) * number}, THICK, kernels) == {}
    assert config.plan_options({"channels": (4, 6, 8)}, THICK, kernels) == {"strides": THICK[1:3]}
    size = tuple(3 * 2**halvings for halvings in (0, 2, 2))
    for name in ("unet3d_residual", "attention_unet"):
        model = tiny(name, strides=THICK[1:3])
        assert model.divisor == (1, 4, 4)
        assert model(torch.randn(1, 1, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("units", [0, 2])
def test_residual_units_have_as_many_convolutions_as_wanted(units):
    model = tiny("unet3d_residual", residual_units=units)
    assert ("network.model.0.residual.weight" in model.state_dict()) == (units > 0)
    assert model(torch.randn(1, 1, 12, 4, 8)).shape == (1, 2, 12, 4, 8)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet3d", {"features": (4, 4, 4, 4, 4)}, "expected 6 integers"),
        ("unet3d", {"dropout": 1.0}, "from 0 up to"),
        ("unetpp", {"features": 4}, "expected 6 integers"),
        ("unetpp", {"deep_supervision": 1}, "true or false"),
        ("unet3d_residual", {"strides": (2,)}, "one for each step between the 3 levels"),
        ("unet3d_residual", {"channels": (4,), "strides": ()}, "at least two levels"),
        ("unet3d_residual", {"norm": "group"}, "'instance', 'batch'"),
        ("unet3d_residual", {"residual_units": -1}, "positive integer"),
        ("unet3d_residual", {"residual_units": False}, "positive integer"),
        ("attention_unet", {"channels": (1, 2, 3)}, "of at least 2"),
        ("vnet", {"activation": "relu"}, "'elu', 'prelu'"),
        ("vnet", {"width": 0}, "positive integer"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(name, **options)
