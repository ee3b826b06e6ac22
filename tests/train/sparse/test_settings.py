import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.nets import create_model
from voxelseg.nets.kernel_masks import sparse_weights
from voxelseg.train.config import build_config
from voxelseg.train.run import build_network
from voxelseg.train.sparse.settings import SparseConfig, chosen_layers, make_sparse, sparsity_option


def unet():
    torch.manual_seed(0)
    return create_model("unet_s", in_channels=1, num_classes=2, width=4, strides=(1, 2, 2))


def e2enet(**options):
    torch.manual_seed(0)
    return create_model("e2enet", in_channels=1, num_classes=2, width=4, strides=(1, 2, 2), **options)


def test_layers_of_any_network_are_made_sparse_by_their_names():
    model = unet()
    make_sparse(model, SparseConfig(layers=("decoder*", "encoder.2.?.conv"), sparsity=0.75))
    names = list(sparse_weights(model))
    assert names == [
        *("encoder.2.0.conv", "encoder.2.1.conv"),
        *("decoder.0.0.conv", "decoder.0.1.conv", "decoder.1.0.conv", "decoder.1.1.conv"),
    ]
    for weight, mask in sparse_weights(model).values():
        assert int(mask.sum()) == mask.numel() // 4
        assert not weight[~mask].any()


def test_a_pattern_that_names_no_convolution_is_refused_with_what_there_is():
    with pytest.raises(ConfigError, match=r"no convolution is called 'decoders\*'.*There are .*decoder\.0\.0\.conv"):
        chosen_layers(unet(), ("decoder*", "decoders*"))


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (e2enet, {"layers": ("encoder*",)}, "sparse.layers: E2ENet names its sparse layers itself"),
        (unet, {"layers": ("decoder*",)}, "sparse.layers needs the share of inactive kernels"),
        (unet, {"layers": ("decoder*",), "sparsity": 0.0}, "sparse.layers needs the share of inactive kernels"),
        (unet, {"sparsity": 0.5}, "sparse.sparsity: this UNet has no sparse layers"),
        (unet, {"update_every": 5, "growth": "gradient"}, "sparse.growth, sparse.update_every: this UNet has no"),
        (lambda: e2enet(sparsity=0.0), {"freeze_topology": True}, "sparse.freeze_topology: this E2ENet has no sparse"),
    ],
)
def test_an_option_without_effect_is_refused(network, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_sparse(network(), SparseConfig(**settings))


def test_a_network_with_its_own_sparse_layers_needs_no_option():
    model = e2enet()
    masks = [mask.clone() for _, mask in sparse_weights(model).values()]
    make_sparse(model, SparseConfig())
    assert all(map(torch.equal, masks, (mask for _, mask in sparse_weights(model).values())))
    make_sparse(unet(), SparseConfig())
    make_sparse(e2enet(sparsity=0.0), SparseConfig(sparsity=0.0))


def test_the_sparsity_is_the_networks_own_option():
    assert sparsity_option(SparseConfig(), {"sparsity": 0.7}) == {}
    assert sparsity_option(SparseConfig(sparsity=0.7), {"width": 8}) == {"sparsity": 0.7}
    with pytest.raises(ConfigError, match=r"sparse\.sparsity=0\.7 and model\.sparsity=0\.9"):
        sparsity_option(SparseConfig(sparsity=0.7), {"sparsity": 0.9})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze_topology": True, "update_every": 3, "growth": "gradient"}, "growth, update_every: nothing moves"),
        ({"initial_rate": 0.1, "final_rate": 0.2}, r"final_rate 0\.2 is above initial_rate 0\.1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SparseConfig(**settings)


def test_a_runs_network_has_the_masks_of_its_settings(prepared):
    def masks(model, *settings):
        network = build_network(model, prepared.dataset, build_config(list(settings)))
        return [mask for _, mask in sparse_weights(network).values()]

    layers = masks("unet_s", "sparse.layers=[decoder*]", "sparse.sparsity=0.75")
    assert len(layers) == 6
    assert all(4 * int(mask.sum()) == mask.numel() for mask in layers)
    assert float(torch.cat([mask.flatten() for mask in masks("e2enet", "model.width=8")]).float().mean()) == (
        pytest.approx(0.2, abs=1e-3)
    )
    halves = masks("e2enet", "model.width=8", "sparse.sparsity=0.5")
    assert all(2 * int(mask.sum()) == mask.numel() for mask in halves)
    with pytest.raises(ConfigError, match=r"sparse\.update_every: this UNet has no sparse layers"):
        masks("unet_s", "sparse.update_every=10")


def test_an_interval_that_the_training_never_reaches_is_refused():
    with pytest.raises(ConfigError, match=r"sparse\.update_every=1200 is not reached in 500 steps"):
        build_config(["sparse.update_every=1200"], epochs=2)
    with pytest.raises(
        ConfigError, match=r"sparse\.update_every=600 is not reached in 500 steps"
    ):  # of 1000 in two parts
        build_config(["sparse.update_every=600", "train.grow_kernel=[3,5]"], epochs=4)
    assert build_config(["sparse.update_every=1200"], epochs=5).sparse.update_every == 1200
    assert build_config(["sparse.update_every=1200"], budget_s=60.0).sparse.update_every == 1200
