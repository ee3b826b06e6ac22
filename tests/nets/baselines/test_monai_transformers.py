import pytest
import torch

from voxelseg.errors import ConfigError, DataError
from voxelseg.nets import Network, create_model

TINY = {
    "unetr": {"image_size": (48, 16, 32), "feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2},
    "swin_unetr": {"feature_size": 12, "depths": (1, 1, 1, 1), "window_size": 2},
}


def tiny(name: str, **options: object) -> Network:
    torch.manual_seed(0)
    return create_model(name, **{"in_channels": 1, "num_classes": 2, **TINY[name], **options})


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("unetr", {}, 92_802_478),  # 92.8 M in print
        ("unetr", {"feature_size": 32}, 101_805_646),  # 101.7 M
        ("swin_unetr", {}, 62_187_296),  # 62.2 M
    ],
)
def test_published_sizes_have_their_number_of_parameters(name, options, parameters):
    with torch.device("meta"):
        model = create_model(name, in_channels=1, num_classes=14, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", TINY)
def test_three_channels_give_logits_of_the_input_size_and_gradients_reach_all_that_is_used(name):
    model = tiny(name, in_channels=3).train()
    size = model.image_size or (64, 32, 32)
    logits = model(torch.randn(1, 3, *size))
    assert logits.shape == (1, 2, *size)
    logits.square().mean().backward()
    unused = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    assert all("norm_cross_attn" in key for key in unused)
    assert {key for key, parameter in model.named_parameters() if not parameter.requires_grad} == unused


@pytest.mark.parametrize(
    ("name", "options"), [("unetr", {}), ("swin_unetr", {}), ("swin_unetr", {"residual_conv": True})]
)
def test_run_part_by_part_they_are_monais_networks(name, options):
    model = tiny(name, **options).eval()
    x = torch.randn(2, 1, *(model.image_size or (32, 32, 64)))
    with torch.no_grad():
        assert torch.equal(model(x), model.network(x))


def test_a_unetr_takes_the_size_that_it_was_built_for():
    with torch.device("meta"):
        model = tiny("unetr")
        with pytest.raises(DataError, match=r"was built for \(48, 16, 32\)"):
            model(torch.empty(1, 1, 48, 16, 16))
        assert model.forward_any_size(torch.empty(1, 1, 40, 9, 32)).shape == (1, 2, 40, 9, 32)
        assert tiny("unetr", image_size=32).config.image_size == (32, 32, 32)


def test_a_swin_unetr_says_what_to_pad_to():
    with torch.device("meta"), pytest.raises(DataError, match=r"Pad the input to \(32, 64, 32\)"):
        tiny("swin_unetr")(torch.empty(1, 1, 32, 33, 32))


def test_windows_may_differ_per_axis_and_stages_may_begin_with_convolutions():
    with torch.device("meta"):
        model = tiny("swin_unetr", window_size=(1, 2, 3), residual_conv=True, merging="mergingv2")
        assert model(torch.empty(1, 1, 32, 32, 64)).shape == (1, 2, 32, 32, 64)
    keys = model.state_dict().keys()
    assert any(key.startswith("network.swinViT.layers1c") for key in keys)
    table = model.state_dict()["network.swinViT.layers1.0.blocks.0.attn.relative_position_bias_table"]
    assert table.shape == (1 * 3 * 5, 3)  # offsets along D, H, W; heads


def test_recomputed_blocks_give_the_same_gradients():
    x, gradients = torch.randn(1, 1, 64, 32, 32), []
    for checkpointing in (False, True):
        model = tiny("swin_unetr", checkpointing=checkpointing).train()
        model(x).square().mean().backward()
        gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, msg=key)


@pytest.mark.parametrize("name", TINY)
def test_the_encoder_is_the_transformer_and_what_leads_from_it(name):
    with torch.device("meta"):
        model = tiny(name)
    encoding = {id(parameter) for parameter in model.encoder_parameters()}
    names = {key.split(".")[1] for key, parameter in model.named_parameters() if id(parameter) in encoding}
    assert {name for name in names if not name.startswith("encoder")} == {"vit" if name == "unetr" else "swinViT"}
    others = {key.split(".")[1] for key, parameter in model.named_parameters() if id(parameter) not in encoding}
    assert all(other == "out" or other.startswith("decoder") for other in others)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unetr", {"image_size": (48, 16, 20)}, "multiples of 16"),
        ("unetr", {"num_heads": 5}, "a divisor of hidden_size, 24"),
        ("unetr", {"patch_embedding": "linear"}, "'conv', 'perceptron'"),
        ("unetr", {"dropout": 1}, "from 0 up to"),
        ("swin_unetr", {"feature_size": 16}, "a multiple of 12"),
        ("swin_unetr", {"depths": (1, 1, 1)}, "expected 4 integers"),
        ("swin_unetr", {"num_heads": (5, 6, 12, 24)}, "divisors of the channels of the stages"),
        ("swin_unetr", {"merging": "mean"}, "'merging', 'mergingv2'"),
        ("swin_unetr", {"window_size": 0}, "positive integer"),
        ("swin_unetr", {"checkpointing": "yes"}, "true or false"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(name, **options)
