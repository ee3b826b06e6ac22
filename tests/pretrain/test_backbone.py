import dataclasses

import pytest
import torch

from voxelseg.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxelseg.data.labels import NO_LABELS, parse_labels
from voxelseg.data.layouts import read_dataset
from voxelseg.errors import CheckpointError, ConfigError
from voxelseg.nets import create_model
from voxelseg.plan.fingerprint import compute_fingerprint
from voxelseg.plan.planner import make_plan
from voxelseg.pretrain.backbone import (
    build_backbone,
    check_pretrainable,
    freeze_all_but,
    load_backbone,
    trained_weights,
)
from voxelseg.train.config import NetworkConfig
from voxelseg.train.sparse.settings import SparseConfig

OPTIONS = {
    "mednext_xs": {"width": 2, "blocks": 1},
    "uxnet": {"features": (4, 6, 8, 10), "depths": (1, 1, 1, 1), "kernel_size": 3},
    "e2enet": {"width": 4, "strides": (1, 2, 2, 2), "sparsity": 0.5},
    "ulkanet": {"dims": (4, 6), "depths": (1, 1), "mlp_ratios": (2, 2)},
    "logonet": {"dims": (4, 6), "depths": (1, 1), "mlp_ratios": (2, 2), "local_stages": 1},
    "unet_s": {"width": 2, "strides": (1, 2, 2)},
    "unet3d": {"features": (4, 4, 6, 8, 8, 4)},
    "swin_unetr": {"feature_size": 12, "depths": (1, 1, 1, 1), "window_size": 2},
}


def small(name, *, seed=0, num_classes=14):
    torch.manual_seed(seed)
    return create_model(name, in_channels=1, num_classes=num_classes, **OPTIONS[name])


def a_step(network, part):
    """One step of an optimizer that has all parameters which ask for a gradient."""
    optimizer = torch.optim.SGD([one for one in network.parameters() if one.requires_grad], lr=0.1, weight_decay=0.1)
    network.train()
    *sides, last = network.divisor
    x = torch.randn(2, 1, *sides, 2 * last)
    outputs = [network.features(x)] if part == "all" else network.encode(x)
    sum(output.square().mean() for output in outputs).backward()
    optimizer.step()


@pytest.mark.parametrize("part", ["all", "encoder"])
@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_not_trained_stays_as_it_is_and_is_not_saved(name, part):
    network = small(name)
    freeze_all_but(network, part)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    a_step(network, part)
    saved = trained_weights(network, part)
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed <= saved.keys()
    parameters = dict(network.named_parameters())
    trained = {key for key, parameter in parameters.items() if parameter.requires_grad}
    assert {key for key in saved if key in parameters} == trained
    assert all(parameters[key].grad is not None for key in trained)
    assert all(parameters[key].grad is None for key in parameters.keys() - trained)
    assert not any(key.startswith(("heads.", "classifier", "network.out.", "network.final_conv")) for key in saved)


@pytest.fixture(scope="module")
def dataset(tiny_msd):
    return read_dataset(tiny_msd)


@pytest.fixture(scope="module")
def plan(dataset):
    return make_plan(compute_fingerprint(dataset))


def test_a_backbone_has_the_plan_s_levels_and_no_deep_supervision(dataset, plan):
    network = build_backbone("unet_s", dataset, NetworkConfig(model={"width": 2}), plan, "all")
    assert network.config.strides == plan.strides
    assert not network.deep_supervision
    assert len(network.heads) == 1
    assert not any(parameter.requires_grad for parameter in network.heads.parameters())
    assert all(parameter.requires_grad for parameter in network.encoder.parameters())


def test_a_backbone_has_the_masks_that_the_sparse_section_asks_for(dataset, plan):
    config = NetworkConfig(model={"width": 2}, sparse=SparseConfig(layers=("decoder*",), sparsity=0.5))
    network = build_backbone("unet_s", dataset, config, plan, "all")
    masks = {key for key in trained_weights(network, "all") if key.endswith("kernel_mask")}
    assert masks == {key for key in network.state_dict() if key.endswith("kernel_mask")}
    assert masks
    assert not any("kernel_mask" in key for key in trained_weights(network, "encoder"))


