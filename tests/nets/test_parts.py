import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.nets import create_model
from voxelseg.nets.kernel_masks import add_masks
from voxelseg.nets.parts import part_parameters, part_tensors


def test_all_is_all_but_the_heads():
    model = create_model("mednext_xs", num_classes=2, width=2, blocks=1, deep_supervision=True)
    names = {name for name, _ in model.named_parameters()}
    heads = {name for name in names if name.startswith("heads.")}
    assert len(heads) == 10  # weight and bias at five levels
    assert part_parameters(model, "all") == names - heads


def test_the_encoder_is_what_the_deepest_features_depend_on():
    model = create_model("uxnet", num_classes=2, features=(4, 6, 8, 10), depths=(1, 1, 1, 1), kernel_size=3)
    encoder = part_parameters(model, "encoder")
    assert {name.split(".")[0] for name in encoder} == {"stem", "stages", "transitions", "output_norms"}
    assert {name for name in encoder if name.startswith("output_norms.")} == {  # the others norm skip connections
        "output_norms.3.weight",
        "output_norms.3.bias",
    }


def test_frozen_parameters_belong_to_their_part_and_the_network_stays_as_it_is():
    model = create_model("unet_s", num_classes=2, width=2)
    before = part_parameters(model, "encoder")
    model.requires_grad_(False)
    with torch.no_grad():
        assert part_parameters(model, "encoder") == before
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.training


def test_tensors_are_parameters_with_the_statistics_and_masks_of_their_layers():
    options = {"dims": (4, 6), "depths": (1, 1), "mlp_ratios": (2, 2), "local_stages": 1, "cubes_per_axis": (1, 1, 2)}
    model = create_model("logonet", num_classes=2, **options)
    add_masks(model, ["global_net.first_up.first.conv", "conv"], 0.5)
    state = set(model.state_dict())
    after_the_sum = {name for name in state if name.split(".")[0] in ("conv", "norm", "classifier")}
    assert {name.split(".")[1] for name in after_the_sum} == {
        *("weight", "bias", "kernel_mask", "running_mean", "running_var", "num_batches_tracked")
    }
    assert part_tensors(model, "all") == state - after_the_sum
    encoder = part_tensors(model, "encoder")
    assert {name.split(".")[1 if name.startswith("global") else 2] for name in encoder} == {"stages"}
    assert "global_net.stages.1.blocks.0.norm1.running_var" in encoder
    assert "local_nets.1.stages.0.embed_norm.num_batches_tracked" in encoder


def test_a_network_of_one_size_and_one_of_slices_have_parts():
    slices = create_model("mednext_xs", num_classes=2, width=2, blocks=1, spatial_dims=2)
    assert len(part_parameters(slices, "encoder")) == 82
    options = {"image_size": (48, 16, 32), "feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}
    unetr = create_model("unetr", num_classes=2, **options)
    lacking = {name for name, _ in unetr.named_parameters()} - part_parameters(unetr, "all")
    assert {name.split(".")[1] for name in lacking if "norm_cross_attn" not in name} == {"out"}  # those have no use


def test_a_form_is_followed_once_whatever_its_weights(monkeypatch):
    first, second = (create_model("unet_s", num_classes=2, width=6, strides=[1, [1, 2, 2]]) for _ in range(2))
    names = part_parameters(first, "all")
    names.clear()  # a copy
    monkeypatch.setattr("voxelseg.nets.parts._outputs", None)  # what follows it
    assert part_parameters(second, "all") == {name for name, _ in second.named_parameters()} - {
        *("heads.0.weight", "heads.0.bias")
    }


def test_an_unknown_part_is_refused():
    with pytest.raises(ConfigError, match="part 'decoder': expected one of all, encoder"):
        part_parameters(create_model("unet_s", num_classes=2, width=2), "decoder")
