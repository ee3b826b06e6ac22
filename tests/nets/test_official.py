import pytest
import torch

from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets.mednext import MedNeXt, MedNeXtConfig
from voxelseg.nets.official import convert, load_official


def network(deep_supervision: bool) -> MedNeXt:
    return MedNeXt(
        MedNeXtConfig(
            in_channels=1, num_classes=2, width=2, expansion=1, blocks=1, grn=True, deep_supervision=deep_supervision
        )
    )


def official_key(key: str) -> str:
    """The inverse mapping, written from the authors' key pattern."""
    parts = key.split(".")
    level = int(parts[1]) if parts[1].isdigit() else None
    layers = {"depthwise": "conv1", "expand": "conv2", "compress": "conv3", "residual": "res_conv"}
    layers |= {"grn_weight": "grn_gamma", "grn_bias": "grn_beta"}
    rest = [layers.get(part, part) for part in parts[2:]]
    match parts[0]:
        case "stem":
            return key
        case "encoder" if level == 4:
            return ".".join(["bottleneck", *rest])
        case "encoder":
            return ".".join([f"enc_block_{level}", *rest])
        case "decoder":
            return ".".join([f"dec_block_{level}", *rest])
        case "heads":
            return ".".join([f"out_{level}", "conv_out", *rest])
        case name:
            return ".".join([f"{name}_{level}", *rest])


def official_state(model: MedNeXt, prefix: str = "") -> dict[str, torch.Tensor]:
    state = {f"{prefix}{official_key(key)}": torch.randn_like(value) for key, value in model.state_dict().items()}
    return {f"{prefix}dummy_tensor": torch.ones(1), **state}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_weights_load_under_our_names_with_and_without_prefix(prefix):
    model = network(deep_supervision=True)
    state = official_state(model, prefix)
    load_official(model, "mednext", state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[prefix + official_key(key)]), key


def test_heads_of_deep_supervision_are_left_out_where_the_model_has_none():
    state = official_state(network(deep_supervision=True))
    model = network(deep_supervision=False)
    load_official(model, "mednext", state)
    assert torch.equal(model.heads[0].weight, state["out_0.conv_out.weight"])


def test_missing_heads_are_an_error_and_nothing_is_loaded():
    model = network(deep_supervision=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing heads\.1\.weight"):
        load_official(model, "mednext", official_state(network(deep_supervision=False)))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_weights_of_another_size_are_an_error_with_both_shapes():
    model = network(deep_supervision=False)
    state = official_state(model)
    state["stem.weight"] = torch.zeros(4, 1, 1, 1, 1)
    with pytest.raises(CheckpointError, match=r"stem.weight is \(4, 1, 1, 1, 1\), expected \(2, 1, 1, 1, 1\)"):
        load_official(model, "mednext", state)


def test_weights_of_another_network_are_an_error():
    with pytest.raises(CheckpointError, match="not a parameter of the official MedNeXt"):
        convert("mednext", {"encoder1.layer.conv1.conv.weight": torch.zeros(1)})


def test_an_unknown_network_is_an_error():
    with pytest.raises(ConfigError, match="Known: mednext"):
        convert("segformer", {})