def test_networks_and_options_that_cannot_be_pretrained_are_refused(dataset, plan):
    with pytest.raises(
        ConfigError, match=r"cotr cannot be pre-trained\. Choose one of (?=.*mednext_xs)(?=.*swin_unetr)"
    ):
        build_backbone("cotr", dataset, NetworkConfig(), plan, "all")
    with pytest.raises(ConfigError, match="unknown model 'unet_x'"):
        check_pretrainable("unet_x")
    with pytest.raises(ConfigError, match=r"model\.deep_supervision: .* Leave it out"):
        build_backbone("unet_s", dataset, NetworkConfig(model={"deep_supervision": True}), plan, "all")
    with pytest.raises(ConfigError, match="takes slices, not volumes"):
        build_backbone("mednext_xs", dataset, NetworkConfig(model={"spatial_dims": 2}), plan, "all")


def saved(name, plan, folder, *, part="all", **changes):
    """What a pre-training of a part of a small network left, and the network."""
    network = small(name)
    options = dataclasses.asdict(network.config)
    checkpoint = Checkpoint(
        **{
            "weights": trained_weights(network, part),
            "model": name,
            "model_options": {key: options[key] for key in options if key not in ("in_channels", "num_classes")},
            "plan": plan,
            "labels": NO_LABELS,
            "file_ending": ".nii.gz",
            "provenance": {},
            "pretraining": {"method": "simmim", "num_classes": 14, "trained": part},
        }
        | changes
    )
    save_checkpoint(folder / "model.safetensors", checkpoint)
    return network.eval(), load_checkpoint(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["e2enet", "logonet", "unet3d"])
def test_a_pre_trained_network_is_read_back_with_the_features_that_it_had(plan, tmp_path, name):
    network, checkpoint = saved(name, plan, tmp_path)
    again = load_backbone(checkpoint)
    *sides, last = network.divisor
    x = torch.randn(1, 1, *sides, 2 * last)
    with torch.no_grad():
        assert torch.equal(again.features(x), network.features(x))
    assert not again.training


def test_what_an_encoder_s_pre_training_left_out_has_fresh_weights_always_the_same(plan, tmp_path):
    network, checkpoint = saved("unet_s", plan, tmp_path, part="encoder")
    before = torch.random.get_rng_state()
    first, second = load_backbone(checkpoint), load_backbone(checkpoint)
    assert torch.equal(torch.random.get_rng_state(), before)
    x = torch.randn(1, 1, 4, 4, 8)
    with torch.no_grad():
        assert torch.equal(first.encode(x)[0], network.encode(x)[0])
        assert torch.equal(first.features(x), second.features(x))


def test_trained_models_and_weights_of_other_networks_are_no_backbones(plan, tmp_path):
    labels = parse_labels({"background": 0, "ball": 1})
    _, trained = saved("unet_s", plan, tmp_path, pretraining=None, labels=labels)
    with pytest.raises(CheckpointError, match=r"model.safetensors: is a trained model, not what a pre-training left"):
        load_backbone(trained)
    network, checkpoint = saved("unet_s", plan, tmp_path)
    weights = trained_weights(network, "all")
    lacking = {key: value for key, value in weights.items() if key != "up.0.bias"}
    for changes, message in (
        ({"weights": lacking}, "up.0.bias is missing"),
        ({"weights": {**weights, "down.weight": torch.zeros(1)}}, "down.weight is unknown"),
        ({"weights": {**weights, "up.0.bias": torch.zeros(9)}}, "size mismatch for up.0.bias"),
        ({"model": "unet_m"}, "cannot build its network: unknown model 'unet_m'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_backbone(dataclasses.replace(checkpoint, **changes))
