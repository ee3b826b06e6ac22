import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.nets import create_model
from voxelseg.train.config import TrainConfig
from voxelseg.train.loop.optimizer import build_optimizer
from voxelseg.train.start.transfer import TransferConfig


def unet():
    torch.manual_seed(0)
    return create_model("unet_s", num_classes=2, width=2, strides=(1, 2), deep_supervision=False)


def groups(network, **transfer):
    optimizer = build_optimizer(network, TrainConfig(), TransferConfig(**transfer))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        group["name"]: (group["lr_factor"], [names[id(parameter)] for parameter in group["params"]])
        for group in optimizer.param_groups
    }


def train(network, *, steps=2, size=(16, 8, 8), **transfer):
    """Steps of SGD without momentum, each group with its share of the learning rate; a state dict before and after."""
    config = TrainConfig(optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=0.1)
    optimizer = build_optimizer(network, config, TransferConfig(**transfer))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(1)
    for _ in range(steps):
        network.train()
        optimizer.zero_grad()
        network(torch.randn(2, 1, *size)).square().mean().backward()
        for group in optimizer.param_groups:
            group["lr"] = config.lr * group["lr_factor"]
        optimizer.step()
    return before, network.state_dict()


def test_without_patterns_all_parameters_are_one_group():
    network = unet()
    assert groups(network) == {"all else": (1.0, [name for name, _ in network.named_parameters()])}


def test_settings_of_the_optimizer_are_those_of_the_configuration():
    adamw = build_optimizer(unet(), TrainConfig(eps=1e-6, betas=(0.8, 0.9), weight_decay=0.1), TransferConfig())
    assert isinstance(adamw, torch.optim.AdamW)
    assert {key: adamw.defaults[key] for key in ("lr", "eps", "betas", "weight_decay")} == {
        "lr": 1e-3,
        "eps": 1e-6,
        "betas": (0.8, 0.9),
        "weight_decay": 0.1,
    }
    sgd = build_optimizer(unet(), TrainConfig(optimizer="sgd", momentum=0.9, lr=0.1), TransferConfig())
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"], sgd.defaults["lr"]) == (0.9, True, 0.1)


def test_of_several_patterns_the_last_one_that_fits_gives_the_factor():
    network = unet()
    found = groups(network, lr_factors={"*": 0.1, "encoder.0.*": 0.01, "heads.*": 1.0})
    assert {name: factor for name, (factor, _) in found.items()} == {"*": 0.1, "encoder.0.*": 0.01, "heads.*": 1.0}
    assert found["heads.*"][1] == ["heads.0.weight", "heads.0.bias"]
    assert all(name.startswith("encoder.0.") for name in found["encoder.0.*"][1])
    together = [name for _, names in found.values() for name in names]
    assert sorted(together) == sorted(name for name, _ in network.named_parameters())


def test_the_word_encoder_is_what_the_network_says_encodes():
    network = create_model("mednext_xs", num_classes=2, width=2, blocks=1)
    encoding = {id(parameter) for parameter in network.encoder_parameters()}
    names = [name for name, parameter in network.named_parameters() if id(parameter) in encoding]
    assert groups(network, lr_factors={"encoder": 0.5})["encoder"] == (0.5, names)
    assert any(name.startswith("stem") for name in names)


@pytest.mark.parametrize("key", ["freeze", "lr_factors"])
def test_a_pattern_that_chooses_nothing_is_refused_with_the_nearest_name(key):
    value = ("head.*",) if key == "freeze" else {"head.*": 0.1}
    message = rf"transfer.{key}: 'head\.\*' is no parameter of this UNet \(did you mean 'heads\.\*'\?\).*\"encoder\""
    with pytest.raises(ConfigError, match=message):
        build_optimizer(unet(), TrainConfig(), TransferConfig(**{key: value}))


def test_a_factor_without_effect_is_refused():
    for transfer in ({"freeze": ("heads.*",)}, {}):
        factors = {"heads.*": 0.1, **({} if transfer else {"*": 1.0})}
        with pytest.raises(ConfigError, match=r"'heads\.\*' has no effect.* Leave it out, or put it last"):
            build_optimizer(unet(), TrainConfig(), TransferConfig(**transfer, lr_factors=factors))


def test_something_must_be_left_to_train():
    with pytest.raises(ConfigError, match="no parameter is left to train"):
        build_optimizer(unet(), TrainConfig(), TransferConfig(freeze=("*",)))


@pytest.mark.parametrize("name", ["unet_s", "ulkanet"])
def test_a_frozen_encoder_stays_bit_for_bit_and_so_do_the_statistics_of_its_batch_norms(name):
    torch.manual_seed(0)
    options = {"ulkanet": {"dims": (4, 6), "depths": (1, 1), "mlp_ratios": (2, 2)}, "unet_s": {"width": 2}}[name]
    network = create_model(name, num_classes=2, **options)
    network.deep_supervision = False
    before, after = train(network, size=(32, 32, 64) if name == "unet_s" else (16, 8, 8), freeze=("encoder",))
    encoding = {id(parameter) for parameter in network.encoder_parameters()}
    frozen = {key for key, parameter in network.named_parameters() if id(parameter) in encoding}
    layers = {key.rpartition(".")[0] for key in frozen}
    frozen |= {key for key, _ in network.named_buffers() if key.rpartition(".")[0] in layers}
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    moved = [key for key, parameter in network.named_parameters() if key not in frozen]
    assert sum(not torch.equal(before[key], after[key]) for key in moved) > len(moved) / 2
    if name == "ulkanet":
        assert any(key.endswith("running_mean") for key in frozen)
        statistics = [key for key in before if key.endswith("running_mean") and key not in frozen]
        assert all(not torch.equal(before[key], after[key]) for key in statistics)


def test_the_learning_rate_of_a_group_is_multiplied_by_its_factor():
    before, after = train(unet(), steps=1)
    scaled_before, scaled_after = train(unet(), steps=1, lr_factors={"encoder": 0.25})
    for name in before:
        step, scaled = after[name] - before[name], scaled_after[name] - scaled_before[name]
        factor = 0.25 if name.startswith("encoder") else 1.0
        torch.testing.assert_close(scaled, factor * step, rtol=1e-3, atol=1e-7)
