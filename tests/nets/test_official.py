from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets import create_model
from voxelseg.nets.mednext import MedNeXt, MedNeXtConfig
from voxelseg.nets.official import convert, differing_options, load_official, official_kind, read_official


def network(deep_supervision: bool, **options: Any) -> MedNeXt:
    settings = {"in_channels": 1, "num_classes": 2, "width": 2, "expansion": 1, "blocks": 1, "grn": True, **options}
    return MedNeXt(MedNeXtConfig(**settings, deep_supervision=deep_supervision))


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


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_official_weights_load_under_our_names_with_and_without_prefix(prefix):
    model = network(deep_supervision=True)
    state = official_state(model, prefix)
    report = load_official(model, "mednext", state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[prefix + official_key(key)]), key
    assert set(report.matched) == set(model.state_dict())
    assert (report.left_out, report.missing, report.mismatched) == (("dummy_tensor",), (), ())


@pytest.mark.parametrize("key", ["state_dict", "network_weights"])
def test_whole_checkpoints_are_taken_too(key):
    model = network(deep_supervision=True)
    state = official_state(model, "module.")
    checkpoint = {"epoch": 1000, key: state, "optimizer_state_dict": {"state": {}}, "plot_stuff": ([0.5], [])}
    converted = convert("mednext", checkpoint)
    assert converted.keys() == model.state_dict().keys()
    model.load_state_dict(converted, strict=True)
    assert torch.equal(model.stem.weight, state["module.stem.weight"])


@pytest.mark.parametrize("dims", [2, 3])
def test_the_first_down_block_without_response_norm_gets_one_that_does_nothing(dims):
    model = network(deep_supervision=False, spatial_dims=dims)
    state = official_state(model)
    del state["down_0.grn_gamma"], state["down_0.grn_beta"]  # the authors' code forgets them
    load_official(model, "mednext", state)
    assert not model.down[0].grn_weight.any()
    assert not model.down[0].grn_bias.any()
    assert torch.equal(model.down[1].grn_bias, state["down_1.grn_beta"])
    model.load_state_dict(convert("mednext", state), strict=True)


@pytest.mark.parametrize(
    "key", ["stem.conv.weight", "enc_block_4.0.conv1.weight", "up_0.depthwise.weight", "up_0.norm"]
)
def test_names_that_mednext_does_not_have_are_an_error(key):
    with pytest.raises(CheckpointError, match=rf"not a parameter of the official mednext: {key}"):
        convert("mednext", {key: torch.zeros(1)})


def test_heads_of_deep_supervision_are_left_out_where_the_model_has_none():
    state = official_state(network(deep_supervision=True))
    model = network(deep_supervision=False)
    report = load_official(model, "mednext", state)
    assert torch.equal(model.heads[0].weight, state["out_0.conv_out.weight"])
    extra = [f"heads.{level}.{part}" for level in (1, 2, 3, 4) for part in ("weight", "bias")]
    assert set(report.left_out) == {*extra, "dummy_tensor"}
    assert "9 left out, since this model has no use for them" in str(report)
    assert "Train the model" not in str(report)


def test_heads_that_the_file_lacks_keep_their_fresh_weights_and_are_reported():
    model = network(deep_supervision=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = official_state(network(deep_supervision=False))
    report = load_official(model, "mednext", state)
    assert len(report.missing) == 8
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in report.missing)
    assert torch.equal(model.heads[0].weight, state["out_0.conv_out.weight"])
    assert "8 not in the file: they keep their fresh weights: heads.1.weight" in str(report)
    assert str(report).endswith("Train the model before it predicts.")


def test_heads_for_another_number_of_classes_keep_their_fresh_weights_and_are_reported():
    model = network(deep_supervision=False)
    before = model.heads[0].weight.clone()
    state = official_state(network(deep_supervision=False, num_classes=5))
    report = load_official(model, "mednext", state)
    assert report.mismatched == ("heads.0.weight", "heads.0.bias")
    assert torch.equal(model.heads[0].weight, before)
    assert torch.equal(model.stem.weight, state["stem.weight"])
    assert "2 for another number of classes" in str(report)


