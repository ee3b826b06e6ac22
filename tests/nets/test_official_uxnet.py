import pytest
import torch

from voxelseg.errors import CheckpointError
from voxelseg.nets.official import convert, load_official
from voxelseg.nets.official.uxnet import rename
from voxelseg.nets.uxnet import UXNet, UXNetConfig


def network(**options: object) -> UXNet:
    settings = {"features": (2, 3, 4, 5), "depths": (1, 2, 1, 1), "kernel_size": 3, **options}
    return UXNet(UXNetConfig(in_channels=1, num_classes=2, **settings))


def official_key(key: str) -> str:
    """The inverse mapping, written from the authors' key pattern."""
    blocks = {"conv": "dwconv", "norm": "norm", "expand": "pwconv1", "compress": "pwconv2", "layer_scale": "gamma"}
    layers = {"conv1": "conv1", "conv2": "conv2", "shortcut": "conv3"}
    match key.split("."):
        case ["stem", part, kind]:
            return f"uxnet_3d.downsample_layers.0.{'0' if part == 'conv' else '1'}.{kind}"
        case ["transitions", number, part, kind]:
            return f"uxnet_3d.downsample_layers.{int(number) + 1}.{'1' if part == 'conv' else '0'}.{kind}"
        case ["stages", stage, block, part, *kind]:
            return ".".join(["uxnet_3d.stages", stage, block, blocks[part], *kind])
        case ["output_norms", number, kind]:
            return f"uxnet_3d.norm{number}.{kind}"
        case ["skips", level, part, kind]:
            return f"encoder{int(level) + 1}.layer.{layers[part]}.conv.{kind}"
        case ["bottleneck", part, kind]:
            return f"encoder5.layer.{layers[part]}.conv.{kind}"
        case ["up", level, kind]:
            return f"decoder{int(level) + 2}.transp_conv.conv.{kind}"
        case ["decoder", level, part, kind]:
            return f"decoder{int(level) + 2}.conv_block.{layers[part]}.conv.{kind}"
        case ["refine", part, kind]:
            return f"decoder1.layer.{layers[part]}.conv.{kind}"
        case ["heads", "0", kind]:
            return f"out.conv.conv.{kind}"
        case _:
            raise AssertionError(key)


def official_state(model: UXNet) -> dict[str, torch.Tensor]:
    return {official_key(key): torch.randn_like(value) for key, value in model.state_dict().items()}


def test_the_default_has_the_131_names_of_the_authors():
    with torch.device("meta"):
        model = UXNet(UXNetConfig(in_channels=1, num_classes=5))
    state = official_state(model)
    assert len(state) == 131
    assert state["uxnet_3d.stages.3.1.pwconv1.weight"].shape == (4 * 384, 1, 1, 1, 1)
    assert state["uxnet_3d.stages.3.1.pwconv2.weight"].shape == (384, 4, 1, 1, 1)
    assert state["decoder5.transp_conv.conv.weight"].shape == (768, 384, 2, 2, 2)
    assert "decoder1.layer.conv3.conv.weight" not in state


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_official_weights_load_under_our_names(prefix, wrapped):
    model = network()
    state = {prefix + key: value for key, value in official_state(model).items()}
    converted = convert("uxnet", {"state_dict": state, "epoch": 3} if wrapped else state)
    model.load_state_dict(converted, strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[prefix + official_key(key)]), key


def test_heads_of_deep_supervision_that_the_file_lacks_stay_fresh():
    model = network(deep_supervision=True)
    report = load_official(model, "uxnet", official_state(network()))
    assert {name.split(".")[1] for name in report.missing} == {"1", "2", "3"}


@pytest.mark.parametrize("key", ["encoder1.layer.conv1.weight", "decoder6.transp_conv.conv.weight", "stem.weight"])
def test_names_of_another_network_are_an_error(key):
    with pytest.raises(CheckpointError, match="not a parameter of the official 3D UX-Net"):
        rename(key)