def test_a_backbone_that_does_not_match_is_an_error_and_nothing_is_loaded():
    model = network(deep_supervision=False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = official_state(model)
    del state["bottleneck.0.conv1.weight"]
    state["enc_block_0.1.conv1.weight"] = torch.zeros(2, 1, 3, 3, 3)
    state["stem.weight"] = torch.zeros(4, 1, 1, 1, 1)
    with pytest.raises(CheckpointError) as error:
        load_official(model, "mednext", state)
    for problem in (
        "missing encoder.4.0.depthwise.weight",
        "unknown encoder.0.1.depthwise.weight",
        "stem.weight is (4, 1, 1, 1, 1), expected (2, 1, 1, 1, 1)",
    ):
        assert problem in str(error.value)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_weights_of_another_network_are_an_error():
    state = {f"encoder{index}.layer.conv1.conv.weight": torch.zeros(1) for index in range(7)}
    with pytest.raises(CheckpointError, match=r"not a parameter of the official mednext: encoder0\..* and 2 more"):
        convert("mednext", state)


def test_two_tensors_of_one_name_are_an_error():
    with pytest.raises(CheckpointError, match=r"two tensors of the official weights are stem\.weight here"):
        convert("mednext", {"stem.weight": torch.zeros(1), "module.stem.weight": torch.ones(1)})


@pytest.mark.parametrize("content", [{"epoch": 3}, {"state_dict": {"stem.weight": "text"}}, {"stem.weight": 1.0}])
def test_what_is_no_state_dict_is_an_error(content):
    with pytest.raises(CheckpointError, match="a tensor for every name"):
        convert("mednext", content)


def test_an_unknown_network_is_an_error():
    with pytest.raises(ConfigError, match=r"'mednex' \(did you mean 'mednext'\?\)\. Known: mednext"):
        convert("mednex", {})


def test_files_of_nnunet_v1_are_read_with_the_numbers_of_numpy_in_them(tmp_path):
    state = OrderedDict(official_state(network(deep_supervision=True)))
    checkpoint = {
        "epoch": np.int64(1000),
        "state_dict": state,
        "plot_stuff": ([np.float64(-0.5), np.float32(0.5)], np.zeros(3)),
        "amp_grad_scaler": {"scale": 65536.0},
    }
    torch.save(checkpoint, tmp_path / "model_final_checkpoint.model")
    read = read_official(tmp_path / "model_final_checkpoint.model")
    assert list(read) == list(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_bare_state_dicts_and_safetensors_are_read(tmp_path):
    state = official_state(network(deep_supervision=False), "module.")
    torch.save(state, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        read = read_official(tmp_path / name)
        assert convert("mednext", read).keys() == convert("mednext", state).keys()
        assert torch.equal(read["module.stem.weight"], state["module.stem.weight"])


class Harmful:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_files_with_other_python_objects_are_refused_and_nothing_in_them_runs(tmp_path):
    torch.save({"state_dict": {}, "trainer": Harmful(tmp_path / "ran")}, tmp_path / "harmful.pth")
    with pytest.raises(CheckpointError, match=r"other than tensors and numbers.*Unsupported.*weights_only=False"):
        read_official(tmp_path / "harmful.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_damaged_files_say_so(tmp_path, name):
    save = save_file if name.endswith("safetensors") else torch.save
    save(official_state(network(deep_supervision=False)), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for length in (len(content) // 2, 0):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            read_official(tmp_path / name)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        read_official(tmp_path / name)


def test_a_text_is_no_file_of_weights(tmp_path):
    (tmp_path / "weights.pth").write_text("hello")  # to a pickle an h is a place in a memory that it has not filled
    with pytest.raises(CheckpointError, match=r"weights.pth: damaged or not a file of weights \(KeyError\)"):
        read_official(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("mednext_xs", "mednext"),
        ("uxnet", "uxnet"),
        ("uxnet_optimized", "uxnet"),
        ("e2enet", "e2enet"),
        ("ulkanet_l", "ulkanet"),
        ("logonet", "logonet"),
        ("unet_s", None),
        ("unetr", None),
    ],
)
def test_the_authors_of_a_network_are_known_by_its_name(model, kind):
    assert official_kind(model) == kind


def test_options_that_the_authors_weights_need_are_named_with_their_values():
    options = {"width": 2, "strides": (1, 2), "num_classes": 2}
    assert differing_options(create_model("e2enet", **options), "e2enet") == ["shift = (-2, -1, 0, 1, 2)"]
    assert differing_options(create_model("e2enet", **options, shift=(-2, -1, 0, 1, 2)), "e2enet") == []
    assert differing_options(network(deep_supervision=False), "mednext") == []
